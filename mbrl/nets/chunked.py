"""Sums over many rows, differentiated chunk by chunk: activations of a chunk stay in the cache.

The backward pass of a chunk runs right after its forward pass, so memory does not grow with the rows, and the
layers of a chunk are read back while they are still in the cache.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


def chunked_sum(
    parameter: nn.Parameter, part: Callable[[int], Float[Tensor, "n"]], chunks: int
) -> Float[Tensor, "n"]:
    """`sum_k part(k)`, differentiable in `parameter` and in nothing else.

    Args:
        parameter: `[n, p]`, the flat parameters of n networks; term i of a part may depend on row i only.
        part: the terms of chunk k, `[n]`; called once for each chunk, with gradients enabled if the caller
            has them enabled.
        chunks: how many, >= 1.

    Returns:
        `[n]`. Its gradient is exact: that of the same sum in one piece, up to rounding.
    """
    if not torch.is_grad_enabled():
        return torch.stack([part(k) for k in range(chunks)]).sum(0)
    return cast(Tensor, _ChunkedSum.apply(parameter, part, chunks))


class _ChunkedSum(torch.autograd.Function):
    """Takes the gradients of the rows in the forward pass; the backward pass scales them."""

    @staticmethod
    def forward(ctx: Any, parameter: nn.Parameter, part: Callable[[int], Tensor], chunks: int) -> Tensor:
        total = torch.zeros(parameter.shape[0], dtype=parameter.dtype, device=parameter.device)
        gradient: Tensor | None = None
        for k in range(chunks):
            with torch.enable_grad():
                # Term i depends on row i alone, so the gradient of the sum holds in row i that of term i.
                terms = part(k)
                (piece,) = torch.autograd.grad(terms.sum(), parameter)
            total += terms.detach()
            # The graph of the chunk is gone here; only a gradient of the size of the parameters is kept.
            gradient = piece if gradient is None else gradient.add_(piece)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = cast(tuple[Tensor], ctx.saved_tensors)
        # Chain rule: row i by what the loss says of sum i.
        return gradient * grad[:, None], None, None
