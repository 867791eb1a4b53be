"""How many steps the whole task has, as far as a log tells, and which episodes were cut before."""

import dataclasses
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.envs.specs import TaskSpec

HorizonSource: TypeAlias = Literal["asked", "task", "log", "truncations", "longest"]
"""Who says how long the task is: the user, the given task, the log's description, the length at which most
truncated episodes end, or nobody, so that it is the longest episode."""

LIMIT_SLACK: Final = 0.01
"""Share by which lengths of episodes that one time limit cut may differ: a machine's clock is not exact."""

SOURCE_WORDS: Final[dict[HorizonSource, str]] = {
    "asked": "as asked",
    "task": "the time limit of the task",
    "log": "the time limit that the log states",
    "truncations": "the length at which most truncated episodes of the log end",
    "longest": "the longest episode of the log, which states no time limit",
}
"""Each of them in words."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TaskHorizon:
    """How long an episode of the task is at most, and what of the log is shorter than it should be.

    Attributes:
        steps: H, the longest that an episode may last.
        source: who says so.
        censored: `[n]`, episodes of the log that were cut before H and did not end by themselves: what would
            have followed is not known. They never shorten the question.
    """

    steps: int
    source: HorizonSource
    censored: NDArray[np.bool_]

    def __post_init__(self) -> None:
        self.censored.setflags(write=False)

    @property
    def source_words(self) -> str:
        """`the time limit that the log states`, say."""
        return SOURCE_WORDS[self.source]

    @property
    def words(self) -> str:
        """`mean return of an episode of at most 1,000 steps`, say."""
        return self.estimand().words

    def estimand(self, discount: float = 1.0) -> Estimand:
        """The value of the whole task; at a discount of 1, as returns are reported.

        Raises:
            EstimandError: the discount does not lie in [0, 1].
        """
        return Estimand(discount, self.steps)


def task_horizon(dataset: Dataset, task: TaskSpec | None = None, *, steps: int | None = None) -> TaskHorizon:
    """The horizon of the whole task.

    In this order: what is asked for; the limit of the given task; the limit that the log's description
    states; the length at which more than half of the truncated episodes end, if none went on for longer (they
    may differ by `LIMIT_SLACK`, counted from the least); the longest episode. An episode that was cut
    anywhere else is censored, and says nothing of the limit.

    Args:
        dataset: n episodes.
        task: the task that is asked about, where it is known apart from the log.
        steps: what is asked for; None for the whole task.

    Raises:
        EstimandError: fewer than one step is asked for.
    """
    found, source = _limit(dataset, task, steps)
    _ = Estimand(1.0, found)  # raises where the number makes no sense
    ends = np.array([episode.first_step + len(episode) for episode in dataset.episodes])
    is_open = np.array([not episode.terminated for episode in dataset.episodes])
    return TaskHorizon(found, source, (ends < found) & is_open)


def _limit(dataset: Dataset, task: TaskSpec | None, steps: int | None) -> tuple[int, HorizonSource]:
    if steps is not None:
        return steps, "asked"
    if task is not None and task.max_episode_steps is not None:
        return task.max_episode_steps, "task"
    if dataset.info.max_episode_steps is not None:
        return dataset.info.max_episode_steps, "log"
    episodes = dataset.logged_episodes
    longest = max(map(len, episodes))
    cut = np.array([len(episode) for episode in episodes if not episode.terminated], dtype=np.int64)
    shown = _common_length(cut, longest)
    return (longest, "longest") if shown is None else (shown, "truncations")


def _common_length(cut: NDArray[np.int64], longest: int) -> int | None:
    """The length at which more than half of the truncated episodes end, and no episode goes on for longer."""
    for slack in (0.0, LIMIT_SLACK):  # one exact length before several that are nearly the same
        last = (cut * (1.0 + slack)).astype(np.int64)
        counts = ((cut >= cut[:, None]) & (cut <= last[:, None])).sum(1)
        fits = (counts > max(1, len(cut) / 2)) & (last >= longest)
        if fits.any():  # the length that most of them share, the longest among equals
            return int(max(zip(counts[fits].tolist(), cut[fits].tolist(), strict=True))[1])
    return None
