"""Intervals and one-sided bounds of off-policy estimates.

One-sided bounds hold with probability 1 - error for any sample size, and need a DECLARED range: the largest
value of a sample says nothing about the largest value that can occur.
"""

import dataclasses
import math
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
import scipy.special
import scipy.stats
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.estimates import Estimate
from mbrl.ope.log.layout import Array
from mbrl.ope.statistics.self_normalised import Terms, bootstrap_values, draw_counts, is_dominated, jackknife

LEVEL: Final = 0.95
"""Coverage of the intervals of a report."""

NORMAL_95: Final = 1.959964
"""Half width of a 95 % interval of the standard normal law."""

BOOTSTRAP_EPISODES: Final = 50
"""Episodes from which on a bootstrap of normalised estimators is the default; Student t below."""

BOOTSTRAP_MOST: Final = 10_000
"""Episodes beyond which the counts of 2000 resamples need too much memory; the delta method serves there."""

_MAX_LOST_DRAWS: Final = 0.01
_HCOPE_SPLIT: Final = 0.05
_HCOPE_LEAST: Final = 20

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
    half = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
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
    if bootstrap is None and not BOOTSTRAP_EPISODES <= n <= BOOTSTRAP_MOST:
        return student_interval(influence, level=level)
    return bootstrap_interval(terms, float(influence.mean()), n, bootstrap or Bootstrap(), level=level)


def bootstrap_interval(
    terms: Terms, point: float, n: int, bootstrap: Bootstrap, *, level: float = LEVEL
) -> Interval95:
    """Interval of a self-normalised estimate from resampled episodes, each draw normalised anew.

    Args:
        terms: columns of the estimate (`mbrl.ope.statistics.self_normalised`).
        point: the estimate.
        n: episodes.
        bootstrap: how to resample.
        level: nominal coverage.
    """
    if n < 2:
        return Interval95(NOTHING, "none: one episode has no spread")
    draws = bootstrap_values(terms, bootstrap.counts(n))
    usable = draws[np.isfinite(draws)]
    if usable.size < (1 - _MAX_LOST_DRAWS) * draws.size:
        lost = 1 - usable.size / draws.size
        return Interval95(NOTHING, f"none: {lost:.0%} of the resamples hold no weight at all")
    probabilities = np.array([(1 - level) / 2, (1 + level) / 2])
    method = bootstrap.method
    if method == "bca":
        without, largest = jackknife(terms, n)
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
    below = float((draws < point).mean() + 0.5 * (draws == point).mean())
    spread = without.mean() - without
    total = float(np.square(spread).sum())
    if not 0.0 < below < 1.0 or total == 0.0:
        return probabilities
    bias = float(scipy.special.ndtri(below))
    acceleration = float((spread**3).sum()) / (6.0 * total**1.5)
    shifted = bias + np.asarray(scipy.special.ndtri(probabilities))
    return np.asarray(scipy.special.ndtr(bias + shifted / (1.0 - acceleration * shifted)))


def student_lower(values: Array, *, error: float) -> float:
    """One-sided lower bound `mean - ppf(1 - error, n - 1) sd / sqrt(n)`."""
    n = values.size
    quantile = float(scipy.stats.t.ppf(1.0 - error, n - 1))
    return float(values.mean()) - quantile * float(values.std(ddof=1)) / math.sqrt(n)


def hoeffding_lower(values: Array, *, error: float, value_range: Ends) -> float:
    """`mean - c sqrt(log(1/error) / (2 n))`, c the width of the declared range (Hoeffding 1963)."""
    width = _width(values, value_range)
    return float(values.mean()) - width * math.sqrt(math.log(1 / error) / (2 * values.size))


def bernstein_lower(values: Array, *, error: float, value_range: Ends) -> float:
    """`mean - sqrt(2 var log(2/e) / n) - 7 c log(2/e) / (3 (n - 1))` (Maurer & Pontil 2009, theorem 4).

    Args:
        values: `[n]` unnormalised estimates of the episodes, n >= 2.
        error: e, probability that the bound fails.
        value_range: declared least and largest value.
    """
    return float(values.mean()) - _bernstein_margin(values, values.size, error, _width(values, value_range))


def hcope_lower(
    values: Array, *, error: float, rng: np.random.Generator, least: float, threshold: float | None = None
) -> float:
    """Lower bound of a heavy-tailed mean: Bernstein on values cut at a threshold (Thomas et al. 2015, HCOPE).

    The threshold maximises the bound that a separate twentieth of the episodes (at least 20) predicts.

    Args:
        values: `[n]` unnormalised estimates of the episodes, from episodes in random order.
        error: probability that the bound fails.
        rng: chooses the twentieth.
        least: declared least possible value, subtracted before and added after.
        threshold: of `values - least`; None chooses it.

    Raises:
        ValueError: a value lies below the declared least, or there are too few.
    """
    shifted = values - least
    if bool((shifted < 0).any()):
        raise ValueError(f"the least value was declared as {least}, but there is {float(values.min())}")
    if threshold is None:
        if values.size < 2 * _HCOPE_LEAST:
            raise ValueError(f"{values.size} episodes; a threshold needs {2 * _HCOPE_LEAST}")
        order = rng.permutation(values.size)
        count = max(_HCOPE_LEAST, math.ceil(_HCOPE_SPLIT * values.size))
        trial, shifted = shifted[order[:count]], shifted[order[count:]]
        threshold = _choose_threshold(trial, shifted.size, error)
    cut = np.minimum(shifted, threshold)
    return least + float(cut.mean()) - _bernstein_margin(cut, cut.size, error, threshold)


def episode_values(estimate: Estimate) -> Array:
    """The episodes' unnormalised estimates, for a bound of their mean.

    Raises:
        TypeError: the estimate is self-normalised: it is no mean of independent values, and no such bound
            holds for it.
    """
    if estimate.per_episode is None or estimate.details.get("is_self_normalised", False):
        raise TypeError(
            f"{estimate.name} is not a mean of independent values. Remedy: bound IS, PDIS or DR, or use the "
            "bootstrap interval."
        )
    return estimate.per_episode


def _width(values: Array, value_range: Ends) -> float:
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a bound needs a finite declared range of the values, not {value_range}")
    if float(values.min()) < low or float(values.max()) > high:
        raise ValueError(
            f"values from {float(values.min()):.6g} to {float(values.max()):.6g} leave the declared range "
            f"{value_range}"
        )
    return high - low


def _bernstein_margin(values: Array, n: int, error: float, width: float) -> float:
    log_term = math.log(2 / error)
    variance = float(values.var(ddof=1))
    return math.sqrt(2 * variance * log_term / n) + 7 * width * log_term / (3 * (n - 1))


def _choose_threshold(trial: Array, n: int, error: float) -> float:
    """The trial value (or a point between zero and the largest) at which n such values promise most."""
    candidates = np.unique(np.concatenate([trial[trial > 0], np.geomspace(1e-3, 1.0, 50) * trial.max()]))
    candidates = candidates[candidates > 0]
    if candidates.size == 0:
        return 1.0
    promised = [
        float(cut.mean()) - _bernstein_margin(cut, n, error, float(c))
        for c, cut in ((c, np.minimum(trial, c)) for c in candidates)
    ]
    return float(candidates[int(np.argmax(promised))])
