"""Datasets whose observations hold past frames and past actions: where one frame is not the whole state."""

import dataclasses
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.history import History, resting_action
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset

F = TypeVar("F", bound=np.floating)


def with_history(dataset: Dataset, length: int) -> Dataset:
    """The same steps with observations of `length` frames and the `length - 1` actions between them.

    Before an episode its first frame and the resting action (`resting_action`) stand for what was not logged.
    The view has as many steps as the log: what a policy sees at the start of an episode is in it.

    Args:
        dataset: of single frames.
        length: frames of an observation; 1 returns the dataset.

    Raises:
        DataError: its observations hold a history already, or `length` is below 1.
    """
    if length < 1:
        raise DataError(f"a history of {length} frames", field="history", remedy="Give 1 or more.")
    if length == 1:
        return dataset
    if dataset.info.history is not None:
        raise DataError(
            f"the observations of {dataset.info.name!r} hold {dataset.info.history.frames} frames already",
            field="history",
            remedy="Import the files without history, or leave it out here.",
        )
    history = History(length, length - 1)
    spec, rest = dataset.spec, resting_action(dataset.spec).numpy()
    info = dataclasses.replace(
        dataset.info,
        obs_names=history.names(dataset.obs_names, dataset.act_names),
        history=history,
        derived_from=dataset.content_hash,
    )
    origin = dataset.origin
    if origin is not None:
        origin = dataclasses.replace(origin, options=origin.options.model_copy(update={"history": length}))
    return dataclasses.replace(
        dataset,
        episodes=tuple(_stacked(episode, history, rest) for episode in dataset.episodes),
        spec=dataclasses.replace(spec, obs_dim=history.obs_dim(spec.obs_dim, spec.act_dim)),
        info=info,
        origin=origin,
    )


def stack_frames(
    history: History, frames: NDArray[F], actions: NDArray[F], rest: NDArray[np.float32]
) -> NDArray[F]:
    """`[T + 1, obs_dim]` observations of an episode.

    Args:
        history: frames and actions that each holds.
        frames: `[T + 1, frame_dim]`.
        actions: `[T, act_dim]`.
        rest: `[act_dim]` stands for those before the episode.
    """
    time = np.arange(len(frames))
    parts = [frames[np.maximum(time - lag, 0)] for lag in range(history.frames)]
    if history.actions > 0:
        padded = np.concatenate((np.tile(rest, (history.actions, 1)).astype(actions.dtype), actions))
        # Row t + actions of `padded` is a_t: the action `lag` steps before time t lies `lag` rows above it.
        parts += [padded[time + history.actions - lag] for lag in range(1, history.actions + 1)]
    return np.concatenate(parts, 1)


def check_history(dataset: Dataset) -> None:
    """Holds what a dataset says of its history against its observations.

    Raises:
        DataError: an older frame or action of an observation is not what was logged before it.
    """
    history = dataset.info.history
    if history is None:
        return
    size = history.frame_dim(dataset.spec.obs_dim, dataset.spec.act_dim)
    for index, episode in enumerate(dataset.episodes):
        known = len(episode) - int(not episode.is_final_observation_known)
        now, action = (
            torch.from_numpy(values[:known].copy()) for values in (episode.observations, episode.actions)
        )
        moved = history.moved(now, action).numpy()
        wrong = (moved != episode.observations[1 : known + 1, size:]).any(1)
        if wrong.any():
            raise DataError(
                f"the observation is not {history.frames} frames and {history.actions} actions, the newest "
                "first: its older part is not what the step before it held",
                episode=index,
                field="observations",
                row=int(np.argmax(wrong)) + 1,
                remedy="Make the dataset again with mbrl.with_history, or leave history out of its info.",
            )


def _stacked(episode: Episode, history: History, rest: NDArray[np.float32]) -> Episode:
    stacked = stack_frames(history, episode.observations, episode.actions, rest)
    if not episode.is_final_observation_known:
        stacked[-1] = stacked[-2]  # as every dataset has it: the successor is unknown
    return dataclasses.replace(episode, observations=stacked)
