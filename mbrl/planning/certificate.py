"""What planning gains over the policy in the model's own opinion, with a bound over logged episodes."""

import dataclasses
import math
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.base import Budget, Planner
from mbrl.planning.noise import RowNoise

LEVEL: Final = 0.95
"""Of the one-sided interval."""

_RESAMPLES: Final = 2000
"""Of the episodes: the 5 % quantile then rests on a hundred of them."""

_CHUNK: Final = 256
"""States planned together; bounds memory, as a search keeps trees for all of them."""

_LEVELS: Final = 101
"""Quantiles that are kept: every percent, enough for a figure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """Mean over logged states of `lower bound of the plan - lower bound of the policy`.

    It is as good as the model: a figure of the model family, never a substitute for an estimate from logs.

    Attributes:
        mean: of the gain, return units.
        low: lower end of the one-sided 95 % interval over resampled episodes; NaN with one episode.
        improved: share of the states with a positive gain.
        quantiles: of the gain over the states at 0, 1, ..., 100 %, return units.
        states: that could be compared.
        episodes: that they come from.
    """

    mean: float
    low: float
    improved: float
    quantiles: tuple[float, ...]
    states: int
    episodes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, what is not finite as None, and a word of warning."""
        values = dataclasses.asdict(self)
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        return {**plain, "level": LEVEL, "is_model_dependent": True}


def certify(
    planner: Planner,
    obs: Float[Tensor, "n obs_dim"],
    episode: Int[Tensor, "n"],
    *,
    budget: Budget,
    generator: torch.Generator,
) -> Certificate | None:
    """Plans at logged states and compares with the policy's mode; None where the planner compares nothing.

    Args:
        planner: tells `delta_lcb`.
        obs: states of held-out episodes, raw units.
        episode: of each state; whole episodes are resampled.
        budget: of a plan.
        generator: of the planner's draws and the resamples.
    """
    seeds = RowNoise.draw(len(obs), generator)
    parts = [
        planner.plan(obs[rows], budget=budget, noise=seeds.rows(rows)).delta_lcb.double()
        for rows in (slice(k, k + _CHUNK) for k in range(0, len(obs), _CHUNK))
    ]
    gain = torch.cat(parts) if parts else obs.new_empty(0).double()
    known = gain.isfinite()
    if not bool(known.any()):
        return None
    return bound_gain(gain[known], episode[known], generator=generator)


def bound_gain(
    gain: Float[Tensor, "n"], episode: Int[Tensor, "n"], *, generator: torch.Generator, level: float = LEVEL
) -> Certificate:
    """Mean gain with its lower bound from resampled episodes: states of one episode are not independent.

    Args:
        gain: of each state, return units.
        episode: of each state.
        generator: of the resamples.
        level: of the one-sided interval.
    """
    # 1. Sums and numbers of states by episode, of those that have any.
    count = torch.bincount(episode).double()
    total = torch.zeros_like(count).index_add_(0, episode, gain.double())
    total, count = total[count > 0], count[count > 0]
    low = math.nan
    if len(count) > 1:
        # 2. Resample whole episodes; the mean of a resample weighs states equally, as the estimate does.
        drawn = torch.randint(len(count), (_RESAMPLES, len(count)), generator=generator)
        means = total[drawn].sum(1) / count[drawn].sum(1)
        low = float(means.quantile(1.0 - level))
    levels = torch.linspace(0.0, 1.0, _LEVELS, dtype=torch.float64)
    return Certificate(
        mean=float(gain.mean()),
        low=low,
        improved=float((gain > 0).double().mean()),
        quantiles=tuple(map(float, gain.double().quantile(levels))),
        states=len(gain),
        episodes=len(count),
    )
