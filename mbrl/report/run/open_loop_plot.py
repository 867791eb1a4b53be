"""What a model imagines beside what was logged."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mbrl.dynamics.prediction import RolloutPrediction
from mbrl.report.kit.palette import INK, LIGHT, MUTED, series_colour
from mbrl.report.kit.style import add_legend, panels

_COLUMNS = 2
"""Panels side by side."""

_PANEL = (3.9, 1.7)
"""Inches of one panel: flat, since time runs along it."""


def open_loop_figure(
    logged: NDArray[np.float32],
    forecast: RolloutPrediction,
    channels: Sequence[tuple[int, str]],
    *,
    trusted: int,
) -> Figure:
    """A panel for each channel: logged, imagined, and the interval that should hold the logged line.

    Args:
        logged: `[h + 1, obs_dim]`, the episode from the start of the forecast, raw units.
        forecast: of the h steps, for one start.
        channels: index and name of the dimensions to draw.
        trusted: steps that the model may be trusted for; marked by a line where it lies inside.
    """
    steps = np.arange(len(logged))
    rows = math.ceil(len(channels) / _COLUMNS)
    with panels(rows, min(_COLUMNS, len(channels)), size=_PANEL) as (figure, grid):
        for axes, (index, name) in zip(grid, channels, strict=False):
            start = logged[:1, index]
            low, high, mean = (
                np.concatenate([start, part[:, index]])
                for part in (forecast.observation_low, forecast.observation_high, forecast.observation)
            )
            label = f"{forecast.level:.0%} interval"
            axes.fill_between(steps, low, high, color=series_colour(0), alpha=0.2, linewidth=0, label=label)
            axes.plot(steps, mean, color=series_colour(0), label="imagined")
            axes.plot(steps, logged[:, index], color=LIGHT[INK], linewidth=1.2, label="logged")
            if 0 < trusted < len(logged) - 1:
                axes.axvline(
                    trusted, color=LIGHT[MUTED], linestyle=(0, (4, 2)), linewidth=1.0, label="trusted until"
                )
            axes.set_title(name, loc="left")
            axes.set_xlabel("steps ahead")
        for axes in grid[len(channels) :]:
            axes.remove()
        add_legend(figure, grid[0], columns=4)
    return figure
