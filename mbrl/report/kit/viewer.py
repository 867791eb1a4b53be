"""Channels of episodes against time, to be looked through in a page: data and script inside."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_NUMBERS: Final = 300_000
"""Numbers that a page carries in all."""

MAX_EPISODES: Final = 60
MAX_CHANNELS: Final = 48
FEWEST_POINTS: Final = 60
MOST_POINTS: Final = 1200

_LEVELS: Final = 9999  # a channel is stored in so many steps between its extremes


@dataclasses.dataclass(frozen=True, slots=True)
class ViewedMark:
    """A stretch of an episode with something to say.

    Attributes:
        episode: number of the viewed episode, as it is listed.
        start: seconds.
        stop: likewise.
        channel: index of the channel; -1 for all.
        note: index into the notes of the viewer.
    """

    episode: int
    start: float
    stop: float
    channel: int
    note: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """What is drawn with the values of an episode, on their scale: a line, or a band.

    Attributes:
        name: for the legend.
        values: `[n, channels]` of the line, or the lower edge of the band; NaN leaves a gap.
        upper: `[n, channels]` upper edge of the band; None for a line.
    """

    name: str
    values: NDArray[np.float64]
    upper: NDArray[np.float64] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ViewedEpisode:
    """One episode.

    Attributes:
        name: that it is chosen by.
        time: `[n]` seconds.
        values: `[n, channels]`; NaN leaves a gap.
        overlays: drawn with them; such an episode is not thinned, and has at most `FEWEST_POINTS` rows.
    """

    name: str
    time: NDArray[np.float64]
    values: NDArray[np.float64]
    overlays: Sequence[Overlay] = ()

    def __post_init__(self) -> None:
        if self.overlays and len(self.time) > FEWEST_POINTS:
            raise ValueError(f"{len(self.time)} rows with overlays, {FEWEST_POINTS} at most")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Viewer:
    """What is looked through.

    Attributes:
        channels: name and group of each, such as `observation`.
        episodes: those that the page carries.
        marks: in them.
        notes: tone, short name and text of what marks say.
    """

    channels: Sequence[tuple[str, str]]
    episodes: Sequence[ViewedEpisode]
    marks: Sequence[ViewedMark] = ()
    notes: Sequence[tuple[str, str, str]] = ()

    @property
    def points(self) -> int:
        """Most points of a channel of an episode."""
        each = MAX_NUMBERS // max(len(self.channels) * len(self.episodes), 1)
        return int(np.clip(each, FEWEST_POINTS, MOST_POINTS))

    def to_json(self) -> str:
        """For a script element: no character in it can end one."""
        data = {
            "channels": [{"name": name, "group": group} for name, group in self.channels],
            "notes": [{"tone": tone, "name": name, "text": text} for tone, name, text in self.notes],
            "episodes": [self._episode(index) for index in range(len(self.episodes))],
        }
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

    def _episode(self, index: int) -> dict[str, Any]:
        episode = self.episodes[index]
        time, values = thin(episode.time, episode.values, self.points)
        marks = [
            [mark.note, _short(mark.start), _short(mark.stop), mark.channel]
            for mark in self.marks
            if mark.episode == index
        ]
        layers = [one for overlay in episode.overlays for one in (overlay.values, overlay.upper)]
        everything = np.stack([values, *(layer for layer in layers if layer is not None)])
        ranges = [everything[..., k] for k in range(values.shape[1])]
        found = {
            "name": episode.name,
            "rows": len(episode.time),
            "time": _scaled(time),
            "values": [_scaled(column, ranges[k]) for k, column in enumerate(values.T)],
            "marks": marks,
        }
        if not episode.overlays:
            return found

        def drawn(layer: NDArray[np.float64] | None) -> list[Any] | None:
            return None if layer is None else [_scaled(c, ranges[k])["v"] for k, c in enumerate(layer.T)]

        overlays = [
            {"name": one.name, "v": drawn(one.values), "upper": drawn(one.upper)} for one in episode.overlays
        ]
        return {**found, "overlays": overlays}


def thin(
    time: NDArray[np.float64], values: NDArray[np.float64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `most` rows that keep every peak: of each stretch the smallest and the largest value.

    Args:
        time: `[n]` seconds.
        values: `[n, channels]`.
        most: points of each channel, even.

    Returns:
        `[m]` seconds, the start and the middle of every stretch, and `[m, channels]`; each channel has the
        two values of a stretch in their order.
    """
    count = len(time)
    if count <= most:
        return time, values
    edges = np.linspace(0, count, most // 2 + 1).astype(np.int64)
    at = np.stack([edges[:-1], (edges[:-1] + edges[1:]) // 2], axis=1).reshape(-1)
    lowest = np.minimum.reduceat(np.where(np.isnan(values), np.inf, values), edges[:-1])
    highest = np.maximum.reduceat(np.where(np.isnan(values), -np.inf, values), edges[:-1])
    falls = values[edges[:-1]] > values[edges[1:] - 1]
    first, second = np.where(falls, highest, lowest), np.where(falls, lowest, highest)
    pairs = np.stack([first, second], axis=1).reshape(-1, values.shape[1])
    return time[at], np.where(np.isfinite(pairs), pairs, np.nan)


def _scaled(values: NDArray[np.float64], among: NDArray[np.float64] | None = None) -> dict[str, Any]:
    """Least and largest value (of `among`), and whole numbers between them; None for NaN."""
    among = values if among is None else among
    known = among[np.isfinite(among)]
    if not len(known):
        return {"low": 0.0, "high": 0.0, "v": []}
    low, high = float(known.min()), float(known.max())
    width = high - low
    levels = np.zeros(len(values)) if width == 0 else np.round((values - low) * (_LEVELS / width))
    kept: list[int | None] = [int(level) if np.isfinite(level) else None for level in levels.tolist()]
    return {"low": low, "high": high, "v": kept}


def _short(seconds: float) -> float:
    return float(f"{seconds:.6g}")
