"""The steps of a dataset, flat: what learners and statistics read."""

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.types import TransitionBatch


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """All steps of a dataset in order, flat and read-only.

    Attributes:
        observation: `[n, obs_dim]` float32, raw units.
        action: `[n, act_dim]` float32, environment units.
        reward: `[n]` float32; NaN in a dataset without rewards.
        next_observation: `[n, obs_dim]` float32, the true successor, also at a truncation.
        terminated: `[n]`, the MDP ended with this step.
        truncated: `[n]`, the log was cut after this step.
        episode: `[n]` int64, index of the episode in the dataset; rows follow each other within one.
        unit: `[n]` int64, what is drawn again where whole episodes are resampled (`Dataset.units`).
        step: `[n]` int64, index of the step in its logged episode.
        is_successor_known: `[n]`, False where a terminal successor was not logged; `next_observation` then
            repeats `observation` and must not be learned from.
        next_action: `[n, act_dim]` float32, that of the next step of the same episode; zeros without one.
        has_next_action: `[n]`, False in the last step of an episode.
    """

    observation: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    next_observation: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode: NDArray[np.int64]
    unit: NDArray[np.int64]
    step: NDArray[np.int64]
    is_successor_known: NDArray[np.bool_]
    next_action: NDArray[np.float32]
    has_next_action: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            getattr(self, field.name).setflags(write=False)

    def __len__(self) -> int:
        return self.reward.shape[0]

    def __repr__(self) -> str:
        return (
            f"Transitions({len(self):,} rows, observations of {self.observation.shape[1]}, actions of "
            f"{self.action.shape[1]})"
        )

    def select(self, rows: NDArray[Any]) -> "Transitions":
        """The transitions of `rows` (indices or a mask)."""
        return Transitions(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def successors_known(self) -> "Transitions":
        """The transitions that dynamics may be learned from."""
        return self if bool(self.is_successor_known.all()) else self.select(self.is_successor_known)

    def to_batch(self) -> TransitionBatch:
        """All transitions as one float32 batch of real data; a copy."""
        return TransitionBatch(
            observation=torch.tensor(self.observation),
            action=torch.tensor(self.action),
            reward=torch.tensor(self.reward),
            next_observation=torch.tensor(self.next_observation),
            terminated=torch.tensor(self.terminated),
            from_model=torch.zeros(len(self), dtype=torch.bool),
            next_action=torch.tensor(self.next_action),
            has_next_action=torch.tensor(self.has_next_action),
        )
