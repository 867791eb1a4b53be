"""The Gaussian loss of the ensemble, with its gradient in closed form."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def bounded_gaussian_loss(
    output: Float[Tensor, "e b k2"],
    bounds: Float[Tensor, "e 2 k"],
    target: Float[Tensor, "e b k"],
    beta: float = 0.0,
) -> Float[Tensor, "e"]:
    """`mean_{b,k} w [(y - mu)^2 exp(-l) + l]` for each member, `w = exp(beta l)` held constant.

    `l` is the second half of `output` after `mbrl.ops.gaussian.soft_clamp`. At `beta` 0 this is the Gaussian
    likelihood (Chua et al. 2018, section 4), whose gradient for a mean is its error over the variance: what
    is predicted well already is all that is learned, and what is not is neglected. At 1 the mean is fitted
    by least squares; 0.5 lies between (Seitzer et al. 2022, eq. 5: beta-NLL). For any of them the best mean
    and variance of the same inputs are the same.

    The gradient is written by hand: one graph node and about twenty small kernels instead of fifty.

    Args:
        output: `[e, b, 2 k]`, means then raw log-variances.
        bounds: `[e, 2, k]`, lower and upper log-variance bounds of each member.
        target: `[e, b, k]`.
        beta: in [0, 1].

    Returns:
        `[e]`; sum it over members, so that they stay independent.
    """
    return cast(Tensor, _BoundedGaussianLoss.apply(output, bounds, target, beta))


class _BoundedGaussianLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, bounds: Tensor, target: Tensor, beta: float) -> Tensor:
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
        terms = squared.add(log_variance)
        # w is a constant: it multiplies the terms, and so both derivatives below.
        weight = torch.exp(beta * log_variance) if beta else None
        loss = (terms if weight is None else terms.mul_(weight)).mean((1, 2))

        # d/dl = 1 - (y - mu)^2 exp(-l), d/dmu = 2 (mu - y) exp(-l), each over the b * k terms of the mean.
        # Backwards through l = low + softplus(c - low) and c = high - softplus(high - raw):
        # dl/dc = sigmoid(c - low), dl/dlow = 1 - dl/dc,
        # dc/draw = sigmoid(high - raw), dc/dhigh = 1 - dc/draw.
        scale = 1.0 / (target.shape[1] * size)
        grad_log_variance = (1.0 - squared).mul_(scale)
        if weight is not None:
            grad_log_variance.mul_(weight)
            weighted.mul_(weight)
        grad_clamped = grad_log_variance * above.sigmoid_()
        grad_raw = grad_clamped * below.sigmoid_()
        grad_output = torch.cat((weighted.mul_(2.0 * scale), grad_raw), -1)
        grad_low = (grad_log_variance - grad_clamped).sum(1, keepdim=True)
        grad_high = (grad_clamped - grad_raw).sum(1, keepdim=True)
        ctx.save_for_backward(grad_output, torch.cat((grad_low, grad_high), 1))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_output, grad_bounds = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        scale = grad[:, None, None]
        return grad_output * scale, grad_bounds * scale, None, None
