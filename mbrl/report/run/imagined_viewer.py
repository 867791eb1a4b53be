"""What a model imagines beside what was logged, to be looked through in its page."""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.dynamics.prediction import RolloutPrediction
from mbrl.report.kit.html import Section
from mbrl.report.kit.viewer import FEWEST_POINTS, MAX_CHANNELS, Overlay, ViewedEpisode, ViewedMark, Viewer

LONGEST: Final = FEWEST_POINTS - 1
"""Steps of a forecast that the viewer can show."""

_TEXT: Final = (
    "From each start the model never looks at the log again: the logged actions are replayed. Marked is "
    "where the logged line leaves the interval; one in ten of its points may."
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ImaginedView:
    """One stretch of an episode, and what was foreseen of it at its start.

    Attributes:
        episode: index of the episode in the log.
        start: step that the forecast goes on from.
        logged: `[h + 1, d]`, the start included, raw units; h at most `LONGEST`.
        forecast: of the h steps.
        linear: `[h + 1, d]` of ridge regression.
    """

    episode: int
    start: int
    logged: NDArray[np.float32]
    forecast: RolloutPrediction
    linear: NDArray[np.float64]


def imagined_section(
    views: Sequence[ImaginedView], names: Sequence[str], *, time_step: float | None, trusted: int
) -> Section:
    """A viewer of forecasts: mean, interval, the linear model, and where the interval is left.

    Args:
        views: stretches of episodes.
        names: of the dimensions that are shown, which observations begin with.
        time_step: seconds between observations; None counts steps as seconds.
        trusted: steps that the model may be trusted for.
    """
    size, step = min(len(names), MAX_CHANNELS), time_step or 1.0
    marks: list[ViewedMark] = []
    for number, view in enumerate(views):
        marks += _departures(view, size, number, step)
        if 0 < trusted < len(view.logged) - 1:
            marks.append(ViewedMark(number, trusted * step, trusted * step, -1, 1))
    notes = [
        ("caution", "interval left", "The logged value lies outside of the interval of the forecast."),
        ("note", "trusted until", "Steps beyond are predicted, and not trusted."),
    ]
    episodes = [_viewed(view, size, step) for view in views]
    viewer = Viewer([(name, "observation") for name in names[:size]], episodes, marks, notes)
    unit = "" if time_step is not None else " Seconds are steps: the log does not say how long one takes."
    return Section("Imagined against logged", text=_TEXT + unit, viewer=viewer)


def _viewed(view: ImaginedView, size: int, step: float) -> ViewedEpisode:
    logged = view.logged[:, :size].astype(np.float64)
    low, high, mean = (
        np.concatenate((logged[:1], part[:, :size].astype(np.float64)))
        for part in (
            view.forecast.observation_low,
            view.forecast.observation_high,
            view.forecast.observation,
        )
    )
    # A linear path that runs away would press all others into a line: it ends where it leaves their range.
    least, largest = (
        np.minimum(logged, low).min(0, keepdims=True),
        np.maximum(logged, high).max(0, keepdims=True),
    )
    spare = 0.25 * (largest - least)
    linear = view.linear[:, :size]
    is_near = (linear >= least - spare) & (linear <= largest + spare)
    overlays = [
        Overlay(f"{100 * view.forecast.level:.0f} % interval", low, high),
        Overlay("forecast", mean),
        Overlay("ridge-linear", np.where(np.logical_and.accumulate(is_near), linear, np.nan)),
    ]
    name = f"episode {view.episode}, from step {view.start}"
    return ViewedEpisode(name, step * np.arange(len(logged), dtype=np.float64), logged, overlays)


def _departures(view: ImaginedView, size: int, number: int, step: float) -> list[ViewedMark]:
    """Stretches of each dimension outside of the interval."""
    logged = view.logged[1:, :size]
    low, high = view.forecast.observation_low[:, :size], view.forecast.observation_high[:, :size]
    outside = (logged < low) | (logged > high)
    marks: list[ViewedMark] = []
    for channel in range(size):
        padded = np.concatenate(([False], outside[:, channel], [False])).astype(np.int8)
        begins, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
        marks += [
            # Step k of a forecast stands at row k + 1.
            ViewedMark(number, float(step * (begin + 1)), float(step * end), channel, 0)
            for begin, end in zip(begins, ends, strict=True)
        ]
    return marks
