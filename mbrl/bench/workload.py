"""Sizes of the work and the data that it is done on: Hopper's, random, the same for every contender."""

import dataclasses
from typing import Any

import torch

from mbrl.bench.peers.worker import random_log
from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.ops.choices import one_hot

TASK = "halfcheetah"
"""Task of the evaluation: its episodes are equally long for every policy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """How much of what.

    Attributes:
        obs_dim: size of an observation.
        act_dim: size of an action.
        transitions: rows of the log.
        batch_size: rows of an update.
        starts: rollouts of one refresh.
        horizon: steps of a rollout.
        members: networks of the dynamics ensemble.
        elites: members that rollouts use.
        dynamics_hidden: widths of the ensemble's hidden layers.
        episodes: of one evaluation.
        threads: of torch, in every contender.
        seed: of data and weights.
        device: where our contenders compute.
    """

    obs_dim: int = 11
    act_dim: int = 3
    transitions: int = 100_000
    batch_size: int = 256
    starts: int = 50_000
    horizon: int = 5
    members: int = 7
    elites: int = 5
    dynamics_hidden: tuple[int, ...] = (200, 200, 200, 200)
    episodes: int = 10
    threads: int = 1
    seed: int = 0
    device: str = "cpu"
    has_choices: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values; `Workload(**values)` is the inverse up to lists."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Workload":
        """Inverse of `to_json`."""
        fields: dict[str, Any] = {**values, "dynamics_hidden": tuple(values["dynamics_hidden"])}
        return cls(**fields)

    @property
    def place(self) -> torch.device:
        """The device; `mbrl.core.device.find_device` has refused one that is not there."""
        return torch.device(self.device)

    @property
    def space(self) -> SpaceSpec:
        """Actions in [-1, 1], or as many choices as an action has dimensions."""
        if self.has_choices:
            return SpaceSpec.discrete(self.obs_dim, self.act_dim)
        low, high = (-1.0,) * self.act_dim, (1.0,) * self.act_dim
        return SpaceSpec(self.obs_dim, self.act_dim, low, high)

    def log(self) -> TransitionBatch:
        """The random log; the successor of an episode's last row is the next row, which costs the same."""
        log = {name: torch.from_numpy(values) for name, values in random_log(self.to_json()).items()}
        is_last = log["truncated"] > 0
        if self.has_choices:
            log["actions"] = one_hot(log["actions"].argmax(1), self.act_dim)
        return TransitionBatch(
            observation=log["observations"],
            action=log["actions"],
            reward=log["rewards"],
            next_observation=log["observations"].roll(-1, 0),
            terminated=torch.zeros_like(is_last),
            from_model=torch.zeros_like(is_last),
            next_action=log["actions"].roll(-1, 0),
            has_next_action=~is_last,
        )
