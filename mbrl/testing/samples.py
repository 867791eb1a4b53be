"""A small log, a model of it that fits in well under a second, and what learners are told of both."""

import dataclasses
import functools
from typing import Any, Final

import numpy as np
import torch

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
from mbrl.preferences.synthetic import answer_pairs, draw_pairs
from mbrl.uncertainty.held_out import held_out_measures

SPACE: Final = SpaceSpec(obs_dim=3, act_dim=2, act_low=(-1.0, -2.0), act_high=(1.0, 0.5))
"""Bounds that are neither symmetric nor 1: code that forgets to scale actions is found out."""

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


def make_episodes(count: int = 12, steps: int = 30, seed: int = 0) -> tuple[Episode, ...]:
    """Stable linear dynamics with noise; every third episode terminates, the others are truncated."""
    rng = np.random.default_rng(seed)
    episodes: list[Episode] = []
    for index in range(count):
        obs = np.zeros((steps + 1, 3), dtype=np.float32)
        obs[0] = rng.normal(size=3)
        low, high = np.array(SPACE.act_low), np.array(SPACE.act_high)
        actions = rng.uniform(low, high, size=(steps, 2)).astype(np.float32)
        for t in range(steps):
            obs[t + 1] = 0.9 * obs[t] + 0.1 * actions[t].sum() + 0.01 * rng.normal(size=3)
        rewards = (-np.square(obs[:-1]).sum(1)).astype(np.float32)
        ends = index % 3 == 0
        episodes.append(Episode(obs, actions, rewards, terminated=ends, truncated=not ends))
    return tuple(episodes)


def make_dataset(count: int = 12, steps: int = 30, seed: int = 0) -> Dataset:
    """The episodes of `make_episodes` as a log of the space `SPACE`."""
    return Dataset(make_episodes(count, steps, seed), SPACE, DatasetInfo(name="toy"))


def make_transitions() -> TransitionBatch:
    """All steps of the log, 360 rows."""
    return make_dataset().transitions().to_batch()


def make_batch(kind: BatchKind) -> TransitionBatch:
    """The same rows as a learner of that kind of batch reads them."""
    rows = make_transitions()
    if kind == "demonstrations":
        return make_source(kind).sample(len(rows), torch.Generator().manual_seed(0))
    return as_on_policy(rows) if kind == "on_policy" else rows


def make_source(kind: BatchKind) -> BatchSource:
    """Where such a learner draws them."""
    rows = make_transitions()
    if kind == "transitions":
        return DatasetSource(rows)
    if kind == "demonstrations":
        return DemonstrationSource(DatasetSource(rows), make_expert(), rows.observation[:5], 8)
    source = OnPolicySource()
    source.replace(as_on_policy(rows))
    return source


def make_expert() -> TransitionBatch:
    """Two episodes of other start states, as if somebody had shown them."""
    return make_dataset(2, 30, seed=7).transitions().to_batch()


def as_on_policy(rows: TransitionBatch) -> OnPolicyBatch:
    """Rows as if a wide policy had taken them, with advantages that are the rewards."""
    known = {field.name: getattr(rows, field.name) for field in dataclasses.fields(TransitionBatch)}
    spread = rows.action.square().sum(-1)
    return OnPolicyBatch(**known, log_prob=-1 - spread, advantage=rows.reward, value=rows.observation.sum(-1))


def make_normaliser() -> Normaliser:
    """Of the log's observations."""
    mean, std = fit_moments(make_dataset().transitions().observation)
    return Normaliser(torch.from_numpy(mean), torch.from_numpy(std))


def make_preferences() -> SegmentPairs:
    """Twenty pairs of the log's segments, answered by its rewards."""
    log = make_dataset()
    return SegmentPairs.of(log, answer_pairs(log, draw_pairs(log, count=20, length=5)))


@functools.cache
def fitted_dynamics() -> FittedDynamics:
    """The model of the log with the settings `TINY_DYNAMICS`; fitted once in a process."""
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    return fit_dynamics(make_dataset(), config, RngStreams(0), measures=held_out_measures)
