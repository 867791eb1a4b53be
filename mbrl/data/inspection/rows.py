"""Odd rows of a log: copies, stillness, contradictions, jumps, outliers of the reward, gaps in time."""

from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.ops.spread import PlausibleRange

JUMP_FACTOR: Final = 8.0

COPIED_ROWS: Final = 8
"""Equal rows in a run that make a copy rather than a coincidence."""

OUTLIER_SIZE: Final = 1e6
"""At the end of an episode only a reward of this size is an outlier: those are often large on purpose."""

MAX_OUTLIERS: Final = 10
GAP_FACTOR: Final = 10.0
"""A pause between time stamps of this many usual ones is a gap."""


class RewardOutlier(BaseModel):
    """A reward far beyond all others.

    Attributes:
        episode: index of its episode.
        row: step in the episode.
        reward: its value.
        factor: its distance from the median reward, as a multiple of the farthest of the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode: int
    row: int
    reward: float
    factor: float

    remedy: ClassVar[str] = "Repair the row, or leave the episode out, unless the task itself pays so much."

    def describe(self) -> str:
        """What was found, a sentence without its stop."""
        return (
            f"The reward {self.reward:g} in episode {self.episode}, row {self.row}, is {self.factor:.3g} "
            "times farther from the median than all others"
        )


class TimeGaps(BaseModel):
    """Pauses between two time stamps that are much longer than usual.

    Attributes:
        count: how many.
        episode: index of the episode with the longest one.
        row: step in that episode.
        seconds: length of the longest one.
        usual: median pause, seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    episode: int
    row: int
    seconds: float
    usual: float


def hash_rows(*arrays: NDArray[Any]) -> NDArray[np.uint64]:
    """`[n]` 64-bit hashes of rows of float32; equal rows have equal hashes, and -0.0 equals 0.0."""
    digest = np.full(len(arrays[0]), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for array in arrays:
        bits = (np.ascontiguousarray(array, dtype=np.float32) + np.float32(0.0)).view(np.uint32)
        for column in bits.reshape(len(digest), -1).T:
            digest ^= column
            digest *= np.uint64(0xBF58476D1CE4E5B9)
            digest ^= digest >> np.uint64(29)
    return digest


def _hash_transitions(rows: Transitions) -> NDArray[np.uint64]:
    flags = rows.terminated.astype(np.float32)
    return hash_rows(rows.observation, rows.action, rows.reward, rows.next_observation, flags)


def _is_still(rows: Transitions, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """`[n]`, equal to the row before it in the same episode."""
    is_still = np.zeros(len(hashes), dtype=np.bool_)
    is_still[1:] = (hashes[1:] == hashes[:-1]) & (rows.episode[1:] == rows.episode[:-1])
    return is_still


def count_still(rows: Transitions) -> int:
    """Transitions that equal the one before them in every number: the machine stands still."""
    return int(_is_still(rows, _hash_transitions(rows)).sum())


def count_copies(rows: Transitions) -> int:
    """Transitions in stretches of 8 that repeat those of an earlier episode number by number.

    Of an episode shorter than that, the whole has to be repeated. Stretches that stand still do not count:
    two machines at rest look alike without being copies.
    """
    return int(find_copied_rows(_hash_transitions(rows), rows.episode).sum())


def find_copied_rows(hashes: NDArray[np.uint64], episode: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`[n]`, rows in stretches of 8 that repeat those of an earlier episode, as in `count_copies`.

    Args:
        hashes: `[n]` one for each row; equal rows have equal ones.
        episode: `[n]` ascending numbers.
    """
    moves = np.ones(len(hashes), dtype=np.bool_)
    moves[1:] = (hashes[1:] != hashes[:-1]) | (episode[1:] != episode[:-1])
    count = len(hashes)
    ends = np.searchsorted(episode, episode, side="right")
    is_first = np.ones(count, dtype=np.bool_)
    is_first[1:] = episode[1:] != episode[:-1]
    span = np.minimum(COPIED_ROWS, ends - np.arange(count))  # rows of the window that starts here
    starts = np.flatnonzero((span == COPIED_ROWS) | is_first)
    digest = span[starts].astype(np.uint64)
    is_moving = span[starts] == 1  # a lone row neither moves nor stands still
    for ahead in range(COPIED_ROWS):
        is_in = ahead < span[starts]
        index = np.minimum(starts + ahead, count - 1)
        digest = np.where(is_in, _mix(digest, hashes[index]), digest)
        is_moving |= is_in & moves[index] & (ahead > 0)
    _, first, inverse = np.unique(digest, return_index=True, return_inverse=True)
    is_copy = is_moving & (episode[starts[first[inverse.reshape(-1)]]] != episode[starts])
    covered = np.zeros(count + 1, dtype=np.int64)  # +1 where a copied window starts, -1 behind its end
    np.add.at(covered, starts[is_copy], 1)
    np.add.at(covered, (starts + span[starts])[is_copy], -1)
    return np.asarray(np.cumsum(covered)[:count] > 0)


def _mix(digest: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (digest ^ values) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


def count_inconsistent(rows: Transitions) -> int:
    """Transitions whose `(s, a)` occurred before with a successor 0.1 usual steps off or more."""
    known = rows.successors_known()
    if len(known) < 2:
        return 0
    _, first, inverse = np.unique(
        hash_rows(known.observation, known.action), return_index=True, return_inverse=True
    )
    is_repeat = first[inverse] != np.arange(len(known))
    _, scale = fit_moments(known.next_observation - known.observation)
    gap = known.next_observation[is_repeat] - known.next_observation[first[inverse[is_repeat]]]
    return int((np.abs(gap) > 0.1 * scale).any(axis=1).sum())


def count_jumps(rows: Transitions) -> int:
    """Transitions of a length that suggests a wrong successor or a reset without a flag.

    Lengths are root-mean-squares over dimensions in standard deviations of the observations; a jump is
    longer than half a standard deviation and than 8 times the 99 % quantile or 40 times the median.
    """
    known = rows.successors_known()
    if len(known) < 2:
        return 0
    _, scale = fit_moments(known.observation)
    length = np.sqrt(np.square((known.next_observation - known.observation) / scale).mean(axis=1))
    usual = min(JUMP_FACTOR * float(np.quantile(length, 0.99)), 40.0 * float(np.median(length)))
    return int((length > max(usual, 0.5)).sum())


def find_reward_outliers(rows: Transitions) -> tuple[RewardOutlier, ...]:
    """The rewards far beyond all others (`PlausibleRange.of_all_but_few`), the farthest first; ten at most.

    Rewards at the end of an episode are often large on purpose.
    """
    reward = rows.reward.astype(np.float64)
    if len(reward) < 20:
        return ()
    plausible = PlausibleRange.of_all_but_few(torch.from_numpy(reward))
    is_far = plausible.is_outlier(torch.from_numpy(reward)).numpy()
    median = float(np.median(reward))
    distance = np.abs(reward - median)
    is_outlying = is_far & ~(rows.terminated & (distance <= OUTLIER_SIZE))
    scale = float(distance[~is_far].max()) or max(abs(median), 1.0)
    order = np.argsort(-distance, kind="stable")
    return tuple(
        RewardOutlier(
            episode=int(rows.episode[row]),
            row=int(rows.step[row]),
            reward=float(reward[row]),
            factor=float(distance[row] / scale),
        )
        for row in order[is_outlying[order]][:MAX_OUTLIERS]
    )


def find_time_gaps(dataset: Dataset) -> TimeGaps | None:
    """Pauses of more than ten usual ones between two time stamps of an episode; None if there are none."""
    timed = [(k, episode.timestamps) for k, episode in enumerate(dataset.episodes)]
    pauses = {k: np.diff(times) for k, times in timed if times is not None}
    if not pauses:
        return None
    whole = np.concatenate(list(pauses.values()))
    usual = float(np.median(whole))
    count = int((whole > GAP_FACTOR * usual).sum())
    if count == 0:
        return None
    episode = max(pauses, key=lambda k: float(pauses[k].max()))
    row = int(pauses[episode].argmax())
    return TimeGaps(count=count, episode=episode, row=row, seconds=float(pauses[episode][row]), usual=usual)
