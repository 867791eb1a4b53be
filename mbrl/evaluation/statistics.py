"""Averages, comparisons and profiles of scores with bootstrap intervals, after Agarwal et al. 2021.

scipy does the resampling. Their own package, rliable, wants a full table of runs x tasks, where a run that
failed takes others with it, and brings pandas, seaborn and statsmodels.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Average: TypeAlias = Literal["mean", "median", "iqm"]
Method: TypeAlias = Literal["percentile", "bca"]
_Statistic: TypeAlias = Callable[..., NDArray[np.float64]]
"""Of samples along the keyword `axis`, the last; leading axes are resamples."""


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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Interval":
        """Inverse of `to_json`: what is missing is NaN."""
        ends = {name: values.get(name) for name in ("estimate", "low", "high")}
        return cls(
            **{name: math.nan if value is None else float(value) for name, value in ends.items()},
            level=float(values.get("level", 0.95)),
            method=str(values.get("method", "unknown")),
            n=int(values.get("n", 0)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; an end that is not finite becomes None."""
        values = dataclasses.asdict(self)
        return {key: _jsonable(value) for key, value in values.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """Share of runs that score more than each threshold, with its pointwise interval.

    Attributes:
        thresholds: `k` scores, ascending.
        share: `k` shares, in [0, 1], falling.
        low: `k` lower ends; NaN if there is no interval.
        high: `k` upper ends; NaN if there is no interval.
        level: nominal coverage at each single threshold.
        n: number of runs.
    """

    thresholds: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite becomes None."""
        curves = {"thresholds": self.thresholds, "share": self.share, "low": self.low, "high": self.high}
        plain = {name: [_jsonable(value) for value in values] for name, values in curves.items()}
        return {**plain, "level": self.level, "n": self.n}


def iqm(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Interquartile mean: the mean after `floor(n / 4)` values are cut from either end."""
    import scipy.stats  # takes half a second, which most commands need not wait

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
    samples = _checked(strata)

    def pooled(*parts: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return _AVERAGES[average](np.concatenate(parts, axis=axis), axis)

    return _interval(samples, pooled, generator, (level, method, resamples))


def probability_of_improvement(
    strata: Sequence[ArrayLike],
    others: Sequence[ArrayLike],
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 5000,
) -> Interval:
    """`P(X > Y) + P(X = Y) / 2` of a run of one method against a run of another, mean over tasks.

    Agarwal et al. 2021, section 4.3; within a task it is the Mann-Whitney U over `n m`. It has no unit, so
    tasks without reference scores may enter. The interval resamples the seeds of both methods within each
    task; an interval above 1/2 says that the first is more likely to be better, not by how much.

    Args:
        strata: for each task the `[n]` scores of the first method's seeds.
        others: for each task, in the same order, the `[m]` scores of the second's; `m` may differ from `n`.
        generator: draws the resamples.
        level: nominal coverage, in (0, 1).
        resamples: bootstrap samples.

    Raises:
        ValueError: a task has no scores, or some that are not finite, or the numbers of tasks differ.
    """
    if len(strata) != len(others):
        raise ValueError(f"the methods have {len(strata)} and {len(others)} tasks")
    tasks = len(strata)

    def improved(*parts: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        del axis  # the last
        pairs = zip(parts[:tasks], parts[tasks:], strict=True)
        return np.asarray(np.mean([_superiority(x, y) for x, y in pairs], axis=0))

    samples = [*_checked(strata), *_checked(others)]
    return _interval(samples, improved, generator, (level, "percentile", resamples))


def performance_profile(
    strata: Sequence[ArrayLike],
    thresholds: ArrayLike,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Profile:
    """Score distribution `F(t) = (1 / n) sum_i [score_i > t]` over all runs of all tasks.

    Agarwal et al. 2021, eq. 2. The band is pointwise: it covers each threshold at the level, not all at once.

    Args:
        strata: for each task the `[n_seeds]` scores; numbers of seeds may differ.
        thresholds: `[k]`, in the unit of the scores.
        generator: draws the resamples, seeds within each task.
        level: nominal coverage, in (0, 1).
        resamples: bootstrap samples.

    Raises:
        ValueError: a task has no scores, or some that are not finite.
    """
    samples, at = _checked(strata), np.sort(np.asarray(thresholds, dtype=np.float64))

    def above(*parts: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        pooled = np.concatenate(parts, axis=axis)
        return np.stack([(pooled > threshold).mean(axis) for threshold in at])

    share = above(*samples, axis=-1)
    if any(sample.size < 2 for sample in samples):
        low = high = np.full_like(share, math.nan)
    else:
        low, high = _bootstrap(samples, above, generator, (level, "percentile", resamples))
    ends = (cast("list[float]", values.tolist()) for values in (at, share, low, high))
    return Profile(*map(tuple, ends), level=level, n=sum(sample.size for sample in samples))


def _superiority(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of pairs that `[..., n]` wins against `[..., m]`, ties half."""
    one, other = x[..., :, None], y[..., None, :]
    return np.asarray(((one > other) + 0.5 * (one == other)).mean((-2, -1)))


def _checked(strata: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    samples = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not samples or any(sample.ndim != 1 or sample.size == 0 for sample in samples):
        raise ValueError(f"every stratum needs a row of values; shapes are {[s.shape for s in samples]}")
    if not all(np.isfinite(sample).all() for sample in samples):
        raise ValueError("an average over values that are not finite has no meaning")
    return samples


def _interval(
    samples: list[NDArray[np.float64]],
    statistic: _Statistic,
    generator: np.random.Generator,
    settings: tuple[float, Method, int],
) -> Interval:
    """Estimate and interval, or the reason why there is none."""
    level, method, resamples = settings
    n, estimate = sum(sample.size for sample in samples), float(statistic(*samples, axis=-1))

    def without(reason: str, end: float) -> Interval:
        return Interval(estimate, end, end, level, reason, n)

    if any(sample.size < 2 for sample in samples):
        return without("none: a single value has no spread", math.nan)
    if all((sample == sample[0]).all() for sample in samples):
        return without("all values equal", estimate)
    low, high = map(float, _bootstrap(samples, statistic, generator, settings))
    if not (math.isfinite(low) and math.isfinite(high)):
        return without(f"none: the {method} bootstrap is degenerate for these values", math.nan)
    return Interval(estimate, low, high, level, f"{method} bootstrap, {resamples} resamples", n)


def _bootstrap(
    samples: list[NDArray[np.float64]],
    statistic: _Statistic,
    generator: np.random.Generator,
    settings: tuple[float, Method, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the interval: scalars, or one for each entry of a statistic with several."""
    import scipy.stats  # see `iqm`

    level, method, resamples = settings
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A degenerate acceleration of BCa comes back as NaN, which the caller reports.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        result = scipy.stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            confidence_level=level,
            method="BCa" if method == "bca" else "percentile",
            vectorized=True,
            rng=generator,
        )
    interval = cast("Any", result).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


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
