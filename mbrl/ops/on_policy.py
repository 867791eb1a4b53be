"""Advantages along trajectories, and the losses of proximal policy optimisation."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_LEAST_DEVIATION = 1e-8
"""Of advantages, below which they are not divided by it: a batch of which nothing can be learned."""


def generalised_advantage(
    reward: Float[Tensor, "h b"],
    value: Float[Tensor, "h b"],
    next_value: Float[Tensor, "h b"],
    terminated: Bool[Tensor, "h b"],
    continues: Bool[Tensor, "h b"],
    *,
    discount: float,
    trace: float,
) -> Float[Tensor, "h b"]:
    """GAE(lambda): `A_t = delta_t + discount trace A_{t+1}` while the trajectory goes on.

    `delta_t = r_t + discount (1 - terminated_t) V(s_{t+1}) - V(s_t)` (Schulman et al. 2016, arXiv:1506.02438,
    eqs. 10 and 16). A trajectory that is cut bootstraps from the value of its successor, one that terminates
    does not.

    Args:
        reward: `[h, b]`, step after step in each column, reward units.
        value: `[h, b]`, V(s), return units.
        next_value: `[h, b]`, V(s') of the true successor, also at a cut.
        terminated: `[h, b]`, the task ended with the step.
        continues: `[h, b]`, the next row of the column is the next step of the same trajectory.
        discount: in [0, 1].
        trace: lambda in [0, 1]: 0 is the one-step error, 1 the return minus the value.

    Returns:
        `[h, b]`, return units; rows that belong to no trajectory get what their entries say.
    """
    # Filled, not multiplied: a value of a terminal state that is not finite must not become NaN.
    delta = reward + discount * next_value.masked_fill(terminated, 0.0) - value
    # An end is never passed, whatever `continues` says of the row behind it.
    goes_on = continues & ~terminated
    advantage = torch.empty_like(delta)
    later = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        later = delta[t] + discount * trace * later.masked_fill(~goes_on[t], 0.0)
        advantage[t] = later
    return advantage


def standardise(values: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Mean 0 and population deviation 1 over the batch; 0 where all are the same."""
    centred = values - values.mean()
    # Relative to the size of the values: the same for rewards in any unit.
    spread = centred.square().mean().sqrt()
    floor = _LEAST_DEVIATION * values.abs().amax()
    return torch.where(spread > floor, centred / spread, torch.zeros_like(values))


def clipped_surrogate_loss(
    log_prob: Float[Tensor, "b"],
    old_log_prob: Float[Tensor, "b"],
    advantage: Float[Tensor, "b"],
    *,
    clip: float,
) -> Float[Tensor, ""]:
    """`-mean min(rho A, clip(rho, 1 - clip, 1 + clip) A)`, `rho = pi(a|s) / pi_old(a|s)`.

    Schulman et al. 2017 (arXiv:1707.06347), eq. 7. Without gradient where the ratio has already moved beyond
    the bound in the direction that the advantage wants.

    Args:
        log_prob: `[b]`, of the present policy, differentiable, nats.
        old_log_prob: `[b]`, of the policy that acted.
        advantage: `[b]`, detached.
        clip: epsilon, > 0.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantage, bounded * advantage).mean()


def clipped_value_loss(
    value: Float[Tensor, "b"],
    old_value: Float[Tensor, "b"],
    target: Float[Tensor, "b"],
    *,
    clip: float | None,
) -> Float[Tensor, ""]:
    """`mean (V - G)^2 / 2`, or of the larger error of V and of V within `clip` of its old value.

    The clipped form is that of the reference code of PPO (OpenAI Baselines); it is not in the paper.

    Args:
        value: `[b]`, differentiable, return units.
        old_value: `[b]`, when the steps were taken.
        target: `[b]`, what V regresses.
        clip: return units; None never clips.
    """
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error.mean()


def approximate_kl(log_prob: Float[Tensor, "b"], old_log_prob: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """`mean (rho - 1 - log rho)` of steps of the old policy: estimates `KL(pi_old || pi)`, nats."""
    log_ratio = log_prob - old_log_prob
    return (torch.exp(log_ratio) - 1 - log_ratio).mean()
