"""Figures of a deployment report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl.evaluation.statistics import Interval
from mbrl.off_policy.judgement.report.measured import RiskSource, SupportByPlace, SupportByTime
from mbrl.off_policy.judgement.report.records import known_ends
from mbrl.off_policy.judgement.risk import QUANTILE_LEVELS
from mbrl.off_policy.statistics.bounds import LEVEL
from mbrl.report.kit.palette import BLUE, BRICK, GREY, LIGHT, ORANGE, SERIES
from mbrl.report.kit.plots import Bars, Line, Mark, draw_bars, draw_intervals, draw_lines, draw_plane
from mbrl.report.kit.style import PANEL_SIZE, add_legend, panel

_SEEN_DEVIATIONS: Final = 3.0
"""Deviations of the logged returns around what counts that an axis of estimates shows."""

_LEAST_SHOWN_ESS: Final = 1e-3
"""Effective episodes that stand for none on a logarithmic axis."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One estimator of the interval chart; ends are None where there is no interval."""

    label: str
    point: float
    low: float | None
    high: float | None
    is_counted: bool


def estimates(
    rows: Sequence[Row],
    *,
    baseline: tuple[str, float, float, float] | None,
    spread: float | None,
    x_label: str,
) -> Figure:
    """Estimates with their intervals: those that count in colour, the others grey.

    What lies beyond the axis is drawn at its end as an arrow: one wild estimate must not flatten the others.

    Args:
        rows: from the top; points are finite.
        baseline: name, value and interval, drawn as a band; None without one.
        spread: deviation of the logged returns, which sets how much of the axis is shown; None for all.
        x_label: what is estimated.
    """
    limits = _limits(rows, baseline, spread)
    size = (PANEL_SIZE[0], max(2.4, 1.3 + 0.26 * len(rows)))
    with panel(x_label=x_label, y_label="", size=size) as (figure, axes):
        axes.set_xlim(*limits)
        if baseline is not None:
            name, value, low, high = baseline
            axes.axvspan(low, high, color=LIGHT[ORANGE], alpha=0.16, linewidth=0)
            axes.axvline(value, color=LIGHT[ORANGE], linewidth=1.3, linestyle=(0, (5, 1.6)), label=name)
        for is_counted, role, label in ((True, BLUE, "counts"), (False, GREY, "does not count")):
            chosen = [(y, row) for y, row in enumerate(rows) if row.is_counted == is_counted]
            if chosen:
                axes.plot([], [], "o" if is_counted else "s", color=LIGHT[role], markersize=6, label=label)
            for y, row in chosen:
                _draw_row(axes, row, y, limits, role)
        axes.set_yticks(range(len(rows)), labels=[row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        add_legend(figure, axes, columns=3)
    return figure


def _draw_row(axes: Axes, row: Row, y: int, limits: tuple[float, float], role: str) -> None:
    low, high = limits
    colour = LIGHT[role]
    if row.low is not None and row.high is not None and row.high > low and row.low < high:
        axes.hlines([y], [max(row.low, low)], [min(row.high, high)], color=colour, linewidth=2.4)
    if low <= row.point <= high:
        axes.plot([row.point], [y], "o" if row.is_counted else "s", color=colour, markersize=6.0)
    else:
        edge, marker = (low, "<") if row.point < low else (high, ">")
        axes.plot([edge], [y], marker, color=colour, markersize=7.0, clip_on=False)


def _limits(
    rows: Sequence[Row], baseline: tuple[str, float, float, float] | None, spread: float | None
) -> tuple[float, float]:
    """What counts and the baseline are always seen, and the others as far as three deviations around them."""
    core = [end for row in rows if row.is_counted for end in (row.low, row.high) if end is not None]
    core += [] if baseline is None else list(baseline[1:])
    every = [v for row in rows for v in (row.point, row.low, row.high) if v is not None and math.isfinite(v)]
    if not core:
        core = [float(np.median([row.point for row in rows]))] if rows else [0.0]
    room = _SEEN_DEVIATIONS * spread if spread is not None and spread > 0 else math.inf
    seen = [v for v in every if min(core) - room <= v <= max(core) + room]
    low, high = min([*core, *seen]), max([*core, *seen])
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def effective_episodes(ess: Sequence[float | None], *, needed: float) -> Figure:
    """Effective number of episodes of each step, on a logarithmic axis."""
    values = [math.nan if value is None else max(value, _LEAST_SHOWN_ESS) for value in ess]
    line = Line("", list(range(len(values))), values, role=0)
    return draw_lines(
        [line],
        x_label="step of the episode",
        y_label="effective episodes",
        across=[Mark("needed", needed)],
        y_limits=(min([needed, *(v for v in values if math.isfinite(v))]) / 1.5, None),
        is_log=True,
    )


def support_over_time(support: SupportByTime, *, nominal: float, most: float) -> Figure:
    """Share of the policy's actions outside of the log by step."""
    return draw_lines(
        [Line("", support.step, support.share, role=SERIES.index(BRICK))],
        x_label="step of the episode",
        y_label="share of actions",
        across=[Mark("the behaviour itself", nominal), Mark("most that still counts", most)],
        y_limits=(0.0, None),
    )


def support_over_plane(support: SupportByPlace) -> Figure:
    """Logged states in their first two principal components: how many, and how many of them are left.

    The area of a grey dot is the number of states in its cell (square root, so that rare ones are seen), that
    of the red one within it is the share where the policy leaves the log.
    """
    count, share = np.asarray(support.count, np.float64), np.asarray(support.share, np.float64)
    names = [f"component {k + 1} ({100 * e:.0f} % of the variance)" for k, e in enumerate(support.explained)]
    return draw_plane(
        support.x,
        support.y,
        count.tolist(),
        (np.sqrt(count / count.max()) * share).tolist(),
        x_label=names[0],
        y_label=names[1],
        names=("logged states", "left by the policy"),
    )


def rollout_shares(shares: Mapping[str, Sequence[float | None]]) -> Figure:
    """Shares of model roll-outs against the imagined step."""
    lines = [Line(name, list(range(len(values))), _values(values)) for name, values in shares.items()]
    return draw_lines(
        lines,
        x_label="imagined step",
        y_label="share of roll-outs",
        y_limits=(0.0, None),
    )


def event_probabilities(sources: Sequence[RiskSource], *, limit: float | None, text: str) -> Figure:
    """Probability of the event by source, with the limit; of sources that give it."""
    nothing = (math.nan, math.nan)
    intervals = [
        Interval(
            math.nan if s.p_violation is None else s.p_violation,
            *(known_ends(s.p_violation_ci95) or nothing),
            level=LEVEL,
            method="",
            n=0,
        )
        for s in sources
    ]
    return draw_intervals(
        [source.source for source in sources],
        [("", intervals)],
        x_label=f"probability that {text}",
        upright=[] if limit is None else [Mark("limit", limit)],
        x_limits=(0.0, None),
    )


def return_distributions(sources: Sequence[RiskSource], *, x_label: str) -> Figure:
    """Share of the episodes with a return below each value, by source."""
    lines = [Line(s.source, _values(s.quantiles), list(QUANTILE_LEVELS)) for s in sources if s.quantiles]
    return draw_lines(lines, x_label=x_label, y_label="share of episodes below", y_limits=(0.0, 1.0))


def backtest(z: Mapping[str, float], *, most: float) -> Figure:
    """Standard errors by which each estimator misses the behaviour's known value."""
    nothing = math.nan
    intervals = [Interval(value, nothing, nothing, LEVEL, "none", 1) for value in z.values()]
    reach = 1.15 * max([most, *(abs(value) for value in z.values())])
    return draw_intervals(
        list(z),
        [("", intervals)],
        x_label="standard errors off the logged mean",
        upright=[Mark(f"{-most:g}", -most), Mark(f"+{most:g}", most)],
        x_limits=(-reach, reach),
    )


def _values(numbers: Sequence[float | None]) -> list[float]:
    """Numbers for a line; a gap where there is none."""
    return [math.nan if number is None else number for number in numbers]


def chances(names: Sequence[str], p_best: Sequence[float]) -> Figure:
    """Probability of being the best of the candidates."""
    return draw_bars(
        list(names),
        [Bars("P(best)", list(p_best), SERIES.index(BLUE))],
        x_label="probability of being the best",
    )
