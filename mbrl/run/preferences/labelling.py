"""What a page of labels shows, and what becomes of its answers; no page and no network in here."""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError, DataError
from mbrl.core.names import listed
from mbrl.data.dataset import Dataset
from mbrl.preferences.files import append_answer, read_preferences
from mbrl.preferences.pairs import Label, Preference, PreferenceSet, Segment
from mbrl.run.preferences.queue import Pair

MAX_CHANNELS: Final = 12
"""Most channels of a page; more than that nobody compares."""


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """A row of the page.

    Attributes:
        name: of the dimension.
        is_action: whether it is one of an action.
        index: of the dimension.
        low: least value in the log.
        high: largest; the scale of both sides in every pair.
    """

    name: str
    is_action: bool
    index: int
    low: float
    high: float


class LabelSession:
    """Pairs that one annotator answers; what was answered before is not asked again.

    Rewards are never shown: the answer is to be the annotator's.

    Args:
        dataset: the log.
        pairs: to ask, in order.
        out: file of answers, `.jsonl`; those that it holds are kept.
        annotator: who answers.
        channels: names of what is shown; None for the first dozen of observations and actions.
        now: seconds since 1970.

    Raises:
        ConfigError: a channel is unknown, or there are more than a dozen.
        DataError: the file holds answers about another log.
    """

    def __init__(
        self,
        dataset: Dataset,
        pairs: Sequence[Pair],
        out: Path,
        *,
        annotator: str = "",
        channels: Sequence[str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._dataset, self._out, self._annotator, self._now = dataset, out, annotator, now
        self.channels = _choose_channels(dataset, channels)
        self._lock = threading.Lock()
        answered: set[frozenset[Segment]] = set()
        if out.exists():
            before = read_preferences(out)
            before.require_log(dataset)
            if before.dataset != dataset.content_hash:
                raise DataError(
                    "it holds answers about the log that this one was made of",
                    file=out,
                    field="dataset",
                    remedy="Label that log, or name another file.",
                )
            mine = [answer for answer in before.answers if answer.annotator == annotator]
            answered = {frozenset((answer.left, answer.right)) for answer in mine}
        self._waiting = [(k, pair) for k, pair in enumerate(pairs) if frozenset(pair) not in answered]
        self.total, self._position = len(pairs), 0

    @property
    def answered(self) -> int:
        """Pairs that are answered, those of earlier sessions included."""
        return self.total - len(self._waiting) + self._position

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to ask."""
        return self._position >= len(self._waiting)

    def view(self) -> dict[str, Any]:
        """The pair that is asked now, plain values; without one `pair` is None."""
        with self._lock:
            return self._view()

    def answer(self, index: int, label: Label) -> dict[str, Any]:
        """Writes the answer to the pair that is asked now; returns what is asked next.

        Args:
            index: number of the pair, so that an answer that comes twice counts once.
            label: of the annotator.

        Raises:
            ConfigError: another pair is asked now.
            DataError: the answer cannot be written; the pair stays.
        """
        with self._lock:
            if self.is_done or index != self._waiting[self._position][0]:
                raise ConfigError(f"Pair {index} is not asked now. Remedy: reload the page.")
            left, right = self._waiting[self._position][1]
            given = Preference(left, right, label, annotator=self._annotator, time=round(self._now(), 3))
            append_answer(self._out, self._dataset.content_hash, given)
            self._position += 1
            return self._view()

    def result(self) -> PreferenceSet | None:
        """All answers of the file; None where there are none yet."""
        return read_preferences(self._out) if self._out.exists() else None

    def _view(self) -> dict[str, Any]:
        counts = {"answered": self.answered, "total": self.total}
        if self.is_done:
            return {**counts, "pair": None}
        index, (left, right) = self._waiting[self._position]
        return {
            **counts,
            "channels": [dataclasses.asdict(channel) for channel in self.channels],
            "pair": {"index": index, "left": self._side(left), "right": self._side(right)},
        }

    def _side(self, segment: Segment) -> dict[str, Any]:
        episode = self._dataset.episodes[segment.episode]
        steps = slice(segment.start, segment.end)
        series: list[NDArray[np.float32]] = [
            (episode.actions if channel.is_action else episode.observations)[steps, channel.index]
            for channel in self.channels
        ]
        step = self._dataset.info.time_step
        return {
            "episode": segment.episode,
            "start": segment.start,
            "length": segment.length,
            "seconds": None if step is None else step * segment.length,
            "series": [[float(f"{value:.6g}") for value in values] for values in series],
        }


def _choose_channels(dataset: Dataset, wanted: Sequence[str] | None) -> tuple[Channel, ...]:
    observations = np.concatenate([episode.observations for episode in dataset.episodes])
    actions = np.concatenate([episode.actions for episode in dataset.episodes])
    names = [(name, False, k) for k, name in enumerate(dataset.obs_names)]
    names += [(name, True, k) for k, name in enumerate(dataset.act_names)]
    if wanted is not None:
        known = {name: (name, is_action, k) for name, is_action, k in names}
        for name in wanted:
            if name not in known:
                raise ConfigError(f"There is no channel {name!r}. Legal names: {listed(tuple(known))}.")
        names = [known[name] for name in wanted]
    if wanted is not None and not 1 <= len(names) <= MAX_CHANNELS:
        raise ConfigError(f"{len(names)} channels are asked for; 1 to {MAX_CHANNELS} fit the page.")
    if len(names) > MAX_CHANNELS:
        # Actions are what people judge as much as states: they keep a place.
        acts = [entry for entry in names if entry[1]][: MAX_CHANNELS // 3]
        names = [entry for entry in names if not entry[1]][: MAX_CHANNELS - len(acts)] + acts
    found: list[Channel] = []
    for name, is_action, k in names:
        values = (actions if is_action else observations)[:, k]
        found.append(Channel(name, is_action, k, float(values.min()), float(values.max())))
    return tuple(found)
