"""What every algorithm of a study reached: averages over seeds, and over datasets x seeds.

A seed counts once: the mean over its evaluation episodes. Averages over datasets exist in normalised units
only.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from mbrl.evaluation.statistics import (
    Average,
    Interval,
    Profile,
    bootstrap_interval,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)
from mbrl.report.run.comparison import Comparison, Method
from mbrl.report.study.facts import Study, StudyAlgorithm, StudyDataset, StudyRun

RETURN: Final = "episode return"
SCORE: Final = "normalised score"

AVERAGES: Final[tuple[Average, ...]] = ("iqm", "mean", "median")
"""Averages in the order in which they are shown; decisions are by the first."""

_PROFILE_POINTS: Final = 81
"""Thresholds at which a performance profile is computed: finer than a figure shows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What one algorithm reached on one dataset.

    Attributes:
        algorithm: which.
        values: mean score of each finished seed, by seed.
        runs: all its runs, finished or not.
        planned: seeds that the study asks for.
        averages: over `values`, each with its interval over seeds; NaN if no seed finished.
    """

    algorithm: StudyAlgorithm
    values: Mapping[int, float]
    runs: tuple[StudyRun, ...]
    planned: int
    averages: Mapping[Average, Interval]

    @property
    def label(self) -> str:
        """Name of the algorithm in the study."""
        return self.algorithm.label

    @property
    def iqm(self) -> Interval:
        """The interquartile mean, by which decisions are made."""
        return self.averages["iqm"]

    @property
    def worst(self) -> tuple[int, float] | None:
        """The seed with the least score, and that score."""
        return min(self.values.items(), key=lambda item: item[1], default=None)

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(run.status == "failed" for run in self.runs)

    @property
    def seeds(self) -> str:
        """`4 of 5`."""
        return f"{len(self.values)} of {self.planned}"

    @property
    def train_seconds(self) -> float | None:
        """Mean wall time of a training."""
        return self._mean(lambda run: run.train_seconds)

    @property
    def fit_seconds(self) -> float | None:
        """Mean wall time of the dynamics fit that a training used; None for model-free."""
        return self._mean(lambda run: run.fit_seconds)

    @property
    def seconds(self) -> float | None:
        """Mean wall time of a training together with the fit that it used."""
        parts = (self.train_seconds, self.fit_seconds)
        return None if parts[0] is None else math.fsum(part for part in parts if part is not None)

    @property
    def updates(self) -> float | None:
        """Mean number of learner updates."""
        return self._mean(lambda run: run.updates)

    def _mean(self, fact: Callable[[StudyRun], float | None]) -> float | None:
        found = [value for run in self.runs if run.status == "done" and (value := fact(run)) is not None]
        return math.fsum(found) / len(found) if found else None


@dataclasses.dataclass(frozen=True, slots=True)
class Improvement:
    """How likely a run of one algorithm beats a run of another, over the datasets that both have."""

    first: str
    second: str
    probability: Interval
    datasets: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Aggregate:
    """Averages over datasets x seeds, normalised units.

    Attributes:
        datasets: those that enter.
        averages: by algorithm.
        profiles: by algorithm.
        left_out: why an algorithm has no entry.
    """

    datasets: tuple[str, ...]
    averages: Mapping[str, Mapping[Average, Interval]]
    profiles: Mapping[str, Profile]
    left_out: Mapping[str, str]


def unit_of(dataset: StudyDataset) -> str:
    """Unit of a comparison on a dataset: scores where the task has references, else returns."""
    return RETURN if dataset.scores is None else SCORE


def logged_values(dataset: StudyDataset) -> tuple[float, ...]:
    """What the logged episodes reached, in the unit of the dataset."""
    return dataset.returns if dataset.scores is None else dataset.scores


def standings(study: Study, dataset: StudyDataset) -> list[Standing]:
    """One for each algorithm, in the order of the study."""
    return [_standing(study, dataset, algorithm) for algorithm in study.algorithms.values()]


def comparison(study: Study, dataset: StudyDataset) -> Comparison:
    """The finished methods with their interquartile means, beside what the log reached."""
    methods = [
        Method(standing.label, tuple(standing.values.values()), standing.iqm, standing.seconds)
        for standing in standings(study, dataset)
        if standing.values
    ]
    logged = np.sort(np.asarray(logged_values(dataset), dtype=np.float64)).tolist()
    tenth = max(1, round(0.1 * len(logged)))
    return Comparison(
        dataset=dataset.label,
        unit=unit_of(dataset),
        methods=tuple(methods),
        behaviour=_average(tuple(logged), "mean") if logged else None,
        best_tenth=math.fsum(logged[-tenth:]) / tenth if logged else None,
    )


def aggregate(study: Study) -> Aggregate:
    """Averages and profiles over all datasets with reference scores.

    An algorithm that lacks one of them altogether is left out: its average would be over other tasks than
    those of the rest.
    """
    shared = [dataset for dataset in study.datasets if dataset.scores is not None]
    strata = {
        label: {dataset.label: _values(study, dataset, label) for dataset in shared}
        for label in study.algorithms
    }
    left_out: dict[str, str] = {}
    for label, parts in strata.items():
        empty = [dataset for dataset, values in parts.items() if not values]
        if empty:
            left_out[label] = f"no finished run on {', '.join(empty)}"
    kept = {
        label: [list(values.values()) for values in parts.values()]
        for label, parts in strata.items()
        if parts and label not in left_out
    }
    thresholds = _thresholds([value for parts in kept.values() for part in parts for value in part])
    return Aggregate(
        datasets=tuple(dataset.label for dataset in shared),
        averages={
            label: {
                name: stratified_interval(parts, generator=_generator(), average=name) for name in AVERAGES
            }
            for label, parts in kept.items()
        },
        profiles={
            label: performance_profile(parts, thresholds, generator=_generator())
            for label, parts in kept.items()
        },
        left_out=left_out,
    )


def improvements(study: Study, datasets: Sequence[StudyDataset] | None = None) -> list[Improvement]:
    """Every pair of algorithms that has a common dataset, the earlier of the study first.

    Args:
        study: the runs.
        datasets: those of its datasets that count; all of them when None.
    """
    found: list[Improvement] = []
    for first, second in itertools.combinations(study.algorithms, 2):
        common = {
            dataset.label: (one, other)
            for dataset in (study.datasets if datasets is None else datasets)
            if (one := _values(study, dataset, first)) and (other := _values(study, dataset, second))
        }
        if common:
            strata, others = ([list(pair[side].values()) for pair in common.values()] for side in (0, 1))
            probability = probability_of_improvement(strata, others, generator=_generator())
            found.append(Improvement(first, second, probability, tuple(common)))
    return found


def reverse(improvement: Improvement) -> Improvement:
    """The same pair the other way round: `P(Y > X) = 1 - P(X > Y)`, ties half."""
    p = improvement.probability
    turned = dataclasses.replace(p, estimate=1.0 - p.estimate, low=1.0 - p.high, high=1.0 - p.low)
    return Improvement(improvement.second, improvement.first, turned, improvement.datasets)


def run_value(run: StudyRun, unit: str) -> float | None:
    """Mean over the evaluation episodes of a finished run, or None if there is none in that unit."""
    values: Sequence[float] | None = run.returns if unit == RETURN else run.scores
    if run.status != "done" or not values:
        return None
    mean = math.fsum(values) / len(values)
    return mean if math.isfinite(mean) else None


def all_alarms(run: StudyRun) -> tuple[str, ...]:
    """What a run reported along the way, and what its diagnostics of shift found; each text once."""
    shift = () if run.shift is None else tuple(map(str, run.shift.get("alarms") or ()))
    return tuple(dict.fromkeys((*run.alarms, *shift)))


def _standing(study: Study, dataset: StudyDataset, algorithm: StudyAlgorithm) -> Standing:
    values = _values(study, dataset, algorithm.label)
    averages: dict[Average, Interval] = {name: _average(tuple(values.values()), name) for name in AVERAGES}
    runs = study.of(dataset.label, algorithm.label)
    return Standing(algorithm, values, runs, len(study.seeds), averages)


@lru_cache(maxsize=10_000)  # a page asks for the same averages in many places
def _average(values: tuple[float, ...], name: Average) -> Interval:
    if not values:
        return Interval(math.nan, math.nan, math.nan, 0.95, "none: no finished seed", 0)
    return bootstrap_interval(list(values), generator=_generator(), average=name)


def _values(study: Study, dataset: StudyDataset, algorithm: str) -> dict[int, float]:
    unit = unit_of(dataset)
    return {
        run.seed: value
        for run in study.of(dataset.label, algorithm)
        if (value := run_value(run, unit)) is not None
    }


def _thresholds(values: Sequence[float]) -> Any:
    if not values:
        return []
    low, high = min(values), max(values)
    margin = 0.03 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, _PROFILE_POINTS)


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)  # the same study gives the same page
