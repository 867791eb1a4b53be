"""Containers that cross module borders. No I/O, no networks."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

Metrics: TypeAlias = Mapping[str, Tensor]
"""Detached 0-d tensors by name; they become Python numbers at log intervals only."""

StateDict: TypeAlias = dict[str, Any]
"""Tensors, numbers, strings and nested dicts of them: what `torch.load(weights_only=True)` accepts."""

_MASKS: Final = ("action_mask", "next_action_mask")

MAX_DIM: Final = 100_000
"""Largest size of an observation or action vector; more is a damaged file, not a task."""


@dataclasses.dataclass(frozen=True, slots=True)
class TransitionBatch:
    """Transitions `(s, a, r, s')` with shared leading axes.

    Attributes:
        observation: `[*b, obs_dim]`, raw units: normalisation never crosses a seam.
        action: `[*b, act_dim]`, environment units, inside the bounds.
        reward: `[*b]`, what the learner should see (penalised, where a recipe penalises).
        next_observation: `[*b, obs_dim]`, the true successor, also at a truncation.
        terminated: `[*b]`, MDP termination only: no bootstrap. A truncation is never passed here.
        from_model: `[*b]`, True for imagined transitions.
        next_action: `[*b, act_dim]`, the action that followed in the same episode or rollout, environment
            units; meaningless where `has_next_action` is False. None where nobody noted it.
        has_next_action: `[*b]`, False in the last logged step of an episode; None likewise.
        action_mask: `[*b, act_dim]`, True for the choices that were allowed in `observation`; None where all
            are, and for continuous actions.
        next_action_mask: `[*b, act_dim]`, likewise in `next_observation`.
    """

    observation: Float[Tensor, "*b obs_dim"]
    action: Float[Tensor, "*b act_dim"]
    reward: Float[Tensor, "*b"]
    next_observation: Float[Tensor, "*b obs_dim"]
    terminated: Bool[Tensor, "*b"]
    from_model: Bool[Tensor, "*b"]
    next_action: Float[Tensor, "*b act_dim"] | None = None
    has_next_action: Bool[Tensor, "*b"] | None = None
    action_mask: Bool[Tensor, "*b act_dim"] | None = None
    next_action_mask: Bool[Tensor, "*b act_dim"] | None = None

    def __len__(self) -> int:
        return self.reward.shape[0]

    def in_unit(self, unit: float) -> "TransitionBatch":
        """The batch with everything that is measured in rewards divided by `unit`, reward units, > 0."""
        return dataclasses.replace(self, reward=self.reward / unit)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OnPolicyBatch(TransitionBatch):
    """Steps of the present policy, with what was known when they were taken.

    Attributes:
        log_prob: `[*b]`, log-density of `action` by the policy that took it, in nats, on the [-1, 1] scale.
        advantage: `[*b]`, of the action over that policy, return units.
        value: `[*b]`, V(s) when the advantage was taken, return units; V regresses `value + advantage`.
    """

    log_prob: Float[Tensor, "*b"]
    advantage: Float[Tensor, "*b"]
    value: Float[Tensor, "*b"]

    def in_unit(self, unit: float) -> "OnPolicyBatch":
        """See `TransitionBatch.in_unit`."""
        return dataclasses.replace(
            self, reward=self.reward / unit, advantage=self.advantage / unit, value=self.value / unit
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationBatch(TransitionBatch):
    """Steps of whoever acted, with steps of an expert beside them.

    Attributes:
        expert: `[k]` demonstrated steps; their rewards mean nothing.
        initial_observation: `[m, obs_dim]`, states where episodes of the task start, raw units.
    """

    expert: TransitionBatch
    initial_observation: Float[Tensor, "m obs_dim"]


@dataclasses.dataclass(frozen=True, slots=True)
class DynamicsPosterior:
    """What each member believes of one step: independent Gaussians over `(s', r)`.

    Attributes:
        mean: `[e, b, obs_dim]`, predicted next observation, raw units.
        variance: `[e, b, obs_dim]`, raw units squared, > 0.
        reward_mean: `[e, b]`, reward units.
        reward_variance: `[e, b]`, reward units squared, > 0.
        delta_scale: `[obs_dim]`, standard deviation of `s' - s` in the training data; dividing by it gives
            the normalised target units in which uncertainty measures are defined.
        reward_scale: `[]`, standard deviation of the reward in the training data.
        change: `[e, b, obs_dim]`, predicted `s' - s`, raw units. What members dispute is read from it: far
            from 0 float32 rounds it out of `mean`. None for a model that does not predict changes.
    """

    mean: Float[Tensor, "e b obs_dim"]
    variance: Float[Tensor, "e b obs_dim"]
    reward_mean: Float[Tensor, "e b"]
    reward_variance: Float[Tensor, "e b"]
    delta_scale: Float[Tensor, "obs_dim"]
    reward_scale: Float[Tensor, ""]
    change: Float[Tensor, "e b obs_dim"] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SpaceSpec:
    """Sizes and bounds of observations and actions; all that learners and models may know of a task.

    Attributes:
        obs_dim: size of an observation vector, 1 to 100,000.
        act_dim: size of an action vector, likewise.
        act_low: `act_dim` lower bounds, environment units, finite.
        act_high: `act_dim` upper bounds, each above its lower bound.
        choices: names of the `act_dim` choices where actions are discrete. Actions are then one-hot vectors
            inside, bounds are 0 and 1; outside they are the index of a choice. None for continuous actions.

    Raises:
        ValueError: sizes and bounds contradict each other.
    """

    obs_dim: int
    act_dim: int
    act_low: tuple[float, ...]
    act_high: tuple[float, ...]
    choices: tuple[str, ...] | None = None

    @classmethod
    def discrete(cls, obs_dim: int, choices: "int | Sequence[str]") -> "SpaceSpec":
        """A task of `choices` discrete actions, by count (named "0", "1", ...) or by name."""
        names = tuple(str(k) for k in range(choices)) if isinstance(choices, int) else tuple(choices)
        count = len(names)
        return cls(obs_dim, count, act_low=(0.0,) * count, act_high=(1.0,) * count, choices=names)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are choices, one-hot vectors of `act_dim`."""
        return self.choices is not None

    def __post_init__(self) -> None:
        for name, size in (("obs_dim", self.obs_dim), ("act_dim", self.act_dim)):
            if not 1 <= size <= MAX_DIM:
                raise ValueError(f"{name} must lie between 1 and {MAX_DIM:,}, not {size}")
        if not len(self.act_low) == len(self.act_high) == self.act_dim:
            raise ValueError(
                f"act_dim is {self.act_dim}, bounds have {len(self.act_low)}, {len(self.act_high)}"
            )
        if not all(math.isfinite(bound) for bound in (*self.act_low, *self.act_high)):
            raise ValueError(
                f"action bounds must be finite, not {self.act_low}, {self.act_high}: policies act between "
                "them. Give the limits of the machine, or the range of the logged actions"
            )
        if not all(low < high for low, high in zip(self.act_low, self.act_high, strict=True)):
            raise ValueError(
                f"every lower action bound must lie below the upper: {self.act_low}, {self.act_high}"
            )
        if self.choices is not None:
            self._check_choices(self.choices)

    def _check_choices(self, choices: tuple[str, ...]) -> None:
        if not len(choices) == len(set(choices)) == self.act_dim:
            raise ValueError(f"choices must be {self.act_dim} different names, not {choices}")
        if any(self.act_low) or any(high != 1.0 for high in self.act_high):
            raise ValueError(f"one-hot actions lie between 0 and 1: {self.act_low}, {self.act_high}")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One logged episode of T steps, arrays read-only.

    The flags describe the last step; no earlier step of an episode ends it.

    Attributes:
        observations: `[T + 1, obs_dim]` float32, raw units.
        actions: `[T, act_dim]` float32, environment units.
        rewards: `[T]` float32; NaN in every step of an episode without rewards.
        terminated: the MDP ended after the last step.
        truncated: the log was cut after the last step (time limit, end of log).
        is_final_observation_known: False where a terminal successor was not logged; the last row of
            `observations` is then a copy of the row before and must not be learned from.
        behaviour_log_prob: `[T]` float32 log-density of the logged actions, or None.
        timestamps: `[T + 1]` float64 seconds, or None.
        infos: further arrays with T or T + 1 rows, by name.
        whole: the logged episode that this one is a piece of; None if it is whole.
        first_step: step of the logged episode that the piece starts with; 0 if it is whole.
        has_rewards: False where nobody logged or defined a reward.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool
    is_final_observation_known: bool = True
    behaviour_log_prob: NDArray[np.float32] | None = None
    timestamps: NDArray[np.float64] | None = None
    infos: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict[str, NDArray[Any]])
    whole: "Episode | None" = None
    first_step: int = 0
    has_rewards: bool = True

    def __post_init__(self) -> None:
        for array in (
            self.observations,
            self.actions,
            self.rewards,
            self.behaviour_log_prob,
            self.timestamps,
        ):
            if array is not None:
                array.setflags(write=False)
        for array in self.infos.values():
            array.setflags(write=False)

    def __len__(self) -> int:
        return self.rewards.shape[0]

    def __repr__(self) -> str:
        end = "terminated" if self.terminated else "truncated" if self.truncated else "no end"
        piece = ""
        if self.whole is not None:
            last = self.first_step + len(self) - 1
            piece = f", steps {self.first_step} to {last} of an episode of {len(self.whole)}"
        shapes = f"observations {list(self.observations.shape)}, actions {list(self.actions.shape)}"
        gain = f"return {self.episode_return:.6g}" if self.has_rewards else "no rewards"
        return f"Episode({len(self)} steps, {shapes}, {gain}, {end}{piece})"

    @property
    def logged(self) -> "Episode":
        """The logged episode that this one is a piece of; itself if it is whole."""
        return self if self.whole is None else self.whole

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards, float64; NaN without rewards."""
        return float(self.rewards.sum(dtype=np.float64))


BatchT = TypeVar("BatchT", bound=TransitionBatch)


def concat(batches: Sequence[BatchT]) -> BatchT:
    """Joins batches of one class along axis 0; a field that one of them lacks is lacking in the whole.

    But for masks: a batch without them allows everything.
    """
    if len(batches) == 1:
        return batches[0]
    joined: dict[str, Tensor] = {}
    for field in dataclasses.fields(batches[0]):
        parts: list[Tensor | None] = [getattr(batch, field.name) for batch in batches]
        if field.name in _MASKS and any(part is not None for part in parts):
            parts = [
                torch.ones_like(batch.action, dtype=torch.bool) if part is None else part
                for batch, part in zip(batches, parts, strict=True)
            ]
        there = [part for part in parts if part is not None]
        if len(there) == len(parts):
            joined[field.name] = torch.cat(there)
    return type(batches[0])(**joined)


def plain(batch: TransitionBatch) -> TransitionBatch:
    """The transitions of a batch of whatever kind, without what stands beside them."""
    fields = dataclasses.fields(TransitionBatch)
    return TransitionBatch(**{field.name: getattr(batch, field.name) for field in fields})


def take(batch: BatchT, rows: Tensor) -> BatchT:
    """The rows `[k]` int64 of a batch; a field that is lacking, or has rows of its own, stays so."""
    taken: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        values: Any = getattr(batch, field.name)
        taken[field.name] = values.index_select(0, rows) if isinstance(values, Tensor) else values
    return type(batch)(**taken)
