"""Averages with bootstrap intervals, after Agarwal et al. 2021 (Statistical precipice)."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Average: TypeAlias = Literal["mean", "median", "iqm"]
Method: TypeAlias = Literal["percentile", "bca"]


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: of the sample.
        low: lower end; NaN if there is no interval.
        high: upper end; NaN if there is no interval.
        level: nominal coverage, in (0, 1).
        method: how the interval was made, or why there is none.
        n: size of the sample.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; an end that is not finite becomes None."""
        values = dataclasses.asdict(self)
        return {key: _jsonable(value) for key, value in values.items()}


def iqm(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Interquartile mean: the mean after `floor(n / 4)` values are cut from either end."""
    return np.asarray(scipy.stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis))


def bootstrap_interval(
    values: ArrayLike,
    *,
    generator: np.random.Generator,
    average: Average = "mean",
    level: float = 0.95,
    method: Method = "percentile",
    resamples: int = 5000,
) -> Interval:
    """Average of one sample with its bootstrap interval.

    Args:
        values: `[n]`, independent: scores of seeds, or returns of one policy's episodes. The latter tell how
            well that one policy is known, nothing of what another seed would reach.
        generator: draws the resamples; the same state gives the same interval.
        average: what to estimate.
        level: nominal coverage, in (0, 1).
        method: percentile (what published tables use) or bias-corrected and accelerated.
        resamples: bootstrap samples.

    Raises:
        ValueError: there are no values, or they are not finite.
    """
    return stratified_interval(
        [values], generator=generator, average=average, level=level, method=method, resamples=resamples
    )


def stratified_interval(
    strata: Sequence[ArrayLike],
    *,
    generator: np.random.Generator,
    average: Average = "iqm",
    level: float = 0.95,
    method: Method = "percentile",
    resamples: int = 5000,
) -> Interval:
    """Average over all seeds x tasks with the bootstrap interval that resamples seeds within each task.

    Args:
        strata: for each task the `[n_seeds]` scores; numbers of seeds may differ.
        generator: draws the resamples.
        average: what to estimate, over the scores of all tasks together.
        level: nominal coverage, in (0, 1).
        method: percentile (what published tables use) or bias-corrected and accelerated.
        resamples: bootstrap samples.

    Raises:
        ValueError: a task has no scores, or some that are not finite.
    """
    samples = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not samples or any(sample.ndim != 1 or sample.size == 0 for sample in samples):
        raise ValueError(f"every stratum needs a row of values; shapes are {[s.shape for s in samples]}")
    if not all(np.isfinite(sample).all() for sample in samples):
        raise ValueError("an average over values that are not finite has no meaning")
    n = sum(sample.size for sample in samples)
    estimate = float(_AVERAGES[average](np.concatenate(samples), -1))

    def without(reason: str, end: float) -> Interval:
        return Interval(estimate, end, end, level, reason, n)

    if any(sample.size < 2 for sample in samples):
        return without("none: a single value has no spread", math.nan)
    if all((sample == sample[0]).all() for sample in samples):
        return without("all values equal", estimate)
    low, high = _bootstrap(samples, _AVERAGES[average], generator, (level, method, resamples))
    if not (math.isfinite(low) and math.isfinite(high)):
        return without(f"none: the {method} bootstrap is degenerate for these values", math.nan)
    return Interval(estimate, low, high, level, f"{method} bootstrap, {resamples} resamples", n)


def _bootstrap(
    samples: list[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64], int], NDArray[np.float64]],
    generator: np.random.Generator,
    settings: tuple[float, Method, int],
) -> tuple[float, float]:
    level, method, resamples = settings

    def pooled(*parts: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return statistic(np.concatenate(parts, axis=axis), axis)

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A degenerate acceleration of BCa comes back as NaN, which the caller reports.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        result = scipy.stats.bootstrap(
            samples,
            pooled,
            n_resamples=resamples,
            confidence_level=level,
            method="BCa" if method == "bca" else "percentile",
            vectorized=True,
            rng=generator,
        )
    interval = cast("Any", result).confidence_interval
    return float(interval.low), float(interval.high)


def _jsonable(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=axis))


def _median(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.median(values, axis=axis))


_AVERAGES: dict[Average, Callable[[NDArray[np.float64], int], NDArray[np.float64]]] = {
    "mean": _mean,
    "median": _median,
    "iqm": iqm,
}
