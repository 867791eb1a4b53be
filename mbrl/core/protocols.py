"""The seams of the system: everything above this layer talks through these."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.types import DynamicsPosterior, Metrics, StateDict, TransitionBatch


@runtime_checkable
class Policy(Protocol):
    """Maps observations to actions. Stateless; owns no random numbers."""

    @property
    def act_dim(self) -> int:
        """Size of an action, and of the noise vector."""
        ...

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """Acts, without gradients.

        Args:
            obs: `[b, obs_dim]`, raw units.
            noise: `[b, act_dim]` standard normal draws, or None for the deterministic (evaluation) action.

        Returns:
            `[b, act_dim]`, environment units, inside the bounds.
        """
        ...


@runtime_checkable
class StochasticPolicy(Policy, Protocol):
    """A policy with a density: what off-policy evaluation and planners need besides."""

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Log-density of `action`, with respect to the action scaled to [-1, 1]."""
        ...

    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """Draws `count` actions for each observation from `[count, b, act_dim]` standard normal noise."""
        ...


@runtime_checkable
class DiscretePolicy(Policy, Protocol):
    """A policy over finitely many actions, which are one-hot vectors."""

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        mask: Bool[Tensor, "b act_dim"] | None = None,
    ) -> Float[Tensor, "b act_dim"]:
        """As `Policy.act`, among the actions that `mask` allows; one-hot.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        ...

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """Probability of every action; rows sum to 1.

        Args:
            obs: `[b, obs_dim]`, raw units.
            mask: `[b, act_dim]`, True for the actions that are allowed: the others have probability 0.
                None for all. Whoever knows no mask calls without it.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        ...


@runtime_checkable
class EpisodicPolicy(Policy, Protocol):
    """A policy that carries something from step to step of an episode; its `act` alone carries nothing."""

    def act_in_episodes(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        *,
        episodes: Sequence[int],
    ) -> Float[Tensor, "b act_dim"]:
        """Acts in episodes that run side by side; `episodes` names that of each row."""
        ...

    def reset(self, episodes: Sequence[int] | None = None) -> None:
        """Forgets episodes that are over; None forgets all."""
        ...


@runtime_checkable
class StateValueFn(Protocol):
    """What a learner believes a state to be worth, return units; all that a learner without Q knows."""

    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """V(s) of the learner's policy."""
        ...


@runtime_checkable
class ValueFn(StateValueFn, Protocol):
    """What a learner believes a state and an action to be worth, return units."""

    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Q(s, a) of the learner's policy."""
        ...


@runtime_checkable
class CriticValues(Protocol):
    """Critics that can be heard one by one: what pessimism over critics needs."""

    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """`[c, b]`, Q(s, a) in each critic's opinion, return units; `action` in environment units."""
        ...


@runtime_checkable
class DynamicsModel(Protocol):
    """Predicts one step; raw units in, raw units out. Knows nothing of penalties, termination or policies."""

    @property
    def ensemble_size(self) -> int:
        """Number of members in a posterior (the elites of a fitted ensemble)."""
        ...

    def predict(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> DynamicsPosterior:
        """Every member's belief about the step from `(obs, action)`."""
        ...

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s' and of r, each row from its own member: a fraction of the work."""
        ...


@runtime_checkable
class SamplingModel(DynamicsModel, Protocol):
    """A model whose outcomes are no Gaussians: it draws them itself, and its means are no states."""

    def draw_member(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        member: Int[Tensor, "b"],
        noise: Float[Tensor, "b k"],
    ) -> tuple[Float[Tensor, "b obs_dim"], Float[Tensor, "b"]]:
        """A successor and a reward of each row from its own member, by `[b, obs_dim + 1]` normal noise."""
        ...


@runtime_checkable
class TerminationFn(Protocol):
    """Probability that the MDP terminates on entering `next_obs`; 0 or 1 for a known rule."""

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]` in [0, 1]; raw units in."""
        ...


@runtime_checkable
class RewardFn(Protocol):
    """A known rule of the reward, for every step that can be imagined."""

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, reward units; raw units in."""
        ...


@runtime_checkable
class UncertaintyMeasure(Protocol):
    """How unsure a posterior is: `[b]`, non-negative."""

    def __call__(self, posterior: DynamicsPosterior) -> Float[Tensor, "b"]:
        """`[b]`, in the measure's own units; larger means less sure."""
        ...


@runtime_checkable
class Checkpointable(Protocol):
    """Mutable state that a resume needs."""

    def state_dict(self) -> StateDict:
        """Everything needed to continue."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        ...


@runtime_checkable
class BatchSource(Checkpointable, Protocol):
    """Anything that a learner may sample from: a dataset, a model buffer, a mixture."""

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws `batch_size` transitions."""
        ...


S = TypeVar("S", bound=Checkpointable)


@runtime_checkable
class Learner(Protocol[S]):
    """A policy-optimisation backend. Immutable after construction; all state is in `S`."""

    def init(self, generator: torch.Generator) -> S:
        """Fresh networks and optimisers, drawn from `generator`."""
        ...

    def update(self, state: S, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One update; mutates `state` and nothing else."""
        ...

    def policy(self, state: S) -> Policy:
        """The current policy; a view on `state`, not a copy."""
        ...

    def value(self, state: S) -> StateValueFn | None:
        """The current value functions (a `ValueFn` where Q is known), or None for learners without one."""
        ...


Refresh: TypeAlias = Callable[[Policy, int, torch.Generator], Metrics]
"""`(policy, step, generator) -> metrics`: renews a source, e.g. by model rollouts."""


@runtime_checkable
class ValueRefresh(Protocol):
    """Renews a source with the learner's present policy and values, as searches and advantages need them."""

    def refresh_with_value(
        self, policy: Policy, value: StateValueFn | None, step: int, generator: torch.Generator
    ) -> Metrics:
        """As `Refresh`, told the values besides."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """What a recipe's `build` returns; the loop needs nothing else.

    Attributes:
        learner: turns batches into a policy.
        source: what the learner samples.
        refresh: called every `refresh_interval` steps before sampling, or None.
        refresh_interval: steps between refreshes.
        batch_size: transitions in one update.
        value_bounds: least and largest value that the rewards of the data permit, or None where unknown;
            the loop raises its divergence alarm outside of them.
        reward_unit: what the learner divides rewards by before it sees them, reward units; all that it is
            told and tells, values included, is in reward units.
    """

    learner: Learner[Any]
    source: BatchSource
    refresh: Refresh | ValueRefresh | None = None
    refresh_interval: int = 1000
    batch_size: int = 256
    value_bounds: tuple[float, float] | None = None
    reward_unit: float = 1.0
