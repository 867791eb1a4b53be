"""Statistics of distributional shift: pure functions of arrays, float64."""

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.types import Episode
from mbrl.dynamics.assessment.open_loop import Segments
from mbrl.dynamics.assessment.resampling import rank_correlation
from mbrl.rollouts.generate import Rollouts

TAIL: Final = 0.2
"""Largest `discount^n` at which a truncated episode's step with n steps left is used.

What follows the cut, `discount^n V(s_T)`, is replaced by that of the mean reward. V(s_T) varies like the
returns themselves, so the error is about `discount^n` of their deviation: at most a fifth of the unit in
which a gap is given, and it lowers a correlation to no less than `1/sqrt(1 + 0.2^2) = 0.98` of itself."""

DISTANCE_OF_NEAR: Final = 0.5
"""How near a logged action is to the policy's: root mean square over dimensions, deviations of the action."""

MIN_SEGMENTS: Final = 30
"""Segments below which a median error is not given."""

_FLAT = 1e-6  # deviations below this share of the size of the numbers are rounding


def returns_to_go(
    episodes: Sequence[Episode], discount: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """`G_t = sum_k discount^k r_{t+k}` of every logged step, in order, and which of them can be used.

    A truncated episode is continued with the mean reward of all steps, `discount^n r / (1 - discount)`; its
    steps can be used where `discount^n <= TAIL`, n being the steps that are left.

    Args:
        episodes: whole.
        discount: in [0, 1).

    Returns:
        `[n]` returns, return units, and `[n]` flags.
    """
    lengths = np.array([len(episode) for episode in episodes])
    # Padded to the longest episode: the recursion over time is then one pass for all of them.
    rewards = np.zeros((len(episodes), int(lengths.max())))
    is_step = np.arange(rewards.shape[1]) < lengths[:, None]
    rewards[is_step] = np.concatenate([episode.rewards for episode in episodes])
    is_truncated = np.array([not episode.terminated for episode in episodes])
    # What follows a cut is not known: r / (1 - discount) is the value of the mean reward for ever.
    tail = is_truncated * (float(rewards[is_step].mean()) / (1 - discount))
    found, value = np.zeros_like(rewards), np.asarray(tail, np.float64)
    for t in range(rewards.shape[1] - 1, -1, -1):
        # G_t = r_t + discount G_{t+1}, from the end of each episode, or from the tail of a truncated one.
        value = np.where(is_step[:, t], rewards[:, t] + discount * value, value)
        found[:, t] = value
    # The tail weighs discount^n with n steps left; where that is too much the return is not known.
    left = lengths[:, None] - np.arange(rewards.shape[1])
    is_usable = ~is_truncated[:, None] | (np.power(discount, np.maximum(left, 0)) <= TAIL)
    return found[is_step], is_usable[is_step]


class ValueComparison(NamedTuple):
    """Values against returns; None where the returns, or for the correlation the values, do not vary.

    Attributes:
        gap: `mean(value - return) / std(return)`.
        rank_correlation: Spearman's.
        low: gap of the least permitted value.
        high: gap of the largest permitted value.
    """

    gap: float | None
    rank_correlation: float | None
    low: float | None
    high: float | None


def compare_values(
    values: NDArray[np.float64], returns: NDArray[np.float64], *, bounds: tuple[float, float] | None
) -> ValueComparison:
    """Values `[n]` of logged steps against the returns `[n]` that followed, return units.

    Args:
        values: what the learner believes.
        returns: what the log says.
        bounds: least and largest value that the rewards permit, or None.
    """
    std, mean = float(returns.std()), float(returns.mean())
    # A deviation that is mere rounding would make any gap huge.
    if std <= _FLAT * float(np.abs(returns).max()):
        return ValueComparison(None, None, None, None)
    low, high = (None, None) if bounds is None else ((bound - mean) / std for bound in bounds)
    correlation = None
    if float(values.std()) > _FLAT * float(np.abs(values).max()):
        # One episode drawn once: only the correlation is read, not its interval.
        alone, column = np.ones((1, 1)), np.zeros(len(values), np.int64)
        correlation = rank_correlation(values, returns, weights=alone, column=column)[0]
    return ValueComparison((float(values.mean()) - mean) / std, correlation, low, high)


def relative_change(now: float, before: float, *, spread: float) -> float | None:
    """`(now - before) / max(|before|, spread)`; None if that is 0."""
    # The spread as floor: a mean near 0 would make a drift of every change.
    scale = max(abs(before), spread)
    return (now - before) / scale if scale > 0 else None


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """States of rollouts that targets bootstrap from.

    Attributes:
        edge: `[h, b]`, steps whose successor is bootstrapped from but is the start of no step.
        target: `[h, b]`, steps whose successor is bootstrapped from.
    """

    edge: Tensor
    target: Tensor

    @property
    def share(self) -> float | None:
        """`edge` among `target`; None if nothing is bootstrapped from."""
        count = int(self.target.sum())
        return int(self.edge.sum()) / count if count else None


def edge_of_reach(rollouts: Rollouts) -> Reach:
    """Where the last stored steps of rollouts lead; a termination is no bootstrap, and so no edge."""
    # A state is trained at if a stored step starts there; the successor of a last one is a target alone.
    has_next = torch.zeros_like(rollouts.valid)
    has_next[:-1] = rollouts.valid[1:]
    # Where the task ended the value is known to be 0, and nothing is extrapolated.
    target = rollouts.valid & ~rollouts.terminated
    return Reach(edge=target & ~has_next, target=target)


def edge_excess(
    reach: Reach, valid: Tensor, *, value: Float[Tensor, "h b"], next_value: Float[Tensor, "h b"]
) -> float | None:
    """Mean over rollouts with an edge: V there minus the mean V of the states that they start steps from.

    Args:
        reach: of the rollouts.
        valid: `[h, b]`, their stored steps.
        value: V at the observations, return units.
        next_value: V at the successors.

    Returns:
        Return units; None without an edge.
    """
    if not bool(reach.edge.any()):
        return None
    # Per rollout: V at its edge, less the mean V of the states that it starts steps from.
    # Within a rollout, so that it is not compared with states that are simply better.
    others = (value.double() * valid).sum(0) / valid.sum(0).clamp_min(1)
    at_edge = (next_value.double() * reach.edge).sum(0)
    return float((at_edge - others)[reach.edge.any(0)].mean())


class NearError(NamedTuple):
    """Open-loop error where the log acts like a policy.

    Attributes:
        error: median over the near segments, deviations of the observations.
        everywhere: median over all segments.
        horizon: steps.
        segments: that are near.
    """

    error: float
    everywhere: float
    horizon: int
    segments: int


def error_near_policy(
    segments: Segments,
    error: NDArray[np.float64],
    policy_actions: NDArray[np.float32],
    *,
    action_std: NDArray[np.float64],
) -> NearError | None:
    """`e_k = median_s error_{s,k}` on the segments all of whose first k logged actions lie near the policy's.

    k is the longest horizon that enough segments reach; None if there is none.

    Args:
        segments: of held-out episodes.
        error: `[s, K]` of the model along them.
        policy_actions: `[s, K, act_dim]` at their states, environment units.
        action_std: `[act_dim]` of the logged actions.
    """
    # Near are segments whose distance, the root mean square over action dimensions, stays small up to step k.
    difference = (segments.actions.astype(np.float64) - policy_actions) / action_std
    distance = np.sqrt(np.square(difference).mean(2))
    is_near = np.logical_and.accumulate((distance <= DISTANCE_OF_NEAR) & segments.alive, 1)
    counts = is_near.sum(0)
    # Counts fall with k, since a segment that left the policy's
    # actions stays out: their number is the horizon.
    horizon = int((counts >= MIN_SEGMENTS).sum())
    if horizon == 0:
        return None
    # Medians of e_k over the near segments, and over all that reach step k.
    column = error[:, horizon - 1]
    return NearError(
        error=float(np.median(column[is_near[:, horizon - 1]])),
        everywhere=float(np.median(column[segments.alive[:, horizon - 1]])),
        horizon=horizon,
        segments=int(counts[horizon - 1]),
    )
