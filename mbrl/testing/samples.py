"""A small log, a model of it that fits in well under a second, and what learners are told of both."""

import dataclasses
import functools
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.protocols import BatchSource
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, OnPolicyBatch, SpaceSpec, TransitionBatch
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.normaliser import fit_moments
from mbrl.data.sources import DatasetSource, DemonstrationSource, OnPolicySource
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.learners.base import BatchKind
from mbrl.nets.normaliser import Normaliser
from mbrl.preferences.segments import SegmentPairs
from mbrl.preferences.source import PreferenceSource
from mbrl.preferences.synthetic import answer_pairs, draw_pairs
from mbrl.uncertainty.held_out import held_out_measures

SPACE: Final = SpaceSpec(obs_dim=3, act_dim=2, act_low=(-1.0, -2.0), act_high=(1.0, 0.5))
"""Bounds that are neither symmetric nor 1: code that forgets to scale actions is found out."""

CHOICES: Final = SpaceSpec.discrete(3, ("down", "stay", "up"))
"""The same task with three choices."""

TINY_DYNAMICS: Final[dict[str, Any]] = {
    "members": 3,
    "elites": 2,
    "hidden": [8],
    "max_updates": 40,
    "min_epoch_updates": 10,
    "max_epoch_updates": 10,
    "assessment": {"horizon": 3, "segments": 4, "particles": 4, "bootstrap_draws": 10, "max_rows": 200},
    "termination": {"hidden": [8], "max_updates": 20},
}
"""Settings of an ensemble that is fitted in a moment, and is good for nothing else."""


def make_episodes(
    count: int = 12, steps: int = 30, seed: int = 0, *, space: SpaceSpec = SPACE
) -> tuple[Episode, ...]:
    """Stable linear dynamics with noise; every third episode terminates, the others are truncated.

    Args:
        count: episodes.
        steps: of each.
        seed: of all draws.
        space: `SPACE`, or `CHOICES`, whose actions are one-hot and push by -1, 0 or 1.
    """
    rng = np.random.default_rng(seed)
    episodes: list[Episode] = []
    for index in range(count):
        obs = np.zeros((steps + 1, 3), dtype=np.float32)
        obs[0] = rng.normal(size=3)
        actions, push = _actions(rng, steps, space)
        for t in range(steps):
            obs[t + 1] = 0.9 * obs[t] + 0.1 * push[t] + 0.01 * rng.normal(size=3)
        rewards = (-np.square(obs[:-1]).sum(1)).astype(np.float32)
        ends = index % 3 == 0
        episodes.append(Episode(obs, actions, rewards, terminated=ends, truncated=not ends))
    return tuple(episodes)


def _actions(
    rng: np.random.Generator, steps: int, space: SpaceSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Actions of an episode, and what each pushes by."""
    if space.is_discrete:
        index = rng.integers(space.act_dim, size=steps)
        return np.eye(space.act_dim, dtype=np.float32)[index], index.astype(np.float32) - 1
    low, high = np.array(space.act_low), np.array(space.act_high)
    actions = rng.uniform(low, high, size=(steps, space.act_dim)).astype(np.float32)
    return actions, actions.sum(1)


def make_dataset(count: int = 12, steps: int = 30, seed: int = 0, *, space: SpaceSpec = SPACE) -> Dataset:
    """The episodes of `make_episodes` as a log."""
    return Dataset(make_episodes(count, steps, seed, space=space), space, DatasetInfo(name="toy"))


def make_transitions(space: SpaceSpec = SPACE) -> TransitionBatch:
    """All steps of the log, 360 rows."""
    return make_dataset(space=space).transitions().to_batch()


def make_batch(kind: BatchKind, space: SpaceSpec = SPACE) -> TransitionBatch:
    """The same rows as a learner of that kind of batch reads them."""
    rows = make_transitions(space)
    if kind in {"demonstrations", "preferences"}:
        return make_source(kind, space).sample(len(rows), torch.Generator().manual_seed(0))
    return as_on_policy(rows) if kind == "on_policy" else rows


def make_source(kind: BatchKind, space: SpaceSpec = SPACE) -> BatchSource:
    """Where such a learner draws them."""
    rows = make_transitions(space)
    if kind == "transitions":
        return DatasetSource(rows)
    if kind == "demonstrations":
        return DemonstrationSource(DatasetSource(rows), make_expert(space), rows.observation[:5], 8)
    if kind == "preferences":
        return PreferenceSource(rows, make_preferences(space), 4)
    source = OnPolicySource()
    source.replace(as_on_policy(rows))
    return source


def make_expert(space: SpaceSpec = SPACE) -> TransitionBatch:
    """Two episodes of other start states, as if somebody had shown them."""
    return make_dataset(2, 30, seed=7, space=space).transitions().to_batch()


def as_on_policy(rows: TransitionBatch) -> OnPolicyBatch:
    """Rows as if a wide policy had taken them, with advantages that are the rewards."""
    known = {field.name: getattr(rows, field.name) for field in dataclasses.fields(TransitionBatch)}
    spread = rows.action.square().sum(-1)
    return OnPolicyBatch(**known, log_prob=-1 - spread, advantage=rows.reward, value=rows.observation.sum(-1))


def make_normaliser(space: SpaceSpec = SPACE) -> Normaliser:
    """Of the log's observations."""
    mean, std = fit_moments(make_dataset(space=space).transitions().observation)
    return Normaliser(torch.from_numpy(mean), torch.from_numpy(std))


def make_preferences(space: SpaceSpec = SPACE) -> SegmentPairs:
    """Twenty pairs of the log's segments, answered by its rewards."""
    log = make_dataset(space=space)
    return SegmentPairs.of(log, answer_pairs(log, draw_pairs(log, count=20, length=5)))


@functools.cache
def fitted_dynamics(space: SpaceSpec = SPACE) -> FittedDynamics:
    """The model of the log with the settings `TINY_DYNAMICS`; fitted once in a process."""
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    return fit_dynamics(make_dataset(space=space), config, RngStreams(0), measures=held_out_measures)
