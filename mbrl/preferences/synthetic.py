"""Answers of made-up annotators, who know a reward: for tests, and to ask how many answers a task takes.

Source: the teachers of B-Pref, Lee et al. 2021 (arXiv:2111.03026), eq. 4 and section 4.1.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.preferences.pairs import Label, Preference, PreferenceSet, Segment

SYNTHETIC: Final = "synthetic"
"""Name of the annotator."""


class TeacherConfig(BaseModel):
    """How an annotator who knows the reward answers.

    Attributes:
        noise: probability that an answer is turned around, 0 to 0.5; 0.5 says nothing.
        myopia: gamma of the sums `sum_t gamma^(length - 1 - t) r_t`: below 1 the last steps of a segment
            weigh most, as they are remembered best.
        rationality: beta of `P(left) = 1 / (1 + exp(-beta (left - right)))`, in 1 / reward units; None always
            answers by the larger sum.
        equal_margin: segments whose sums differ by less are equal, reward units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    myopia: Annotated[float, Field(gt=0, le=1)] = 1.0
    rationality: Annotated[float, Field(gt=0, le=1e9)] | None = None
    equal_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def draw_pairs(
    dataset: Dataset, *, count: int, length: int, seed: int = 0
) -> tuple[tuple[Segment, Segment], ...]:
    """Pairs of segments, every window of that length being as likely as every other.

    Args:
        dataset: the log.
        count: of pairs, at least 1.
        length: steps of a segment, at least 1.
        seed: of the draws.

    Raises:
        DataError: no two windows of that length are there.
    """
    windows = np.maximum(dataset.episode_lengths - length + 1, 0)
    ends = np.cumsum(windows)
    total = int(ends[-1])
    if total < 2:
        longest = int(dataset.episode_lengths.max())
        raise DataError(
            f"segments of {length} steps leave {total} to choose from; the longest episode has {longest}",
            field="length",
            remedy="Ask for shorter segments.",
        )
    rng = np.random.default_rng(RngStreams(seed).integer("pairs"))
    left = rng.integers(total, size=count)
    # Any other window: a segment is not held against itself.
    right = (left + 1 + rng.integers(total - 1, size=count)) % total

    def segment(window: int) -> Segment:
        episode = int(np.searchsorted(ends, window, side="right"))
        return Segment(episode, int(window - (ends[episode] - windows[episode])), length)

    return tuple((segment(int(a)), segment(int(b))) for a, b in zip(left, right, strict=True))


def answer_pairs(
    dataset: Dataset,
    pairs: Sequence[tuple[Segment, Segment]],
    teacher: TeacherConfig | None = None,
    *,
    rewards: Sequence[NDArray[np.floating]] | None = None,
    seed: int = 0,
) -> PreferenceSet:
    """What an annotator who knows the reward says of pairs.

    Args:
        dataset: the log.
        pairs: of its segments.
        teacher: how answers follow from rewards; an infallible one when None.
        rewards: `[T]` for each episode, the reward that the annotator has in mind; None takes the log's.
        seed: of noise and draws.

    Raises:
        DataError: the log has no rewards and none are given, or a segment is not in it.
    """
    teacher = teacher or TeacherConfig()
    if rewards is None:
        dataset.require_rewards("A made-up annotator")
        rewards = [episode.rewards for episode in dataset.episodes]
    rng = np.random.default_rng(RngStreams(seed).integer("answers"))
    # All draws at once: an answer does not depend on what the others turned out to be.
    chance, slips = rng.random(len(pairs)), rng.random(len(pairs)) < teacher.noise
    answers: list[Preference] = []
    for k, (left, right) in enumerate(pairs):
        gap = _weighted_sum(rewards, left, teacher.myopia) - _weighted_sum(rewards, right, teacher.myopia)
        label = _choose(gap, float(chance[k]), teacher)
        answer = Preference(left, right, label, annotator=SYNTHETIC)
        answers.append(
            Preference(left, right, answer.mirrored.label, annotator=SYNTHETIC) if slips[k] else answer
        )
    made = PreferenceSet(dataset.content_hash, tuple(answers))
    made.require_log(dataset)
    return made


def _choose(gap: float, chance: float, teacher: TeacherConfig) -> Label:
    if abs(gap) < teacher.equal_margin or gap == 0:
        return "equal"
    if teacher.rationality is None:
        return "left" if gap > 0 else "right"
    # tanh does not overflow: (1 + tanh(x / 2)) / 2 is the logistic function.
    return "left" if chance < 0.5 * (1 + np.tanh(0.5 * teacher.rationality * gap)) else "right"


def _weighted_sum(rewards: Sequence[NDArray[np.floating]], segment: Segment, myopia: float) -> float:
    part = np.asarray(rewards[segment.episode][segment.start : segment.end], dtype=np.float64)
    weights = myopia ** np.arange(len(part) - 1, -1, -1, dtype=np.float64)
    return float(part @ weights)
