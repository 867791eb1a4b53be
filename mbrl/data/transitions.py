"""The steps of a dataset, flat: what learners and statistics read."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.types import Episode, TransitionBatch
from mbrl.data.choices.masks import episode_mask
from mbrl.data.stored.gathered import Rows, StoredRows, is_stored
from mbrl.data.stored.memory import require_memory

_VECTORS: Final = ("observation", "action", "next_observation", "next_action")
"""Columns that take most of a dataset, and may stay on disk."""


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
        action_mask: `[n, act_dim]`, the choices that were allowed in `observation`; None where no episode
            has masks. An episode without them allowed all, and so does a state without any that is allowed.
        next_action_mask: `[n, act_dim]`, likewise in `next_observation`.
        stored: the file where observations and actions lie, if they are on disk: these and their successors
            are then read where they are indexed (`mbrl.data.stored.gathered`). None in memory.
    """

    observation: Rows
    action: Rows
    reward: NDArray[np.float32]
    next_observation: Rows
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode: NDArray[np.int64]
    unit: NDArray[np.int64]
    step: NDArray[np.int64]
    is_successor_known: NDArray[np.bool_]
    next_action: Rows
    has_next_action: NDArray[np.bool_]
    action_mask: NDArray[np.bool_] | None = None
    next_action_mask: NDArray[np.bool_] | None = None
    stored: StoredRows | None = None

    def __post_init__(self) -> None:
        for array in self._arrays().values():
            array.setflags(write=False)

    def _arrays(self) -> dict[str, Rows]:
        """Those that are there, by name."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "stored"]
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}

    def __len__(self) -> int:
        return self.reward.shape[0]

    def __repr__(self) -> str:
        return (
            f"Transitions({len(self):,} rows, observations of {self.observation.shape[1]}, actions of "
            f"{self.action.shape[1]})"
        )

    def select(self, rows: NDArray[Any]) -> "Transitions":
        """The transitions of `rows` (indices or a mask)."""
        chosen: dict[str, Any] = {name: array[rows] for name, array in self._arrays().items()}
        return Transitions(**chosen)

    def in_memory(self) -> "Transitions":
        """The same steps as arrays in memory; themselves where they are that already.

        Raises:
            DataError: the memory does not suffice.
        """
        if self.stored is None:
            return self
        # A recipe packs them once more.
        require_memory(4 * self.stored.rows.nbytes, f"Loading a mapped dataset of {len(self):,} steps")
        columns = {name: np.asarray(getattr(self, name)) for name in _VECTORS}
        return dataclasses.replace(self, **columns, stored=None)

    def successors_known(self) -> "Transitions":
        """The transitions that dynamics may be learned from."""
        return self if bool(self.is_successor_known.all()) else self.select(self.is_successor_known)

    def to_batch(self) -> TransitionBatch:
        """All transitions as one float32 batch of real data; a copy.

        Raises:
            DataError: they are on disk, and the memory does not suffice.
        """
        if self.stored is not None:
            return self.in_memory().to_batch()
        return TransitionBatch(
            observation=torch.tensor(self.observation),
            action=torch.tensor(self.action),
            reward=torch.tensor(self.reward),
            next_observation=torch.tensor(self.next_observation),
            terminated=torch.tensor(self.terminated),
            from_model=torch.zeros(len(self), dtype=torch.bool),
            next_action=torch.tensor(self.next_action),
            has_next_action=torch.tensor(self.has_next_action),
            action_mask=None if self.action_mask is None else torch.tensor(self.action_mask),
            next_action_mask=None if self.next_action_mask is None else torch.tensor(self.next_action_mask),
        )


def join_steps(episodes: Sequence[Episode], units: NDArray[np.int64], *, act_dim: int) -> Transitions:
    """The steps of episodes, one episode after the other.

    Args:
        episodes: one at least.
        units: `[episodes]`, which belong together where episodes are resampled.
        act_dim: size of an action.
    """
    lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
    own = np.arange(len(episodes), dtype=np.int64)
    episode = np.repeat(own, lengths)
    last, count = np.cumsum(lengths) - 1, int(lengths.sum())
    is_last = np.zeros(count, dtype=np.bool_)
    is_last[last] = True
    stored = StoredRows.find(episodes)
    columns = _columns_in_memory(episodes, is_last) if stored is None else _columns_on_disk(stored)
    terminated, truncated, known = np.zeros_like(is_last), np.zeros_like(is_last), np.ones_like(is_last)
    terminated[last] = [episode.terminated for episode in episodes]
    truncated[last] = [episode.truncated for episode in episodes]
    known[last] = [episode.is_final_observation_known for episode in episodes]
    starts = np.repeat(last + 1 - lengths, lengths)
    first_step = np.array([episode.first_step for episode in episodes], dtype=np.int64)
    mask, next_mask = _join_masks(episodes, act_dim)
    return Transitions(
        **columns,
        reward=np.concatenate([episode.rewards for episode in episodes]),
        terminated=terminated,
        truncated=truncated,
        episode=episode,
        unit=episode if np.array_equal(units, own) else np.repeat(units, lengths),
        step=np.arange(count, dtype=np.int64) - starts + np.repeat(first_step, lengths),
        is_successor_known=known,
        has_next_action=~is_last,
        action_mask=mask,
        next_action_mask=next_mask,
        stored=stored,
    )


def _columns_on_disk(stored: StoredRows) -> dict[str, Any]:
    return {name: stored.column(name) for name in _VECTORS}


def _columns_in_memory(episodes: Sequence[Episode], is_last: NDArray[np.bool_]) -> dict[str, Any]:
    if any(is_stored(episode.observations) for episode in episodes):  # of several files, or relabelled
        size = sum(episode.observations.nbytes + episode.actions.nbytes for episode in episodes)
        require_memory(2 * size, f"{len(is_last):,} steps of several mapped files, or with other actions,")
    action = np.concatenate([episode.actions for episode in episodes])
    next_action = np.zeros_like(action)
    next_action[:-1] = action[1:]
    next_action[is_last] = 0.0
    return {
        "observation": np.concatenate([episode.observations[:-1] for episode in episodes]),
        "action": action,
        "next_observation": np.concatenate([episode.observations[1:] for episode in episodes]),
        "next_action": next_action,
    }


def _join_masks(
    episodes: Sequence[Episode], act_dim: int
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """`[n, act_dim]` masks before and after each step, or None where no episode has any."""
    whole = state_masks(episodes, act_dim)
    if whole is None:
        return None, None
    return np.concatenate([mask[:-1] for mask in whole]), np.concatenate([mask[1:] for mask in whole])


def state_masks(episodes: Sequence[Episode], act_dim: int) -> list[NDArray[np.bool_]] | None:
    """`[T + 1, act_dim]` of each episode, see `Transitions.action_mask`; None where no episode has any."""
    masks = [episode_mask(episode) for episode in episodes]
    if all(mask is None for mask in masks):
        return None
    whole: list[NDArray[np.bool_]] = []
    for episode, mask in zip(episodes, masks, strict=True):
        allowed = np.ones((len(episode) + 1, act_dim), dtype=np.bool_) if mask is None else mask
        whole.append(np.logical_or(allowed, ~allowed.any(1, keepdims=True)))
    return whole
