"""Robust errors of values, and of values that are quantiles of a return."""

import torch
from jaxtyping import Float
from torch import Tensor


def huber(error: Float[Tensor, "*b"], *, width: float = 1.0) -> Float[Tensor, "*b"]:
    """`e^2 / 2` up to `|e| = width`, `width (|e| - width / 2)` beyond (Huber 1964).

    A squared error whose gradient is clipped at +-width: the clipped error of Mnih et al. 2015 at width 1.

    Args:
        error: `[*b]`.
        width: > 0, in the units of the error.
    """
    size = error.abs()
    return torch.where(size <= width, 0.5 * error.square(), width * (size - 0.5 * width))


def huber_critic_loss(action_values: Float[Tensor, "e b"], target: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """`sum_i mean_b huber(Q_i - y)`: a sum over critics, so that none depends on how many there are."""
    return huber(action_values - target).mean(1).sum()


def quantile_huber_loss(
    quantiles: Float[Tensor, "e b q"], target: Float[Tensor, "b p"], *, width: float = 1.0
) -> Float[Tensor, ""]:
    """`sum_i mean_b sum_j mean_k |tau_j - 1(u_jk < 0)| huber(u_jk) / width`, `u_jk = target_k - quantile_ij`.

    Quantile regression with a Huber error (Dabney et al. 2018, eq. 10 and algorithm 1), at the midpoints
    `tau_j = (j - 1/2) / q` (lemma 2).

    Args:
        quantiles: `[e, b, q]`, of the return of the chosen action, each critic's.
        target: `[b, p]`, equally likely returns, detached.
        width: kappa, > 0, return units.
    """
    count = quantiles.shape[-1]
    midpoint = (torch.arange(count, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / count
    # [e, b, q, p]: every quantile is held against every sample of the target.
    error = target[:, None, :] - quantiles[..., None]
    weight = (midpoint[:, None] - (error.detach() < 0).to(error.dtype)).abs()
    loss = weight * huber(error, width=width) / width
    return loss.mean(-1).sum(-1).mean(-1).sum()
