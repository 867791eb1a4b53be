"""Discrete IQL: values of the best logged choices by expectile regression, no other choice in them.

Source: Kostrikov et al. 2021 (arXiv:2110.06169), eqs. 5 to 7, with a softmax policy.

Departures: those of `iql`, of which this is the form over choices; V is an expectile of logged choices alone,
so that masks concern the policy and nothing else.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser, Schedule
from mbrl.learners.critics import critic_metrics
from mbrl.learners.discrete.choices import ChoiceLearnerConfig, ChoiceValue
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.critics import ChoiceCritics, StateValue
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.advantage import expectile_loss, exponential_weight
from mbrl.ops.choices import log_probability_of, take_choice
from mbrl.ops.losses import critic_loss
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target


class DiscreteIQLConfig(ChoiceLearnerConfig):
    """Implicit Q-learning over choices.

    Attributes:
        hidden: widths of the hidden layers of all networks.
        critics: N; wherever one value is needed, it is the least of them.
        expectile: tau of the value regression; 0.5 evaluates the behaviour, towards 1 its best choices.
        inverse_temperature: beta of the weights `exp(beta A)`, in 1 / return units; 0 clones.
        max_weight: cap of a weight.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of critics and V.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.7
    inverse_temperature: Annotated[float, Field(ge=0, le=1e4)] = 3.0
    max_weight: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "cosine"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class DiscreteIQLState(LearnerState):
    """Networks and optimisers."""

    actor: SoftmaxPolicy
    critic: ChoiceCritics
    target_critic: ChoiceCritics
    state_value: StateValue
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    value_optimiser: Optimiser


@dataclasses.dataclass(frozen=True, slots=True)
class DiscreteIQLValue(ChoiceValue):
    """The value network, and the least online critic.

    Attributes:
        state_value: V, an expectile over logged choices rather than the value of the policy's own.
    """

    state_value: StateValue

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`V(s)`."""
        return self.state_value(obs)


@LEARNERS.register("discrete_iql", "Implicit Q-learning over choices: expectiles, weighted cloning.")
class DiscreteIQL:
    """The discrete IQL learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = DiscreteIQLConfig

    def __init__(self, config: DiscreteIQLConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> DiscreteIQLState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = CategoricalSpec("softmax", context.space, config.hidden)
        actor = SoftmaxPolicy(spec, copy.deepcopy(context.normaliser), generator)
        sizes = (config.critics, context.space.obs_dim, context.space.act_dim, config.hidden)
        critic = ChoiceCritics(*sizes, generator=generator)
        normaliser = copy.deepcopy(context.normaliser)
        state_value = StateValue(context.space, config.hidden, normaliser, generator=generator)
        return DiscreteIQLState(
            actor=actor,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            state_value=state_value,
            actor_optimiser=Optimiser(
                actor.net.flat,
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            value_optimiser=Optimiser(state_value.net.flat, config.critic_learning_rate),
        )

    def update(self, state: DiscreteIQLState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of V, the actor, the critics and the targets; draws nothing."""
        del generator
        config, rows = self.config, len(batch)
        obs_n = state.actor.normaliser(batch.observation)
        # V: |tau - 1(d < 0)| d^2, d = min_i Q'_i(s, a) - V(s), at logged choices only        (eq. 5)
        with torch.no_grad():
            least = take_choice(state.target_critic(obs_n), batch.action).amin(0)
        value_loss = expectile_loss(least - state.state_value(batch.observation), expectile=config.expectile)
        state.value_optimiser.descend(value_loss)
        # pi: -min(exp(beta (Q' - V)), w_max) log pi(a|s), with the new V                      (eq. 7)
        with torch.no_grad():
            values = state.state_value(torch.cat([batch.observation, batch.next_observation]))
        beta, cap = config.inverse_temperature, config.max_weight
        weight = exponential_weight(least - values[:rows], inverse_temperature=beta, max_weight=cap)
        log_probs = state.actor.log_probs(batch.observation, batch.action_mask)
        policy_loss = -(weight * log_probability_of(log_probs, batch.action)).mean()
        state.actor_optimiser.descend(policy_loss)
        # Q: (Q_i(s, a) - r - g (1 - terminated) V(s'))^2, with the new V                      (eq. 6)
        target = td_target(batch.reward, batch.terminated, values[rows:], discount=config.discount)
        chosen = take_choice(state.critic(obs_n), batch.action)
        loss = critic_loss(chosen, target)
        state.critic_optimiser.descend(loss)
        # Q' <- (1 - tau) Q' + tau Q
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=config.polyak_tau)
        return {
            **critic_metrics(chosen, loss),
            "value/loss": value_loss.detach(),
            "policy/loss": policy_loss.detach(),
            "policy/weight": weight.mean(),
            # A large share means that beta is too large: good and very good choices are cloned alike.
            "policy/weights_capped": (weight >= cap).to(weight.dtype).mean(),
        }

    def policy(self, state: DiscreteIQLState) -> SoftmaxPolicy:
        """The actor."""
        return state.actor

    def value(self, state: DiscreteIQLState) -> DiscreteIQLValue:
        """The value network and the critics."""
        return DiscreteIQLValue(state.actor, state.critic, state.actor.normaliser, state.state_value)

    def passes(self, state: DiscreteIQLState) -> tuple[NetworkPass, ...]:
        """Target critics at s and V at s'; V, the critics and the actor are trained."""
        return (
            NetworkPass(state.target_critic.net),
            NetworkPass(state.state_value.net),
            NetworkPass(state.state_value.net, "parameters"),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.actor.net, "parameters"),
        )
