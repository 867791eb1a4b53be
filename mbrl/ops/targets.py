"""Value targets and the bounds that rewards put on values."""

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
    value = next_action_values.amin(0)
    return value - entropy_coef * next_log_prob if has_entropy else value


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
    horizon = 1.0 / (1.0 - discount)
    return min(reward_low, reward_low * horizon), max(reward_high, reward_high * horizon)
