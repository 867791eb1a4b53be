"""Intervals of off-policy estimates: Student t, and the bootstrap of whole episodes."""

import dataclasses
import math
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
import scipy.special
from pydantic import BaseModel, ConfigDict, Field

from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.self_normalised import (
    Terms,
    bootstrap_values,
    draw_counts,
    is_dominated,
    jackknife,
)

LEVEL: Final = 0.95
"""Coverage of the intervals of a report."""

NORMAL_95: Final = 1.959964
"""Half width of a 95 % interval of the standard normal law."""

BOOTSTRAP_EPISODES: Final = 50
"""Episodes from which on a bootstrap of normalised estimators is the default; Student t below."""

BOOTSTRAP_MOST: Final = 10_000
"""Episodes beyond which the counts of 2000 resamples need too much memory; the delta method serves there."""

_MAX_LOST_DRAWS: Final = 0.01  # resamples without any weight that may be left out

Ends: TypeAlias = tuple[float, float]
NOTHING: Final[Ends] = (math.nan, math.nan)


class Bootstrap(BaseModel):
    """Resampling of whole episodes.

    Attributes:
        method: bias-corrected and accelerated, or percentile.
        resamples: draws.
        seed: of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["bca", "percentile"] = "bca"
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: Annotated[int, Field(ge=0)] = 0

    def counts(self, n: int) -> Array:
        """`[resamples, n]`, how often each episode is drawn; the same for every estimator of one log."""
        return draw_counts(n, self.resamples, np.random.default_rng(self.seed))


@dataclasses.dataclass(frozen=True, slots=True)
class Interval95:
    """Ends and how they were made."""

    ends: Ends
    method: str


def student_interval(values: Array, *, level: float = LEVEL) -> Interval95:
    """`mean -+ ppf(1 - e/2, n - 1) sd / sqrt(n)`, two-sided, e = 1 - level."""
    n = values.size
    if n < 2:
        return Interval95(NOTHING, "none: one episode has no spread")
    half = float(scipy.special.stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    mean = float(values.mean())
    return Interval95((mean - half, mean + half), "Student t")


def default_interval(
    terms: Terms, influence: Array, bootstrap: Bootstrap | None = None, *, level: float = LEVEL
) -> Interval95:
    """BCa from 50 episodes on, to 10 000; else Student t of the influence values.

    Args:
        terms: columns of a self-normalised estimate.
        influence: `[n]`, its influence values; the mean is the estimate.
        bootstrap: one that is wanted in any case.
        level: nominal coverage.
    """
    n = influence.size
    # A bootstrap of few episodes is too narrow, as the resamples hold no tail that was never seen; the
    # quantiles of Student t widen with fewer of them.
    if bootstrap is None and not BOOTSTRAP_EPISODES <= n <= BOOTSTRAP_MOST:
        return student_interval(influence, level=level)
    return bootstrap_interval(terms, float(influence.mean()), n, bootstrap or Bootstrap(), level=level)


def bootstrap_interval(
    terms: Terms, point: float, n: int, bootstrap: Bootstrap, *, level: float = LEVEL
) -> Interval95:
    """Interval of a self-normalised estimate from resampled episodes, each draw normalised anew.

    Args:
        terms: columns of the estimate (`mbrl.off_policy.statistics.self_normalised`).
        point: the estimate.
        n: episodes.
        bootstrap: how to resample.
        level: nominal coverage.
    """
    if n < 2:
        return Interval95(NOTHING, "none: one episode has no spread")
    draws = bootstrap_values(terms, bootstrap.counts(n))
    # A resample in which no drawn episode has weight has no normaliser.
    usable = draws[np.isfinite(draws)]
    if usable.size < (1 - _MAX_LOST_DRAWS) * draws.size:
        lost = 1 - usable.size / draws.size
        return Interval95(NOTHING, f"none: {lost:.0%} of the resamples hold no weight at all")
    probabilities = np.array([(1 - level) / 2, (1 + level) / 2])
    method = bootstrap.method
    if method == "bca":
        without, largest = jackknife(terms, n)
        # Without an episode that carries nearly everything the rest says nothing, and the acceleration
        # of a jackknife over such values is arbitrary.
        if is_dominated(largest) or not np.isfinite(without).all():
            method = "percentile"
        else:
            probabilities = bca_probabilities(usable, point, without, probabilities)
    low, high = np.quantile(usable, probabilities)
    return Interval95(
        (float(low), float(high)), f"{method} trajectory bootstrap, {bootstrap.resamples} resamples"
    )


def bca_probabilities(draws: Array, point: float, without: Array, probabilities: Array) -> Array:
    """Levels of the draws' quantiles, bias-corrected and accelerated (Efron 1987, eq. 6.8).

    Args:
        draws: `[b]` bootstrap values.
        point: estimate of the whole sample.
        without: `[n]` estimates without each episode.
        probabilities: nominal levels.

    Returns:
        The levels to read off instead; the nominal ones where the draws do not spread.
    """
    # Bias correction z_0 = Phi^-1(share of the draws below the estimate); acceleration of the jackknife's
    # deviations d, a = sum d^3 / (6 (sum d^2)^1.5); the level to read is Phi(z_0 + z / (1 - a z)) with
    # z = z_0 + Phi^-1(nominal level).
    # Ties count half, so that discrete returns are not taken for a bias.
    below = float((draws < point).mean() + 0.5 * (draws == point).mean())
    spread = without.mean() - without
    total = float(np.square(spread).sum())
    # With all draws on one side the normal quantile is infinite.
    if not 0.0 < below < 1.0 or total == 0.0:
        return probabilities
    bias = float(scipy.special.ndtri(below))
    acceleration = float((spread**3).sum()) / (6.0 * total**1.5)
    shifted = bias + np.asarray(scipy.special.ndtri(probabilities))
    return np.asarray(scipy.special.ndtr(bias + shifted / (1.0 - acceleration * shifted)))
