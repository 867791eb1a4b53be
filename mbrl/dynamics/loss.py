"""The Gaussian loss of the ensemble, with its gradient in closed form."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def bounded_gaussian_loss(
    output: Float[Tensor, "e b k2"], bounds: Float[Tensor, "e 2 k"], target: Float[Tensor, "e b k"]
) -> Float[Tensor, "e"]:
    """`mean_{b,k} [(y - mu)^2 exp(-l) + l]` for each member (Chua et al. 2018, section 4).

    `l` is the second half of `output` after `mbrl.ops.gaussian.soft_clamp`. The gradient is written by hand:
    one graph node and about twenty small kernels instead of fifty.

    Args:
        output: `[e, b, 2 k]`, means then raw log-variances.
        bounds: `[e, 2, k]`, lower and upper log-variance bounds of each member.
        target: `[e, b, k]`.

    Returns:
        `[e]`; sum it over members, so that they stay independent.
    """
    return cast(Tensor, _BoundedGaussianLoss.apply(output, bounds, target))


class _BoundedGaussianLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, bounds: Tensor, target: Tensor) -> Tensor:
        # l = soft_clamp(raw; low, high): first from above, then from below.
        size = target.shape[-1]
        low, high = bounds[:, :1], bounds[:, 1:]
        error = output[..., :size] - target
        below = high - output[..., size:]
        clamped = high - softplus(below)
        above = clamped - low
        log_variance = low + softplus(above)
        # loss = (y - mu)^2 exp(-l) + l
        precision = torch.exp(-log_variance)
        weighted = error * precision
        squared = weighted * error
        loss = squared.add(log_variance).mean((1, 2))

        # d/dl = 1 - (y - mu)^2 exp(-l), d/dmu = 2 (mu - y) exp(-l), each over the b * k terms of the mean.
        # Backwards through l = low + softplus(c - low) and c = high - softplus(high - raw):
        # dl/dc = sigmoid(c - low), dl/dlow = 1 - dl/dc,
        # dc/draw = sigmoid(high - raw), dc/dhigh = 1 - dc/draw.
        scale = 1.0 / (target.shape[1] * size)
        grad_log_variance = (1.0 - squared).mul_(scale)
        grad_clamped = grad_log_variance * above.sigmoid_()
        grad_raw = grad_clamped * below.sigmoid_()
        grad_output = torch.cat((weighted.mul_(2.0 * scale), grad_raw), -1)
        grad_low = (grad_log_variance - grad_clamped).sum(1, keepdim=True)
        grad_high = (grad_clamped - grad_raw).sum(1, keepdim=True)
        ctx.save_for_backward(grad_output, torch.cat((grad_low, grad_high), 1))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_output, grad_bounds = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        scale = grad[:, None, None]
        return grad_output * scale, grad_bounds * scale, None
