"""Figures about a dynamics ensemble: how it was fitted, how calibrated it is, how far it can be trusted."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbrl.dynamics.gap_report import DoubtMap
from mbrl.evaluation.statistics import Interval
from mbrl.report.kit.palette import LIGHT, MUTED, series_colour
from mbrl.report.kit.plots import (
    MAX_BARS,
    Bars,
    Line,
    Mark,
    Values,
    draw_bars,
    draw_intervals,
    draw_lines,
    draw_plane,
)
from mbrl.report.kit.style import add_legend, panel
from mbrl.report.kit.wording import format_count

NOTHING_TRUSTED = "trusted: none"


def training_curves(updates: Values, errors: Sequence[Values], elites: Sequence[int]) -> Figure:
    """Holdout error of each member against gradient steps; members that were not kept are grey.

    Args:
        updates: `n` gradient steps.
        errors: for each member `n` holdout errors, normalised units; NaN after the member stopped.
        elites: indices of the members that were kept.
    """
    kept, dropped = (
        [m for m in range(len(errors)) if m in elites],
        [m for m in range(len(errors)) if m not in elites],
    )
    lines = [
        Line(
            "not kept" if member == dropped[0] else "", updates[: len(errors[member])], errors[member], role=5
        )
        for member in dropped
    ] + [
        Line("elites" if member == kept[0] else "", updates[: len(errors[member])], errors[member], role=0)
        for member in kept
    ]
    return draw_lines(lines, x_label="gradient steps", y_label="holdout error, normalised", is_log=True)


def reliability(levels: Values, before: Values, after: Values) -> Figure:
    """Observed coverage against nominal, before and after recalibration; on the diagonal is right.

    Args:
        levels: `n` nominal levels of central intervals, in (0, 1).
        before: `n` shares of held-out targets inside, as fitted.
        after: `n` shares after recalibration, on episodes that it was not fitted on.
    """
    with panel(x_label="nominal coverage", y_label="observed coverage") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=LIGHT[MUTED], linewidth=1.0, label="exact")
        axes.plot(
            levels,
            before,
            color=series_colour(1),
            linestyle=(0, (5, 1.6)),
            marker="s",
            ms=3,
            label="as fitted",
        )
        axes.plot(levels, after, color=series_colour(0), marker="o", ms=3, label="recalibrated")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        add_legend(figure, axes)
    return figure


def pit_histogram(before: Values, after: Values) -> Figure:
    """Histogram of the probability integral transform over [0, 1]; flat at 1 is right.

    Args:
        before: counts in equal bins, as fitted.
        after: likewise after recalibration.
    """
    edges = np.linspace(0, 1, len(before) + 1)
    fitted, repaired = _density(before), _density(after)
    with panel(x_label="predicted probability of a smaller value (PIT)", y_label="density") as (figure, axes):
        axes.axhline(1.0, color=LIGHT[MUTED], linewidth=1.0, label="exact")
        axes.stairs(repaired, edges, fill=True, color=series_colour(0), alpha=0.35, label="recalibrated")
        dash = (0, (5, 1.6))
        axes.stairs(fitted, edges, baseline=None, color=series_colour(1), ls=dash, lw=1.6, label="as fitted")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        add_legend(figure, axes)
    return figure


def k_step_error(
    steps: Sequence[int],
    error: Values,
    *,
    low: Values | None,
    high: Values | None,
    persistence: Values,
    linear: Values | None,
    tolerance: float,
    trusted_horizon: int,
    band_name: str = "interval",
) -> Figure:
    """Open-loop error against the horizon, beside the two trivial models, with the trusted horizon marked.

    Args:
        steps: `n` horizons, from 1.
        error: `n` median errors of the ensemble, in standard deviations of the state.
        low: lower ends of the interval of `error`, or None.
        high: upper ends, or None.
        persistence: `n` errors of "nothing changes".
        linear: `n` errors of the ridge-linear model, or None.
        tolerance: error that the trusted horizon permits.
        trusted_horizon: last step that is trusted; 0 for none.
        band_name: what `low` and `high` enclose.
    """
    lines = [
        Line(
            f"ensemble, with {band_name}" if low is not None else f"ensemble (no {band_name})",
            steps,
            error,
            low,
            high,
            role=0,
        ),
        Line("persistence", steps, persistence, role=5),
    ]
    if linear is not None:
        lines.append(Line("ridge-linear", steps, linear, role=1))
    label = f"trusted: {format_count(trusted_horizon, 'step')}" if trusted_horizon > 0 else NOTHING_TRUSTED
    return draw_lines(
        lines,
        x_label="steps ahead",
        y_label="error, standard deviations",
        across=[Mark(f"tolerance {tolerance:g}", tolerance)],
        upright=[Mark(label, float(trusted_horizon))],
        y_limits=(0.0, error_ceiling(error, persistence, linear, tolerance)),
    )


def error_ceiling(error: Values, persistence: Values, linear: Values | None, tolerance: float) -> float:
    """Upper end of the error axis: all values, at most 2.5 times the worst persistence: models explode."""
    worst = float(np.nanmax([*error, *persistence, *(() if linear is None else linear), 1.15 * tolerance]))
    return min(1.08 * worst, 2.5 * max(float(np.nanmax(persistence)), tolerance))


def coverage_by_step(
    steps: Sequence[int],
    coverage: Values,
    *,
    forecast: Values | None = None,
    level: float,
    least: float,
    trusted_horizon: int,
) -> Figure:
    """Share of held-out states inside the particles' central interval, by horizon.

    Args:
        steps: `n` horizons.
        coverage: `n` shares, in [0, 1].
        forecast: likewise for corrected forecasts, or None.
        level: nominal coverage.
        least: coverage below which a step is not trusted.
        trusted_horizon: last step that is trusted.
    """
    label = f"trusted: {format_count(trusted_horizon, 'step')}" if trusted_horizon > 0 else NOTHING_TRUSTED
    lines = [Line("particles", steps, coverage, role=0)]
    if forecast is not None:
        lines.append(Line("forecasts", steps, forecast, role=1))
    return draw_lines(
        lines,
        x_label="steps ahead",
        y_label=f"coverage of the {100 * level:.0f} % interval",
        across=[Mark("nominal", level), Mark("least that is trusted", least)],
        upright=[Mark(label, float(trusted_horizon))],
        y_limits=(0.0, 1.05),
    )


def rank_correlation(
    measures: Sequence[str], rows: Sequence[Interval], far: Sequence[Interval] | None
) -> Figure:
    """Spearman correlation of each uncertainty measure with the true one-step error.

    Args:
        measures: names.
        rows: correlation over all held-out rows, with intervals over episodes.
        far: likewise over the rows farthest from the training data, or None.
    """
    groups = [("all held-out rows", rows)] + ([] if far is None else [("rows far from the data", far)])
    return draw_intervals(
        measures, groups, x_label="rank correlation with the error", upright=[Mark("no relation", 0.0)]
    )


def doubt_over_plane(doubt: DoubtMap, names: Sequence[str]) -> Figure:
    """Logged rows over two channels, and how unsure the model is there."""
    largest = max(doubt.doubt) or 1.0
    return draw_plane(
        doubt.x,
        doubt.y,
        doubt.count,
        [value / largest for value in doubt.doubt],
        x_label=names[0],
        y_label=names[1],
        names=("logged rows", f"uncertainty, up to {largest:.2g} times the median"),
    )


def errors_by_dimension(
    names: Sequence[str],
    ensemble: Values,
    persistence: Values | None,
    linear: Values | None,
) -> Figure:
    """One-step error of each observation dimension; the worst ones only where there are too many to draw.

    Args:
        names: `d` dimensions.
        ensemble: `d` errors, in standard deviations of the one-step change.
        persistence: likewise for "nothing changes", or None.
        linear: likewise for the ridge-linear model, or None.
    """
    worst = [int(d) for d in sorted(np.argsort(-np.asarray(ensemble))[:MAX_BARS])]
    drawn = [("ensemble", ensemble, 0), ("ridge-linear", linear, 1), ("persistence", persistence, 5)]
    groups = [
        Bars(label, [values[d] for d in worst], role) for label, values, role in drawn if values is not None
    ]
    return draw_bars(
        [names[d] for d in worst],
        groups,
        x_label="one-step error, standard deviations of the change",
        y_label="dimension",
    )


def _density(counts: Values) -> list[float]:
    total = float(sum(counts))
    return [len(counts) * count / total if total > 0 else 0.0 for count in counts]
