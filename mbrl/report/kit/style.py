"""One restrained style for all figures: colour-blind safe, and right on light and on dark paper.

A figure is drawn once, in the colours of light paper. When it is embedded in a page, every colour of the
palette becomes a CSS variable that the page redefines for dark screens; so one drawing serves both.
"""

import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl.report.kit.palette import INK, LIGHT, MUTED, RULE, css_name

_LEGEND_HANDLE: Final = 0.5
"""Inches of an entry of a legend without its words."""

_LEGEND_LETTER: Final = 0.075
"""Inches of a letter of a legend, on average."""

PANEL_SIZE: Final = (4.7, 3.1)
"""Inches of one panel. Panels are small so that the text stays readable when a phone shrinks them."""

_RC: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": LIGHT[INK],
    "axes.labelcolor": LIGHT[INK],
    "axes.edgecolor": LIGHT[MUTED],
    "xtick.color": LIGHT[MUTED],
    "ytick.color": LIGHT[MUTED],
    "xtick.labelcolor": LIGHT[INK],
    "ytick.labelcolor": LIGHT[INK],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT[RULE],
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "axes.formatter.useoffset": False,
}
"""Sizes in points, for panels of `PANEL_SIZE`; no frame above and to the right, and no paper of its own."""


@contextmanager
def _styled(**extra: Any) -> Generator[None]:
    with mpl.rc_context(cast("Any", {**_RC, **extra})):
        yield


@contextmanager
def panel(
    *, x_label: str, y_label: str, size: tuple[float, float] = PANEL_SIZE
) -> Generator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, in the project's style for as long as the block lasts.

    Args:
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        size: inches, width and height.
    """
    with _styled():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        yield figure, axes


@contextmanager
def panels(
    rows: int, columns: int, *, x_label: str = "", y_label: str = "", size: tuple[float, float] = PANEL_SIZE
) -> Generator[tuple[Figure, list[Axes]]]:
    """A figure with a grid of axes, row by row, in the project's style for as long as the block lasts.

    Args:
        rows: of the grid.
        columns: of the grid.
        x_label: what all horizontal axes show, once for all; empty leaves it to each.
        y_label: likewise, vertical.
        size: inches of each panel, width and height.
    """
    with _styled():
        figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
        grid = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
        if x_label:
            figure.supxlabel(x_label, fontsize="medium")
        if y_label:
            figure.supylabel(y_label, fontsize="medium")
        yield figure, grid


def add_legend(figure: Figure, axes: Axes, *, columns: int = 3) -> None:
    """Puts the legend below the axes, where it cannot hide data; none if there is nothing to tell apart.

    Args:
        figure: that it belongs to.
        axes: whose labels it lists.
        columns: at most; fewer where labels are long.
    """
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        width = _LEGEND_HANDLE + _LEGEND_LETTER * max(map(len, labels))
        columns = max(1, min(columns, len(labels), int(figure.get_figwidth() / width)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.2)


def to_svg(figure: Figure, *, name: str) -> str:
    """The figure as an `<svg>` element for embedding: palette colours as CSS variables, ids prefixed.

    Args:
        figure: what to draw.
        name: unique within the page; keeps the ids of two drawings apart, and the same figure the same text.
    """
    text = io.StringIO()
    with _styled(**{"svg.hashsalt": name}):
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var({css_name(role)}, {colour})")
    return svg.strip()


def save_png(figure: Figure, path: Path, *, dots_per_inch: int = 160) -> None:
    """Writes the figure as a PNG on white, for places that show no SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _styled():
        figure.savefig(path, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
