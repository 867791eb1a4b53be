"""Figures of a study: scores, averages, profiles, pairs, curves over seeds, models over seeds, costs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mbrl.dynamics.report import DynamicsReport
from mbrl.evaluation.statistics import Average, Interval, Profile
from mbrl.report.kit.palette import BLUE, SERIES
from mbrl.report.kit.plots import Bars, Dots, Line, Mark, draw_bars, draw_intervals, draw_lines
from mbrl.report.kit.score_plots import scores, series_of, thin
from mbrl.report.run import dynamics_plots
from mbrl.report.run.comparison import Comparison
from mbrl.report.study.scores import AVERAGES, Improvement, Standing
from mbrl.report.study.tables import NAMES

CURVE_POINTS: Final = 100
"""Points of a curve: a page holds many."""


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one algorithm over its seeds.

    Attributes:
        steps: `n` steps that all finished seeds logged.
        mean: over seeds.
        low: the least of the seeds.
        high: the largest of the seeds.
        seeds: how many.
    """

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


@dataclasses.dataclass(frozen=True, slots=True)
class ModelCurves:
    """Fits of one dataset, mean over seeds, at the horizons and levels that all fits have.

    Attributes:
        steps: horizons.
        error: open-loop error, standard deviations.
        low: the least of the fits.
        high: the largest of the fits.
        persistence: error of "nothing changes".
        linear: error of ridge regression.
        tolerance: error that a trusted step may have.
        trusted_horizon: of the middle fit.
        levels: nominal coverage.
        before: coverage as fitted.
        after: coverage after recalibration.
    """

    steps: tuple[int, ...]
    error: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    persistence: tuple[float, ...]
    linear: tuple[float, ...]
    tolerance: float
    trusted_horizon: int
    levels: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def dataset_scores(standings: Sequence[Standing], against: Comparison) -> Figure:
    """Every seed, the interquartile mean with its interval, and what the log reached."""
    rows = [Dots(_row_name(standing), list(standing.values.values()), standing.iqm) for standing in standings]
    behaviour = None if against.behaviour is None else against.behaviour.estimate
    return scores(rows, unit=against.unit, behaviour=behaviour, best_tenth=against.best_tenth)


def averages(found: Mapping[str, Mapping[Average, Interval]]) -> Figure:
    """Averages over datasets x seeds, one row an algorithm."""
    groups = [(NAMES[name], [by_name[name] for by_name in found.values()]) for name in AVERAGES]
    return draw_intervals(list(found), groups, x_label="normalised score")


def profiles(found: Mapping[str, Profile], roles: Mapping[str, int]) -> Figure:
    """Share of runs above each score."""
    lines = [
        Line(label, profile.thresholds, profile.share, profile.low, profile.high, role=roles[label])
        for label, profile in found.items()
    ]
    return draw_lines(
        lines, x_label="normalised score", y_label="share of runs above it", y_limits=(-0.02, 1.02)
    )


def improvements(found: Sequence[Improvement], rival: str) -> Figure:
    """Probability that a run of each algorithm beats a run of `rival`."""
    return draw_intervals(
        [item.first for item in found],
        [("probability", [item.probability for item in found])],
        x_label=f"probability of beating {rival}",
        upright=[Mark("as often as not", 0.5)],
        x_limits=(-0.03, 1.03),
    )


def seed_curves(found: Mapping[str, Curve], roles: Mapping[str, int], *, y_label: str) -> Figure:
    """Mean over seeds of each algorithm, with a band from the least to the largest seed."""
    lines = [
        Line(label, curve.steps, curve.mean, curve.low, curve.high, role=roles[label])
        for label, curve in found.items()
    ]
    return draw_lines(lines, x_label="updates", y_label=y_label)


def model_errors(curves: ModelCurves) -> Figure:
    """Open-loop error against the horizon, with the range of the fits."""
    return dynamics_plots.k_step_error(
        curves.steps,
        curves.error,
        low=curves.low,
        high=curves.high,
        persistence=curves.persistence,
        linear=curves.linear,
        tolerance=curves.tolerance,
        trusted_horizon=curves.trusted_horizon,
        band_name="range",
    )


def model_calibration(curves: ModelCurves) -> Figure:
    """Observed against nominal coverage."""
    return dynamics_plots.reliability(curves.levels, curves.before, curves.after)


def costs(labels: Sequence[str], train: Sequence[float], fit: Sequence[float]) -> Figure:
    """Seconds of a training, and of the fit that it used."""
    groups = [Bars("training", train, SERIES.index(BLUE)), Bars("fit of the model, shared", fit, 1)]
    return draw_bars(labels, groups, x_label="seconds of a run, mean")


def curve_of(records: Sequence[Sequence[Mapping[str, Any]]], key: str) -> Curve | None:
    """One metric over seeds; None if no seed has it, or no step is common to all that have it.

    Args:
        records: rows of `metrics.jsonl` of each seed.
        key: of the metric.
    """
    series: list[dict[float, float]] = [
        dict(zip(*found, strict=True)) for rows in records if (found := series_of(rows, key))[0]
    ]
    steps = sorted(set(series[0]).intersection(*series[1:])) if series else []
    if not steps:
        return None
    values = np.array([[one[step] for step in steps] for one in series], dtype=np.float64)
    columns = (values.mean(0), values.min(0), values.max(0))
    thinned = [thin(steps, column.tolist(), points=CURVE_POINTS) for column in columns]
    mean, low, high = (tuple(part[1]) for part in thinned)
    return Curve(tuple(thinned[0][0]), mean, low, high, len(series))


def model_curves(fits: Sequence[DynamicsReport]) -> ModelCurves | None:
    """Means over fits; None if there is no fit, or one that reached no horizon."""
    count = min((len(fit.open_loop.steps) for fit in fits), default=0)
    if not count:
        return None
    loops, calibrations = [fit.open_loop for fit in fits], [fit.calibration for fit in fits]
    errors = np.array([loop.error[:count] for loop in loops], dtype=np.float64)
    horizons = sorted(fit.trusted_horizon for fit in fits)
    return ModelCurves(
        steps=loops[0].steps[:count],
        error=_floats(errors.mean(0)),
        low=_floats(errors.min(0)),
        high=_floats(errors.max(0)),
        persistence=_mean([loop.persistence[:count] for loop in loops]),
        linear=_mean([loop.linear[:count] for loop in loops]),
        tolerance=loops[0].tolerance,
        trusted_horizon=horizons[len(horizons) // 2],
        levels=calibrations[0].levels,
        before=_mean([calibration.coverage_before for calibration in calibrations]),
        after=_mean([calibration.coverage_after for calibration in calibrations]),
    )


def _row_name(standing: Standing) -> str:
    is_whole = len(standing.values) == standing.planned
    return standing.label if is_whole else f"{standing.label}\n{standing.seeds} seeds"


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return _floats(np.array(rows, dtype=np.float64).mean(0))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values))
