"""Expectiles of returns, and regression weighted by advantages."""

import torch
from jaxtyping import Float
from torch import Tensor


def expectile_loss(error: Float[Tensor, "b"], *, expectile: float) -> Float[Tensor, ""]:
    """Asymmetric square `mean_b |tau - 1(error < 0)| error^2`; its minimum in V is the tau-expectile.

    Kostrikov et al. 2021 (IQL), eq. 5; 0.5 is half the squared error, near 1 the greatest return that the
    data support.

    Args:
        error: `[b]`, target minus value, return units.
        expectile: tau in (0, 1).
    """
    # V above the target counts 1 - tau, V below it tau: near 1 only the second pulls.
    weight = torch.where(error < 0, 1 - expectile, expectile)
    return (weight * error.square()).mean()


def exponential_weight(
    advantage: Float[Tensor, "b"], *, inverse_temperature: float, max_weight: float
) -> Float[Tensor, "b"]:
    """`min(exp(beta A), max_weight)` (Peng et al. 2019, AWR; Kostrikov et al. 2021, eq. 7).

    Args:
        advantage: `[b]`, return units, detached.
        inverse_temperature: beta, in 1 / return units; 0 clones all actions alike.
        max_weight: the cap; it holds where the exponential overflows.
    """
    # exp overflows to inf, which the cap makes finite; there are no gradients to spoil.
    return torch.exp(inverse_temperature * advantage).clamp_max(max_weight)


def softmax_weight(advantage: Float[Tensor, "b"], *, inverse_temperature: float) -> Float[Tensor, "b"]:
    """`b softmax(beta A)`: weights of mean 1 over the batch, whatever the level of the advantages.

    The form of d3rlpy's AWAC; the normaliser is an estimate of Nair et al. 2020, eq. 8, by the batch.

    Args:
        advantage: `[b]`, return units, detached.
        inverse_temperature: beta, in 1 / return units.
    """
    # exp(beta A) / Z with Z = mean exp(beta A); softmax subtracts the maximum, so nothing overflows.
    return torch.softmax(inverse_temperature * advantage, 0) * advantage.shape[0]
