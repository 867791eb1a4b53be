"""Value targets and the bounds that rewards put on values."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def td_target(
    reward: Float[Tensor, "*b"],
    terminated: Bool[Tensor, "*b"],
    next_value: Float[Tensor, "*b"],
    *,
    discount: float,
) -> Float[Tensor, "*b"]:
    """One-step target `r + discount * (1 - terminated) * V(s')` (Sutton & Barto 2018, eq. 6.2).

    Args:
        reward: `[*b]`, reward units.
        terminated: `[*b]`; True removes the bootstrap. A truncation must not be passed here.
        next_value: `[*b]`, estimate of V(s'); detach it to stop gradients.
        discount: in [0, 1].

    Returns:
        `[*b]`, return units.
    """
    # Filled, not multiplied: a value of a terminal state that is not finite must not become NaN.
    return reward + discount * next_value.masked_fill(terminated, 0.0)


def soft_next_value(
    next_action_values: Float[Tensor, "n *b"],
    next_log_prob: Float[Tensor, "*b"],
    *,
    entropy_coef: Float[Tensor, ""],
    has_entropy: bool,
) -> Float[Tensor, "*b"]:
    """Pessimistic soft value `min_i Q_i(s', a') - b * entropy_coef * log pi(a'|s')`.

    Haarnoja et al. 2018, eq. 3, with the least of n critics for Q.

    Args:
        next_action_values: `[n, *b]`, target critics at `a' ~ pi(s')`, return units.
        next_log_prob: `[*b]`, log-density of a'.
        entropy_coef: temperature, >= 0, reward units.
        has_entropy: b; False is the deterministic backup of COMBO and MOBILE.

    Returns:
        `[*b]`, return units.
    """
    # The least of n critics: a backup passes errors on, and those that are too high would feed themselves.
    value = next_action_values.amin(0)
    return value - entropy_coef * next_log_prob if has_entropy else value


def smoothed_action(
    scaled_action: Float[Tensor, "b act_dim"],
    noise: Float[Tensor, "b act_dim"],
    *,
    noise_std: float,
    noise_clip: float,
) -> Float[Tensor, "b act_dim"]:
    """`clip(a + clip(noise_std * noise, +-noise_clip), +-1)` (Fujimoto et al. 2018, section 5.3).

    Args:
        scaled_action: `[b, act_dim]`, of the target policy, in [-1, 1].
        noise: `[b, act_dim]`, standard normal draws.
        noise_std: scaled action units.
        noise_clip: scaled action units.
    """
    # Clipped noise stays near the action; the outer clip keeps the action in its box.
    shift = (noise * noise_std).clamp(-noise_clip, noise_clip)
    return torch.clamp(scaled_action + shift, -1.0, 1.0)


def clipped_value(
    action_values: Float[Tensor, "n *b"], *, minimum_weight: float = 1.0
) -> Float[Tensor, "*b"]:
    """Soft clipped value `w min_i Q_i + (1 - w) max_i Q_i`, w = `minimum_weight` (Fujimoto et al. 2019).

    Args:
        action_values: `[n, *b]`, return units.
        minimum_weight: in [0, 1]; 1 is the least of the critics.
    """
    least = action_values.amin(0)
    # The common case needs no maximum.
    if minimum_weight == 1.0:
        return least
    return torch.lerp(action_values.amax(0), least, minimum_weight)


def penalised_next_value(
    next_value: Float[Tensor, "b"],
    deviation: Float[Tensor, "b"],
    has_next_action: Bool[Tensor, "b"],
    *,
    coef: float,
) -> Float[Tensor, "b"]:
    """`V(s') - coef * deviation`, without penalty where no next action is known (Tarasov et al. 2023).

    Args:
        next_value: `[b]`, of the target policy's action at s', return units.
        deviation: `[b]`, its squared distance from the action that was taken at s'; ignored, even if not
            finite, where `has_next_action` is False.
        has_next_action: `[b]`.
        coef: return units per squared scaled action unit.
    """
    # Filled, not multiplied: what stands in rows without a next action may be NaN.
    return next_value - coef * deviation.masked_fill(~has_next_action, 0.0)


def value_bounds(reward_low: float, reward_high: float, *, discount: float) -> tuple[float, float]:
    """Least and largest discounted return that rewards in `[reward_low, reward_high]` permit.

    `[min(r_lo, r_lo/(1-discount)), max(r_hi, r_hi/(1-discount))]`: an episode may end after one step or
    never.

    Args:
        reward_low: least reward.
        reward_high: largest reward.
        discount: in [0, 1).

    Returns:
        The two bounds, return units.
    """
    horizon = 1.0 / (1.0 - discount)  # sum_t discount^t
    return min(reward_low, reward_low * horizon), max(reward_high, reward_high * horizon)
