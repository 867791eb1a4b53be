"""Discrete SAC: soft actor-critic whose expectations over choices are exact; made for streams of a model.

Source: Christodoulou 2019 (arXiv:1910.07207), eqs. 10 to 12, with the least of N critics.

Departures:
- perceptrons on vectors, target critics that follow by averaging;
- observations are standardised inside the networks;
- a backup without entropy, LayerNorm in the critics and a cap of the temperature are options;
- the target entropy is a share of what the allowed choices of a state permit.
"""

import copy
import dataclasses
import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser, Schedule
from mbrl.learners.critics import critic_metrics
from mbrl.learners.discrete.choices import ChoiceLearnerConfig, ChoiceValue
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.choices import entropy, expectation, take_choice, without_empty
from mbrl.ops.losses import critic_loss
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target


class DiscreteSACConfig(ChoiceLearnerConfig):
    """A softmax actor, N critics of all choices, a temperature.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        critics: N; wherever one value is needed, it is the least of them.
        critic_layer_norm: LayerNorm in the critics.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
        entropy_coef: the temperature at the start.
        entropy_coef_learning_rate: Adam rate of the log temperature; 0 keeps the temperature fixed.
        max_entropy_coef: cap of the temperature; None for no cap.
        target_entropy_share: target entropy as a share of `log n`, n the number of allowed choices.
        has_entropy_backup: include the entropy in the Bellman target.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    critic_layer_norm: bool = False
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    entropy_coef: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    entropy_coef_learning_rate: Annotated[float, Field(ge=0, le=1)] = 3e-4
    max_entropy_coef: Annotated[float | None, Field(gt=0, le=1e4)] = None
    target_entropy_share: Annotated[float, Field(ge=0, le=1)] = 0.98
    has_entropy_backup: bool = True

    @model_validator(mode="after")
    def _check_consistent(self) -> "DiscreteSACConfig":
        if self.max_entropy_coef is not None and self.entropy_coef > self.max_entropy_coef:
            raise ValueError(
                f"entropy_coef={self.entropy_coef} starts above max_entropy_coef={self.max_entropy_coef}"
            )
        return self


@dataclasses.dataclass(slots=True)
class DiscreteSACState(LearnerState):
    """Networks and optimisers."""

    actor: SoftmaxPolicy
    critic: ChoiceCritics
    target_critic: ChoiceCritics
    log_entropy_coef: nn.Parameter
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    entropy_optimiser: Optimiser


@LEARNERS.register("discrete_sac", "Soft actor-critic over choices, with exact expectations; N critics.")
class DiscreteSAC:
    """The discrete SAC learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = DiscreteSACConfig

    def __init__(self, config: DiscreteSACConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> DiscreteSACState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = CategoricalSpec("softmax", context.space, config.hidden)
        actor = SoftmaxPolicy(spec, copy.deepcopy(context.normaliser), generator)
        critic = ChoiceCritics(
            config.critics,
            context.space.obs_dim,
            context.space.act_dim,
            config.hidden,
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        log_entropy_coef = nn.Parameter(
            torch.full((), math.log(config.entropy_coef), device=generator.device)
        )
        return DiscreteSACState(
            actor=actor,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            log_entropy_coef=log_entropy_coef,
            actor_optimiser=Optimiser(
                actor.net.flat,
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            entropy_optimiser=Optimiser(log_entropy_coef, config.entropy_coef_learning_rate),
        )

    def update(self, state: DiscreteSACState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, the actor, the temperature and the targets; draws nothing."""
        del generator
        # One temperature for the whole update: neither critics nor actor may move it.
        entropy_coef = state.log_entropy_coef.detach().exp()
        obs_n = state.actor.normaliser(batch.observation)
        # Q: (Q_i(s, a) - r - g (1 - terminated) V(s'))^2                                   (eqs. 4, 10)
        target = self.critic_target(state, batch, entropy_coef)
        values = take_choice(state.critic(obs_n), batch.action)
        loss = critic_loss(values, target)
        state.critic_optimiser.descend(loss)
        # pi: sum_a pi(a|s) [alpha log pi(a|s) - min_i Q_i(s, a)], with the new Q              (eq. 12)
        policy_loss, spread = self.policy_loss(state, batch, entropy_coef)
        state.actor_optimiser.descend(policy_loss)
        # alpha: -log alpha (H_target - H(pi(.|s))), of pi before its step                     (eq. 11)
        self._update_entropy_coef(state, batch, spread)
        # Q' <- (1 - tau) Q' + tau Q
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return {
            **critic_metrics(values, loss),
            "policy/loss": policy_loss.detach(),
            "policy/entropy": spread.mean(),
            "policy/entropy_coef": entropy_coef,
        }

    def policy(self, state: DiscreteSACState) -> SoftmaxPolicy:
        """The actor."""
        return state.actor

    def value(self, state: DiscreteSACState) -> ChoiceValue:
        """The critics at the actor's likeliest choice."""
        return ChoiceValue(state.actor, state.critic, state.actor.normaliser)

    def passes(self, state: DiscreteSACState) -> tuple[NetworkPass, ...]:
        """The target; the critics are trained; the actor by values that are not differentiated."""
        return (
            NetworkPass(state.actor.net),
            NetworkPass(state.target_critic.net),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.critic.net),
            NetworkPass(state.actor.net, "parameters"),
        )

    @torch.no_grad()
    def critic_target(
        self, state: DiscreteSACState, batch: TransitionBatch, entropy_coef: Float[Tensor, ""]
    ) -> Float[Tensor, "b"]:
        """`r + g (1 - terminated) sum_a pi(a|s') [min_i Q'_i(s', a) - b alpha log pi(a|s')]`, detached."""
        # Padding behind an end may allow nothing, and is not read.
        log_probs = state.actor.log_probs(batch.next_observation, without_empty(batch.next_action_mask))
        least = state.target_critic(state.actor.normaliser(batch.next_observation)).amin(0)
        next_value = expectation(log_probs, least)
        if self.config.has_entropy_backup:
            next_value = next_value + entropy_coef * entropy(log_probs)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def policy_loss(
        self, state: DiscreteSACState, batch: TransitionBatch, entropy_coef: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b"]]:
        """`mean_b sum_a pi(a|s) [alpha log pi(a|s) - min_i Q_i(s, a)]`, and the entropies, detached."""
        log_probs = state.actor.log_probs(batch.observation, batch.action_mask)
        with torch.no_grad():
            least = state.critic(state.actor.normaliser(batch.observation)).amin(0)
        spread = entropy(log_probs)
        # All choices are weighed at once: nothing is drawn, and no gradient passes through Q.
        loss = -(expectation(log_probs, least) + entropy_coef * spread).mean()
        return loss, spread.detach()

    def _update_entropy_coef(self, state: DiscreteSACState, batch: TransitionBatch, spread: Tensor) -> None:
        # A rate of 0 keeps the temperature where it started.
        if self.config.entropy_coef_learning_rate == 0:
            return
        mask = batch.action_mask
        count = torch.full_like(spread, float(batch.action.shape[-1]))
        if mask is not None:
            count = mask.sum(-1).to(spread.dtype)
        wanted = self.config.target_entropy_share * count.log()
        # Below the wanted entropy the bracket is negative, so descending raises the coefficient.
        state.entropy_optimiser.descend((state.log_entropy_coef * (spread - wanted)).mean())
        if self.config.max_entropy_coef is not None:
            with torch.no_grad():
                state.log_entropy_coef.clamp_(max=math.log(self.config.max_entropy_coef))
