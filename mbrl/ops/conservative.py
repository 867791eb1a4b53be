"""The soft maximum of action values over all actions, from samples (conservative Q-learning)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def log_integral_exp(
    action_values: Float[Tensor, "n k b"], log_density: Float[Tensor, "k b"], *, temperature: float
) -> Float[Tensor, "n b"]:
    """Estimates `T log of the integral of exp(Q(s, a) / T) over actions` by importance sampling.

    `T [logsumexp_j (Q_j / T - log q_j) - log k]` (Kumar et al. 2020, appendix F, there with T = 1). The
    density stands beside `Q / T`, not inside the division: `(Q - log q) / T` integrates something else. The
    logarithm of an average lies below that of its expectation: the estimate is biased low.

    Args:
        action_values: `[n, k, b]`, critics at k sampled actions of each state.
        log_density: `[k, b]`, log-density of each action under the proposal it was drawn from, detached.
        temperature: T > 0.

    Returns:
        `[n, b]`, one number for each critic and state, return units.
    """
    # E_q [exp(Q / T) / q]: the logarithm of each summand is Q / T - log q.
    exponents = action_values / temperature - log_density
    return temperature * (torch.logsumexp(exponents, 1) - math.log(action_values.shape[1]))


def soft_maximum(action_values: Float[Tensor, "n k b"], *, temperature: float) -> Float[Tensor, "n b"]:
    """`T logsumexp_j (Q_j / T)` over the k actions, without weights: CQL(H) of the first release.

    Args:
        action_values: `[n, k, b]`.
        temperature: T > 0.

    Returns:
        `[n, b]`, at least the greatest of the k values and at most `T log k` above it.
    """
    return temperature * torch.logsumexp(action_values / temperature, 1)
