"""Splits that keep what belongs together on one side: whole episodes, or blocks of time with gaps between."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset

MIN_EPISODES: Final = 10
"""Below this number of episodes, a split cuts blocks of time."""

MIN_HOLDOUT_EPISODES: Final = 5
MAX_HOLDOUT_ROWS: Final = 0.2
MAX_BLOCKS: Final = 5
DEFAULT_GAP: Final = 25
DEFAULT_FRACTION: Final = 0.1

TEST_INFO: Final = "is_test"
"""Info of `[T]` flags that tags an episode as kept for tests."""

MIN_KNOWN_HOLDOUT: Final = 2
"""Held-out steps with a known successor that a fit needs: one half recalibrates, the other judges that."""

_HOLDOUT_REMEDY: Final = (
    "Log longer episodes, final observations, or 10 episodes at least. Model-free learners need none."
)
_BLOCK_GAPS: Final = (
    20  # rows of an episode per block cut from it, in gaps: the gaps then cost at most a tenth
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Two disjoint parts of one dataset.

    Attributes:
        train: what models and statistics are fitted on.
        holdout: what they are judged on.
        is_by_block: True if episodes were cut into blocks of time; rows in the gaps belong to neither part.
        whole: the dataset that both are parts of; None where nobody noted it.
    """

    train: Dataset
    holdout: Dataset
    is_by_block: bool
    whole: Dataset | None = None

    @property
    def numbers(self) -> list[int]:
        """Of the held-out episodes, or of those that held-out blocks come from, in the whole dataset."""
        whole = self.holdout if self.whole is None else self.whole
        places = {id(episode.logged): number for number, episode in enumerate(whole.episodes)}
        return [places[id(episode.logged)] for episode in self.holdout.episodes]


def split_episodes(
    dataset: Dataset,
    *,
    fraction: float = DEFAULT_FRACTION,
    generator: torch.Generator,
    gap: int = DEFAULT_GAP,
) -> Split:
    """Holds out the episodes that are tagged as tests (`TEST_INFO`); else some, stratified by return.

    With at least 10 episodes: `max(5, fraction * episodes)` strata of neighbouring returns give one random
    episode each. Where that would exceed `max(20 %, fraction)` of the rows the cap wins: strata whose
    episodes no longer fit give none, but the shortest episode is held out at least. With fewer: blocks of
    time (`split_blocks`).

    Args:
        dataset: to be split.
        fraction: share of episodes (or of rows, for blocks) to hold out, in (0, 0.5].
        generator: draws the episodes.
        gap: steps dropped between blocks; at least the longest window that will be judged.

    Raises:
        DataError: one short episode is all there is.
        ValueError: `fraction` or `gap` is out of range.
    """
    if not 0.0 < fraction <= 0.5:
        raise ValueError(f"fraction must lie in (0, 0.5], not {fraction}")
    if gap < 0:
        raise ValueError(f"gap must not be negative, not {gap}")
    held = _tagged(dataset)
    if not held and len(dataset) < MIN_EPISODES:
        return split_blocks(dataset, fraction=fraction, generator=generator, gap=gap)
    held = held or _draw_holdout(dataset, fraction, generator)
    return Split(
        train=dataset.select(index for index in range(len(dataset)) if index not in held),
        holdout=dataset.select(sorted(held)),
        is_by_block=False,
        whole=dataset,
    )


def _tagged(dataset: Dataset) -> set[int]:
    """Episodes that are tagged as tests; none where all are or none is."""
    flags = [episode.infos.get(TEST_INFO) for episode in dataset.episodes]
    held = {index for index, flag in enumerate(flags) if flag is not None and bool(flag.any())}
    return held if len(held) < len(dataset) else set()


def _draw_holdout(dataset: Dataset, fraction: float, generator: torch.Generator) -> set[int]:
    count = max(MIN_HOLDOUT_EPISODES, round(fraction * len(dataset)))
    room = max(MAX_HOLDOUT_ROWS, fraction) * dataset.num_transitions
    order = _by_return(dataset, generator)
    edges = [round(i * len(order) / count) for i in range(count + 1)]
    lengths: list[int] = dataset.episode_lengths.tolist()
    held: set[int] = set()
    for index in _permutation(count, generator):
        stratum: list[int] = order[edges[index] : edges[index + 1]].tolist()
        fitting = [episode for episode in stratum if lengths[episode] <= room]
        if fitting:
            drawn = fitting[int(torch.randint(len(fitting), (1,), generator=generator)[0])]
            room -= lengths[drawn]
            held.add(drawn)
    return held or {int(dataset.episode_lengths.argmin())}


def _permutation(count: int, generator: torch.Generator) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator).numpy()


def _by_return(dataset: Dataset, generator: torch.Generator) -> NDArray[np.int64]:
    """Episodes in the order of their returns, ties in random order."""
    shuffled = _permutation(len(dataset), generator)
    return shuffled[np.argsort(dataset.episode_returns[shuffled], kind="stable")]


def split_blocks(
    dataset: Dataset,
    *,
    fraction: float = DEFAULT_FRACTION,
    generator: torch.Generator,
    gap: int = DEFAULT_GAP,
) -> Split:
    """Holds blocks of time out, each at a random place of its stretch of an episode, with `gap` steps around.

    An episode of at least 20 gaps gives up to 5 blocks of `fraction` of the rows (at least two gaps long,
    at most 20 % of the rows). If no episode is that long, one whole episode of at most 20 % of the rows is
    held out, or the longest one gives its last rows. Every piece becomes an entry of its own, truncated where
    it was cut, that knows the logged episode it belongs to (`Episode.whole`).

    Raises:
        DataError: a single episode is too short for two parts and a gap.
    """
    lengths = dataset.episode_lengths
    long_enough = [index for index, length in enumerate(lengths) if length >= max(1, _BLOCK_GAPS * gap)]
    if not long_enough or int(lengths.max()) < 10:
        return _split_short(dataset, generator, gap)
    train: list[Episode] = []
    holdout: list[Episode] = []
    for index, episode in enumerate(dataset.episodes):
        if index not in long_enough:
            train.append(episode)
            continue
        is_held = _draw_blocks(len(episode), fraction, generator, gap)
        holdout.extend(cut(episode, start, stop) for start, stop in _runs(is_held))
        train.extend(cut(episode, start, stop) for start, stop in _runs(~_widen(is_held, gap)))
    return Split(_with(dataset, train), _with(dataset, holdout), is_by_block=True, whole=dataset)


def _draw_blocks(steps: int, fraction: float, generator: torch.Generator, gap: int) -> NDArray[np.bool_]:
    is_held = np.zeros(steps, dtype=np.bool_)
    count = max(1, min(MAX_BLOCKS, steps // max(1, _BLOCK_GAPS * gap), steps // 10))
    edges = np.linspace(0, steps, count + 1, dtype=np.int64)
    for start, stop in itertools.pairwise(edges.tolist()):
        room = stop - start
        cap = max(1, int(max(MAX_HOLDOUT_ROWS, fraction) * room))
        length = min(cap, max(round(fraction * room), 2 * gap, 1))
        offset = int(torch.randint(room - length + 1, (1,), generator=generator)[0])
        is_held[start + offset : start + offset + length] = True
    return is_held


def _split_short(dataset: Dataset, generator: torch.Generator, gap: int) -> Split:
    """A whole episode for the holdout if that is few rows, else the last rows of the longest episode."""
    lengths, cap = dataset.episode_lengths, int(MAX_HOLDOUT_ROWS * dataset.num_transitions)
    small = np.flatnonzero(lengths <= cap)
    longest = int(lengths.argmax())
    steps = int(lengths[longest])
    start = steps - min(max(1, cap), max(1, steps // 2))
    if len(small) == 0 and start - gap >= 1:
        rest = [episode for index, episode in enumerate(dataset.episodes) if index != longest]
        train = [*rest, cut(dataset.episodes[longest], 0, start - gap)]
        holdout = [cut(dataset.episodes[longest], start, steps)]
        return Split(_with(dataset, train), _with(dataset, holdout), is_by_block=True, whole=dataset)
    if len(dataset) == 1:
        helpful = start - (steps + 1) // 2  # leaves half of the rows to be learned from
        can_judge = steps - start >= MIN_KNOWN_HOLDOUT + int(
            not dataset.episodes[0].is_final_observation_known
        )
        shorter = f", or judge shorter windows: --set dynamics.assessment.horizon={helpful}"
        raise DataError(
            f"one episode of {steps} steps cannot be split with a gap of {gap}",
            episode=0,
            remedy=f"Log more data{shorter if helpful > 0 and can_judge else ''}.",
        )
    eligible = small if len(small) else np.array([lengths.argmin()])
    judged = [index for index in eligible if _known_steps(dataset.episodes[index]) >= MIN_KNOWN_HOLDOUT]
    eligible = np.array(judged) if judged else eligible
    held = int(eligible[int(torch.randint(len(eligible), (1,), generator=generator)[0])])
    rest_indices = [index for index in range(len(dataset)) if index != held]
    return Split(dataset.select(rest_indices), dataset.select([held]), is_by_block=False, whole=dataset)


def episode_folds(dataset: Dataset, count: int, generator: torch.Generator) -> NDArray[np.int64]:
    """`[episodes]`, the fold 0..count-1 of every episode; folds are alike in return and in size.

    Of `count` neighbours in return each goes to another fold, by chance.

    Args:
        dataset: at least `count` episodes.
        count: folds.
        generator: of the draws.

    Raises:
        DataError: fewer episodes than folds.
    """
    if len(dataset) < count:
        raise DataError(
            f"{len(dataset)} episodes cannot be divided into {count} folds", remedy="Log more episodes."
        )
    order, folds = _by_return(dataset, generator), np.empty(len(dataset), dtype=np.int64)
    for start in range(0, len(order), count):
        part = order[start : start + count]
        folds[part] = _permutation(count, generator)[: len(part)]
    return folds


def halves(
    dataset: Dataset, generator: torch.Generator, *, gap: int = DEFAULT_GAP
) -> tuple[Dataset, Dataset]:
    """Two disjoint halves, alike in return: for recalibration on one and its report on the other.

    Neighbours in return go to different halves, by a coin each. A single episode is cut in two blocks of time
    with up to `gap` steps between. Where a half would be left without a step whose successor is known, these
    steps are divided instead.

    Raises:
        DataError: there are not two steps with a known successor.
    """
    parts = (
        _halve_episode(dataset, generator, gap) if len(dataset) == 1 else _halve_by_return(dataset, generator)
    )
    if all(sum(map(_known_steps, part.episodes)) for part in parts):
        return parts
    return _halve_known_steps(dataset)


def _halve_by_return(dataset: Dataset, generator: torch.Generator) -> tuple[Dataset, Dataset]:
    order = _by_return(dataset, generator)
    first: list[int] = []
    second: list[int] = []
    for start in range(0, len(order), 2):
        pair = [int(index) for index in order[start : start + 2]]
        sides = (first, second) if _coin(generator) else (second, first)
        if len(pair) == 1:  # the odd one out must not empty a half, and both have the same length here
            sides[0].append(pair[0])
            break
        for side, index in zip(sides, pair, strict=True):
            side.append(index)
    return dataset.select(sorted(first)), dataset.select(sorted(second))


def _halve_episode(dataset: Dataset, generator: torch.Generator, gap: int) -> tuple[Dataset, Dataset]:
    episode = dataset.episodes[0]
    steps = len(episode)
    if steps < 2:
        raise DataError("one step cannot be halved", episode=0, remedy="Log more data.")
    gap = min(gap, max(0, steps // 2 - 1), steps // 5)
    stop = (steps - gap) // 2
    parts = [_with(dataset, [cut(episode, 0, stop)]), _with(dataset, [cut(episode, stop + gap, steps)])]
    if _coin(generator):
        parts.reverse()
    return parts[0], parts[1]


def _halve_known_steps(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Halves that have a known successor each, where returns and chance gave none to one of them."""
    known = [index for index, episode in enumerate(dataset.episodes) if _known_steps(episode)]
    rest = [index for index in range(len(dataset)) if index not in known]
    if len(known) > 1:
        return dataset.select(known[::2] + rest), dataset.select(known[1::2])
    episode = dataset.episodes[known[0]] if known else dataset.episodes[0]
    stop = _known_steps(episode) // 2
    if stop == 0:
        raise DataError(
            "fewer than two steps have a known successor, so they cannot be halved", remedy=_HOLDOUT_REMEDY
        )
    others = [dataset.episodes[index] for index in rest]
    pieces = [cut(episode, 0, stop), *others], [cut(episode, stop, len(episode))]
    return _with(dataset, pieces[0]), _with(dataset, pieces[1])


def _known_steps(episode: Episode) -> int:
    """Steps whose successor is known."""
    return len(episode) - int(not episode.is_final_observation_known)


def check_fit_parts(split: Split) -> None:
    """Refuses a split whose parts no model can be fitted to, or judged on.

    Raises:
        DataError: no training step, or fewer than two held-out steps, have a known successor.
    """
    if not sum(map(_known_steps, split.train.episodes)):
        raise DataError(
            "no transition has a known successor, so nothing says what actions do",
            remedy="Log longer episodes, or log final observations. Model-free learners need no successors.",
        )
    held = sum(map(_known_steps, split.holdout.episodes))
    if held < MIN_KNOWN_HOLDOUT:
        raise DataError(
            f"{held} held-out steps have a known successor; a model needs {MIN_KNOWN_HOLDOUT} to be judged "
            "on",
            remedy=_HOLDOUT_REMEDY,
        )


def _coin(generator: torch.Generator) -> bool:
    return bool(torch.randint(2, (1,), generator=generator)[0])


def cut(episode: Episode, start: int, stop: int) -> Episode:
    """Steps `start` to `stop` (exclusive) as an episode, truncated if cut before the end.

    The piece knows the logged episode that it comes from: returns and first states are that one's.

    Raises:
        ValueError: the range is empty or leaves the episode.
    """
    steps = len(episode)
    if not 0 <= start < stop <= steps:
        raise ValueError(f"steps {start} to {stop} of an episode of {steps}")
    is_end = stop == steps
    log_prob, times = episode.behaviour_log_prob, episode.timestamps
    return Episode(
        observations=episode.observations[start : stop + 1],
        actions=episode.actions[start:stop],
        rewards=episode.rewards[start:stop],
        terminated=episode.terminated and is_end,
        truncated=episode.truncated or not is_end,
        is_final_observation_known=episode.is_final_observation_known or not is_end,
        behaviour_log_prob=None if log_prob is None else log_prob[start:stop],
        timestamps=None if times is None else times[start : stop + 1],
        infos={
            name: values[start : stop + 1] if len(values) == steps + 1 else values[start:stop]
            for name, values in episode.infos.items()
        },
        whole=episode.whole if is_end and start == 0 else episode.logged,
        first_step=episode.first_step + start,
        has_rewards=episode.has_rewards,
    )


def _widen(is_held: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """True within `gap` steps of a held step."""
    widened = is_held.copy()
    for start, stop in _runs(is_held):
        widened[max(0, start - gap) : stop + gap] = True
    return widened


def _runs(mask: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """Half-open ranges in which `mask` is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _with(dataset: Dataset, episodes: Sequence[Episode]) -> Dataset:
    return dataclasses.replace(dataset, episodes=tuple(episodes))
