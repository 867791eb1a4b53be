"""Labelled steps as tensors: of labels of episodes and stretches, or of a column of the log."""

import dataclasses
import hashlib
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.names import listed, suggest
from mbrl.data.dataset import Dataset
from mbrl.data.flags import read_flags
from mbrl.preferences.segments import log_steps
from mbrl.preferences.success.labels import SuccessLabel, SuccessLabels

LastSteps: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
"""Steps at the end of an episode that its label is about."""

Earlier: TypeAlias = Literal["unknown", "failure"]
"""What the steps before those are: nobody said, or failures."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LabelledSteps:
    """Steps of a log of which somebody said whether they succeeded.

    Attributes:
        observation: `[steps, obs_dim]`, of all episodes one after the other, raw units.
        action: `[steps, act_dim]`, environment units.
        rows: `[n]`, steps that are labelled, ascending.
        target: `[n]`, probability of success: 0 or 1, between them where labels contradict each other.
        episode: `[n]`, of each labelled step.
        of_episodes: whether a column said the same in all steps of every episode, and was read as labels of
            whole episodes.
    """

    observation: Float[Tensor, "steps obs_dim"]
    action: Float[Tensor, "steps act_dim"]
    rows: Int[Tensor, "n"]
    target: Float[Tensor, "n"]
    episode: Int[Tensor, "n"]
    of_episodes: bool = False

    def __len__(self) -> int:
        return self.target.shape[0]

    def take(self, index: Int[Tensor, "k"]) -> "LabelledSteps":
        """Some of the labelled steps."""
        return dataclasses.replace(
            self, rows=self.rows[index], target=self.target[index], episode=self.episode[index]
        )

    def digest(self) -> str:
        """Hex digest (blake2b, 16 bytes) of which steps are labelled as what."""
        content = self.rows.numpy().astype("<i8").tobytes() + self.target.numpy().astype("<f4").tobytes()
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def inputs(self) -> tuple[Float[Tensor, "n obs_dim"], Float[Tensor, "n act_dim"]]:
        """States and actions of the labelled steps."""
        return self.observation[self.rows], self.action[self.rows]


def steps_of_labels(
    dataset: Dataset, labels: SuccessLabels, *, last_steps: int = 1, earlier: Earlier = "unknown"
) -> LabelledSteps:
    """The steps that labels are about.

    Args:
        dataset: the log.
        labels: of its episodes or stretches.
        last_steps: of an episode that a label of the whole of it is about.
        earlier: what the steps before those are.

    Raises:
        DataError: the labels are about another log, or nothing but skips.
    """
    labels.require_log(dataset)
    told = [label for label in labels.labels if label.outcome != "skip"]
    if not told:
        raise DataError(
            f"none of {len(labels)} labels says success or failure", remedy="Label episodes, or stretches."
        )
    return _labelled(dataset, told, last_steps=last_steps, earlier=earlier)


def steps_of_column(
    dataset: Dataset, column: str, *, last_steps: int = 1, earlier: Earlier = "unknown"
) -> LabelledSteps:
    """Every step, labelled by a column of flags of the log, such as `next.success` of LeRobot.

    A column with a value for every observation labels a step by what it led to. One that says the same in all
    steps of every episode is a label of episodes: it is read as `steps_of_labels` reads those.

    Args:
        dataset: the log.
        column: name of one of its infos.
        last_steps: see `steps_of_labels`; of labels of episodes alone.
        earlier: likewise.

    Raises:
        DataError: there is no such column, or it holds something but 0 and 1.
    """
    flags = [_flags(dataset, index, column) for index in range(len(dataset))]
    if all(bool((values == values[0]).all()) for values in flags):
        told = [
            SuccessLabel(index, "success" if bool(values[0]) else "failure")
            for index, values in enumerate(flags)
        ]
        found = _labelled(dataset, told, last_steps=last_steps, earlier=earlier)
        return dataclasses.replace(found, of_episodes=True)
    observation, action = log_steps(dataset)
    episode = np.repeat(np.arange(len(dataset)), dataset.episode_lengths)
    target = np.concatenate(flags).astype(np.float32)
    return LabelledSteps(
        observation,
        action,
        torch.arange(len(observation)),
        torch.from_numpy(target),
        torch.from_numpy(episode),
    )


def _labelled(
    dataset: Dataset, told: list[SuccessLabel], *, last_steps: int, earlier: Earlier
) -> LabelledSteps:
    lengths = np.asarray(dataset.episode_lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    steps = int(lengths.sum())
    successes, counts = np.zeros(steps), np.zeros(steps)
    for label in told:
        first, count = int(starts[label.episode]), int(lengths[label.episode])
        segment = label.segment()
        begin = max(0, count - last_steps) if segment is None else segment.start
        end = count if segment is None else segment.end
        successes[first + begin : first + end] += label.outcome == "success"
        counts[first + begin : first + end] += 1
        if segment is None and earlier == "failure":
            counts[first : first + begin] += 1
    rows = np.flatnonzero(counts)
    target = (successes[rows] / counts[rows]).astype(np.float32)
    episode = np.repeat(np.arange(len(dataset)), lengths)[rows]
    observation, action = log_steps(dataset)
    return LabelledSteps(
        observation, action, torch.from_numpy(rows), torch.from_numpy(target), torch.from_numpy(episode)
    )


def _flags(dataset: Dataset, index: int, column: str) -> NDArray[np.bool_]:
    episode = dataset.episodes[index]
    values = episode.infos.get(column)
    if values is None:
        names = sorted(episode.infos)
        raise DataError(
            f"there is no column {column!r}. {suggest(column, names)}There are: {listed(names) or 'none'}",
            episode=index,
            remedy="Name one of them, or give a file of labels.",
        )

    def report(problem: str, **places: Any) -> DataError:
        return DataError(problem, episode=index, **places)

    # What is noted beside observations follows the step: its first value is from before the first step.
    steps = len(episode)
    return read_flags(values[len(values) - steps :], report, field=column, count=steps)
