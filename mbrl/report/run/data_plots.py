"""Figures about a logged dataset."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbrl.report.kit.plots import MAX_BARS, Bars, Mark, Values, draw_bars, draw_histogram, draw_ranges


def histogram(counts: Values, edges: Values, *, x_label: str, counted: str, is_log: bool = False) -> Figure:
    """How often values of `x_label` occur; `counted` names what a count is, such as `episodes`."""
    return draw_histogram(counts, edges, x_label=x_label, y_label=counted, is_log=is_log)


def dimension_ranges(
    names: Sequence[str],
    smallest: Values,
    largest: Values,
    *,
    mean: Values,
    deviation: Values,
) -> Figure:
    """Range of each dimension in its own standard deviations from its mean, so that all fit one axis.

    Args:
        names: `d` dimensions.
        smallest: `d` minima, raw units.
        largest: `d` maxima, raw units.
        mean: `d` means, raw units.
        deviation: `d` standard deviations, raw units; 0 for a constant dimension, which is drawn as a point.
    """
    centre, width = np.asarray(mean), np.where(np.asarray(deviation) > 0, deviation, 1.0)
    low, high = (np.asarray(smallest) - centre) / width, (np.asarray(largest) - centre) / width
    widest = [int(d) for d in sorted(np.argsort(low - high)[:MAX_BARS])]
    return draw_ranges(
        [names[d] for d in widest],
        [(float(low[d]), float(high[d])) for d in widest],
        [(-1.0, 1.0) if deviation[d] > 0 else (0.0, 0.0) for d in widest],
        names=("smallest to largest", "one deviation", ""),
        x_label="standard deviations from the mean",
        y_label="dimension",
    )


def action_saturation(names: Sequence[str], shares: Values) -> Figure:
    """Share of rows whose action lies at one of its bounds, by dimension.

    Args:
        names: `a` action dimensions.
        shares: `a` shares, in [0, 1].
    """
    worst = [int(d) for d in sorted(np.argsort(-np.asarray(shares))[:MAX_BARS])]
    percent = [100.0 * shares[d] for d in worst]
    return draw_bars(
        [names[d] for d in worst],
        [Bars("at a bound", percent, 0)],
        x_label="rows at a bound, %",
        y_label="action",
    )


def action_histogram(counts: Values, edges: Values, *, name: str) -> Figure:
    """How often an action value occurs; a flat reference shows what uniform actions would give."""
    level = float(sum(counts)) / max(len(counts), 1)
    return draw_histogram(counts, edges, x_label=name, y_label="rows", across=[Mark("uniform", level)])
