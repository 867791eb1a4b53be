"""The charts that all figures are made of: lines with bands, histograms, bars, dots with intervals."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mbrl.evaluation.statistics import Interval
from mbrl.report.kit.palette import BRICK, DASHES, GREY, INK, LIGHT, MUTED, series_colour
from mbrl.report.kit.style import PANEL_SIZE, add_legend, panel
from mbrl.report.kit.wording import has_ends

Values: TypeAlias = Sequence[float | int]
"""Numbers along an axis."""

DOT_AREA = 110.0
"""Square points of the fullest cell of a plane."""

MAX_BARS = 30
"""Rows of a horizontal chart beyond which only the largest are drawn."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: for the legend; empty for none.
        x: `n` positions.
        y: `n` values; NaN leaves a gap.
        low: lower ends of a band, or None.
        high: upper ends of a band, or None.
        role: index into the palette, or None for the next one.
    """

    label: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    role: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A reference that runs across a chart, with its name beside it."""

    label: str
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bars:
    """One group of bars: its name, a value for each row, and its place in the palette."""

    label: str
    values: Values
    role: int


@dataclasses.dataclass(frozen=True, slots=True)
class Dots:
    """One row of a dot chart: single values, and their average with its interval.

    Attributes:
        label: name of the row.
        values: the single values (seeds, episodes); may be empty.
        interval: the average; an interval without ends is drawn as a bare mark.
    """

    label: str
    values: Values
    interval: Interval | None


def draw_lines(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    across: Sequence[Mark] = (),
    upright: Sequence[Mark] = (),
    y_limits: tuple[float | None, float | None] = (None, None),
    is_log: bool = False,
    is_dots: bool = False,
) -> Figure:
    """Lines with bands.

    Args:
        lines: what to draw.
        x_label: what the horizontal axis shows, with its unit.
        y_label: likewise, vertical.
        across: horizontal reference lines.
        upright: vertical reference lines.
        y_limits: ends of the vertical axis; None leaves an end to the data.
        is_log: whether the vertical axis is logarithmic.
        is_dots: dots in place of lines.
    """
    with panel(x_label=x_label, y_label=y_label) as (figure, axes):
        alpha = 0.18 if sum(line.low is not None for line in lines) <= 3 else 0.08  # many bands hide lines
        for index, line in enumerate(lines):
            role = index if line.role is None else line.role
            if is_dots:
                shape = "Dso^v*PX"[role % 8]
                axes.plot(
                    line.x, line.y, shape, color=series_colour(role), markersize=5.0, label=line.label or None
                )
            else:
                _draw_line(axes, line, role, alpha=alpha)
        if is_log:
            _set_log(axes)
        _shorten_steps(axes)
        axes.set_ylim(*y_limits)
        for mark in across:
            axes.axhline(mark.value, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (2, 2)))
            _name_line(axes, mark)
        for mark in upright:
            axes.axvline(mark.value, color=LIGHT[INK], linewidth=1.1, label=mark.label)
        add_legend(figure, axes)
    return figure


def draw_histogram(
    counts: Values,
    edges: Values,
    *,
    x_label: str,
    y_label: str = "count",
    across: Sequence[Mark] = (),
    is_log: bool = False,
) -> Figure:
    """Bars of `n` counts over `n + 1` edges."""
    ends = np.asarray(edges, dtype=np.float64)
    with panel(x_label=x_label, y_label=y_label) as (figure, axes):
        axes.bar(ends[:-1], counts, width=np.diff(ends) * 0.94, align="edge", color=series_colour(0))
        if is_log:
            _set_log(axes)
        for mark in across:
            axes.axhline(
                mark.value, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (2, 2)), label=mark.label
            )
        axes.grid(visible=False, axis="x")
        add_legend(figure, axes)
    return figure


def draw_bars(
    labels: Sequence[str],
    groups: Sequence[Bars],
    *,
    x_label: str,
    y_label: str = "",
) -> Figure:
    """Horizontal bars, one row a label, one bar a group; NaN draws none.

    Args:
        labels: `n` names of rows, from the top.
        groups: what to draw in each row.
        x_label: what the length of a bar shows.
        y_label: what the rows are.
    """
    thickness = 0.8 / max(len(groups), 1)
    each = 0.16 + 0.1 * len(groups)
    with panel(x_label=x_label, y_label=y_label, size=_tall(len(labels), each=each)) as (figure, axes):
        for index, group in enumerate(groups):
            rows = np.arange(len(labels)) + (index - (len(groups) - 1) / 2) * thickness
            colour = series_colour(group.role)
            axes.barh(rows, group.values, height=thickness * 0.9, color=colour, label=group.label)
        _name_rows(axes, labels)
        if len(groups) > 1:
            add_legend(figure, axes)
    return figure


def draw_ranges(
    labels: Sequence[str],
    outer: Sequence[tuple[float, float]],
    inner: Sequence[tuple[float, float]] | None = None,
    *,
    middle: Values | None = None,
    names: tuple[str, str, str] = ("smallest to largest", "middle part", "middle"),
    x_label: str,
    y_label: str = "",
) -> Figure:
    """Horizontal ranges, one row a label: a thin line, a thick one on it, and a tick in the middle."""
    rows = np.arange(len(labels))
    with panel(x_label=x_label, y_label=y_label, size=_tall(len(labels))) as (figure, axes):
        axes.hlines(rows, *_ends(outer), color=LIGHT[GREY], linewidth=1.6, label=names[0])
        if inner is not None:
            axes.hlines(rows, *_ends(inner), color=series_colour(0), linewidth=5.0, label=names[1])
        if middle is not None:
            axes.plot(middle, rows, "|", color=LIGHT[INK], markersize=9, markeredgewidth=1.6, label=names[2])
        _name_rows(axes, labels)
        add_legend(figure, axes, columns=2)
    return figure


def draw_dots(
    rows: Sequence[Dots], *, x_label: str, upright: Sequence[Mark] = (), value_name: str = ""
) -> Figure:
    """Rows of dots, each with its average and the interval of that.

    Args:
        rows: from the top.
        x_label: what is measured, with its unit.
        upright: vertical reference lines, named in the legend.
        value_name: what a dot is, such as `one seed`; empty leaves the dots out of the legend.
    """
    with panel(x_label=x_label, y_label="", size=_tall(len(rows), each=0.42)) as (figure, axes):
        for index, row in enumerate(rows):
            _draw_row(axes, row, index)
        for index, mark in enumerate(upright):
            style = DASHES[1 + index % (len(DASHES) - 1)]
            axes.axvline(mark.value, color=LIGHT[MUTED], linewidth=1.4, linestyle=style, label=mark.label)
        if value_name and any(len(row.values) for row in rows):
            axes.plot([], [], "o", color=LIGHT[MUTED], alpha=0.6, markersize=4.5, label=value_name)
        _name_rows(axes, [row.label for row in rows])
        add_legend(figure, axes, columns=2)
    return figure


def draw_intervals(
    labels: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Interval]]],
    *,
    x_label: str,
    upright: Sequence[Mark] = (),
    x_limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """Estimates with intervals, one row a label, one colour a group; without ends a bare mark is drawn.

    Args:
        labels: `n` names of rows, from the top.
        groups: name of the group, and its `n` intervals.
        x_label: what is measured.
        upright: vertical reference lines.
        x_limits: ends of the horizontal axis; None leaves an end to the data.
    """
    size = _tall(len(labels), each=0.3)
    with panel(x_label=x_label, y_label="", size=size) as (figure, axes):
        for index, (name, intervals) in enumerate(groups):
            shift = 0.26 * (index - (len(groups) - 1) / 2)
            _draw_intervals(axes, intervals, np.arange(len(labels)) + shift, role=index, label=name)
        for mark in upright:
            axes.axvline(
                mark.value, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (2, 2)), label=mark.label
            )
        axes.set_xlim(*x_limits)
        _name_rows(axes, labels)
        add_legend(figure, axes, columns=2)
    return figure


def draw_plane(
    x: Values,
    y: Values,
    count: Values,
    part: Values,
    *,
    x_label: str,
    y_label: str,
    names: tuple[str, str],
) -> Figure:
    """Cells of a plane: a grey dot for what is there, and a red one on it for a part.

    Args:
        x: centre of each cell.
        y: likewise.
        count: what is there; areas grow with its square root, so that rare cells are seen.
        part: area of the red dot in units of the grey dot of the fullest cell.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        names: of the grey dots and of the red ones.
    """
    amounts = _array(count)
    with panel(x_label=x_label, y_label=y_label, size=(PANEL_SIZE[0], 3.9)) as (figure, axes):
        axes.scatter(
            x, y, s=DOT_AREA * np.sqrt(amounts / amounts.max()), color=LIGHT[GREY], alpha=0.45, linewidths=0
        )
        axes.scatter(x, y, s=DOT_AREA * _array(part), color=LIGHT[BRICK], linewidths=0)
        axes.plot([], [], "o", color=LIGHT[GREY], alpha=0.45, label=names[0])
        axes.plot([], [], "o", color=LIGHT[BRICK], label=names[1])
        add_legend(figure, axes, columns=2)
    return figure


def _draw_line(axes: Axes, line: Line, role: int, *, alpha: float) -> None:
    colour, dash = series_colour(role), DASHES[role % len(DASHES)]
    marker = "o" if sum(map(math.isfinite, line.y)) == 1 else None
    axes.plot(line.x, line.y, color=colour, linestyle=dash, marker=marker, label=line.label or None)
    if line.low is not None and line.high is not None:
        axes.fill_between(
            _array(line.x), _array(line.low), _array(line.high), color=colour, alpha=alpha, linewidth=0
        )


def _draw_row(axes: Axes, row: Dots, index: int) -> None:
    spread = (
        np.linspace(0.1, 0.26, len(row.values)) if len(row.values) > 1 else np.full(len(row.values), 0.18)
    )
    colour = series_colour(index)
    axes.plot(row.values, index + spread, "o", color=colour, alpha=0.7, markersize=4.5, markeredgewidth=0)
    if row.interval is not None:
        _draw_intervals(axes, [row.interval], np.array([index - 0.12]), role=index, label=None)


def _draw_intervals(
    axes: Axes,
    intervals: Sequence[Interval],
    rows: NDArray[np.floating[Any]],
    *,
    role: int,
    label: str | None,
) -> None:
    colour, shape = series_colour(role), "Dso^v*PX"[role % 8]
    axes.plot([i.estimate for i in intervals], rows, shape, color=colour, markersize=6.0, label=label)
    ends = [(i.low, i.high, row) for i, row in zip(intervals, rows, strict=True) if has_ends(i)]
    for low, high, row in ends:
        axes.hlines([row], [low], [high], color=colour, linewidth=2.4)


def _set_log(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 100.0 * low else (1.0,)  # else a narrow range has one label only
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _shorten_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _thousands(value: float, _position: int | None) -> str:
    return f"{value / 1000:g}k" if value else "0"


def _plain(value: float, _position: int | None) -> str:
    return f"{value:g}"


def _name_line(axes: Axes, mark: Mark) -> None:
    axes.annotate(
        mark.label,
        xy=(1.0, mark.value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=LIGHT[MUTED],
        fontsize=8.0,
        annotation_clip=True,
    )


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels=list(labels))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _tall(rows: int, *, each: float = 0.24) -> tuple[float, float]:
    return PANEL_SIZE[0], max(2.2, 1.2 + each * rows)


def _ends(ranges: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [low for low, _ in ranges], [high for _, high in ranges]


def _array(values: Values) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
