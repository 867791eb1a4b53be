"""A learner that sees rewards in a unit of its own and tells values in reward units. No learner by itself.

Learning rates, temperatures and penalties are made for rewards of about one; a robot pays in joules or in
metres. Like observations, rewards are scaled inside the learner: whatever is outside of it, the stream, the
alarms, planners and pages, goes on in the units of the log. Rewards are scaled and never shifted: a constant
added to them changes which policy is best wherever episodes can end.
"""

import dataclasses
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.protocols import CriticValues, Learner, Policy, StateValueFn, ValueFn
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import find_phase

RETURN_METRICS: Final = frozenset(
    {
        "critic/value",
        "critic/value_max",
        "critic/value_min",
        "critic/disagreement",
        "critic/inconsistency",
    }
)
"""Metrics of learners that are values; losses, weights and temperatures stay in the learner's own units."""


class StandardisedRewards:
    """A learner whose rewards are divided by a unit; a `Learner`.

    Args:
        learner: sees rewards in units of `unit`; its state is the state.
        unit: reward units, > 0.
    """

    def __init__(self, learner: Learner[Any], unit: float) -> None:
        self.learner, self.unit = learner, unit

    def init(self, generator: torch.Generator) -> Any:
        """Fresh networks and optimisers."""
        return self.learner.init(generator)

    def update(self, state: Any, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One update of the learner on `r / unit`; metrics that are values are in reward units."""
        # Q, V and targets follow by themselves, since returns are sums of rewards.
        # Metrics that are values go back to reward units, so that runs with other units compare.
        metrics = self.learner.update(state, batch.in_unit(self.unit), generator)
        return {
            name: metric * self.unit if name in RETURN_METRICS else metric for name, metric in metrics.items()
        }

    def phase(self, state: Any) -> int | None:
        """The learner's."""
        return find_phase(self.learner, state)

    def policy(self, state: Any) -> Policy:
        """The learner's."""
        return self.learner.policy(state)

    def value(self, state: Any) -> StateValueFn | None:
        """The learner's, in reward units; with critics where the learner has some."""
        value = self.learner.value(state)
        if value is None:
            return None
        # Planners look for `action_values`: without critics behind it the wrapper must not have it either.
        # So it is with Q: a wrapper has what it wraps.
        if isinstance(value, CriticValues):
            return _CriticsInRewardUnits(value, self.unit)
        known = _ValueInRewardUnits if isinstance(value, ValueFn) else _StateValueInRewardUnits
        return known(value, self.unit)


@dataclasses.dataclass(frozen=True, slots=True)
class _StateValueInRewardUnits:
    """Values times the unit."""

    values: Any
    unit: float

    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """V(s)."""
        # V is linear in the rewards.
        return self.values.value(obs) * self.unit


@dataclasses.dataclass(frozen=True, slots=True)
class _ValueInRewardUnits(_StateValueInRewardUnits):
    """Those of actions as well."""

    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Q(s, a)."""
        return self.values.action_value(obs, action) * self.unit


@dataclasses.dataclass(frozen=True, slots=True)
class _CriticsInRewardUnits(_ValueInRewardUnits):
    """Those of every critic as well."""

    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """Q_i(s, a) of every critic."""
        return self.values.action_values(obs, action) * self.unit
