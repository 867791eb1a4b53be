"""What the learners with a soft actor-critic inside share: SAC, SAC-N, EDAC, CQL. No learner by itself.

Source: Haarnoja et al. 2018 (arXiv:1812.05905), with the least of N critics in the place of two.
"""

import abc
import copy
import dataclasses
import math
from typing import Annotated, Any, Generic, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    LearnerConfig,
    LearnerContext,
    LearnerState,
    LogStdBounds,
    Optimiser,
    Schedule,
)
from mbrl.learners.critics import PolicyValue, critic_metrics
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.losses import critic_loss, soft_policy_loss, temperature_loss
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import soft_next_value, td_target


class SoftActorCriticConfig(LearnerConfig):
    """A tanh-Gaussian actor, N critics, a temperature.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        critics: N; the target and the policy loss take the minimum over all of them.
        critic_layer_norm: LayerNorm in the critics.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
        entropy_coef: the temperature at the start.
        entropy_coef_learning_rate: Adam rate of the log temperature; 0 keeps the temperature fixed.
        max_entropy_coef: cap of the temperature; None for no cap.
        target_entropy: nats; None is minus the number of action dimensions.
        has_entropy_backup: include the entropy in the Bellman target; False is the deterministic backup.
        log_std_bounds: limits of the policy's log standard deviation.
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
    target_entropy: Annotated[float | None, Field(ge=-1e4, le=1e4)] = None
    has_entropy_backup: bool = True
    log_std_bounds: LogStdBounds = (-5.0, 2.0)

    @model_validator(mode="after")
    def _check_consistent(self) -> "SoftActorCriticConfig":
        if self.max_entropy_coef is not None and self.entropy_coef > self.max_entropy_coef:
            raise ValueError(
                f"entropy_coef={self.entropy_coef} starts above max_entropy_coef={self.max_entropy_coef}"
            )
        return self


@dataclasses.dataclass(slots=True)
class SoftActorCriticState(LearnerState):
    """Networks and optimisers."""

    actor: TanhGaussianActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    log_entropy_coef: nn.Parameter
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    entropy_optimiser: Optimiser


ConfigT = TypeVar("ConfigT", bound=SoftActorCriticConfig)
StateT = TypeVar("StateT", bound=SoftActorCriticState)


class SoftActorCritic(abc.ABC, Generic[ConfigT, StateT]):
    """The steps of an update; a learner adds its `init` and what it has besides the Bellman error.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    def __init__(self, config: ConfigT, context: LearnerContext) -> None:
        self.config, self.context = config, context
        # H = -dim A, the heuristic of the paper (appendix D).
        self.target_entropy = (
            -float(context.space.act_dim) if config.target_entropy is None else config.target_entropy
        )
        # Draws of a' for each target; a learner whose target takes the best of several raises it.
        self.target_draws = 1

    @abc.abstractmethod
    def init(self, generator: torch.Generator) -> StateT:
        """Fresh networks and optimisers."""

    def update(self, state: StateT, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, the actor, the temperature and the targets, as in algorithm 1."""
        draws = self.target_draws
        # The last row of noise is the actor's, those before it the target's.
        noise = torch.randn(draws + 1, *batch.action.shape, generator=generator, device=generator.device)
        # One temperature for the whole update, as a number: neither critics nor actor may move it.
        entropy_coef = state.log_entropy_coef.detach().exp()
        # y = r + g (1 - terminated) [min_i Q'_i(s', a') - b alpha log pi(a'|s')], a' ~ pi(s')   (eqs. 2, 3)
        target = self.critic_target(state, batch, noise[0] if draws == 1 else noise[:-1], entropy_coef)
        # Q: (Q_i(s, a) - y)^2, and what a learner adds                                        (eq. 5)
        metrics = self._update_critic(state, batch, target, generator)
        # pi: alpha log pi(a~|s) - min_i Q_i(s, a~), a~ ~ pi(s), with the new Q                (eqs. 7, 9)
        log_prob, actor_metrics = self._update_actor(state, batch.observation, noise[-1], entropy_coef)
        # alpha: -log alpha (log pi(a~|s) + H), of the a~ before the actor's step              (eq. 18)
        self._update_entropy_coef(state, log_prob)
        # Q' <- (1 - tau) Q' + tau Q
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return {**metrics, **actor_metrics, "policy/entropy_coef": entropy_coef}

    def policy(self, state: StateT) -> TanhGaussianActor:
        """The actor."""
        return state.actor

    def value(self, state: StateT) -> PolicyValue:
        """The critics at the actor's action."""
        return PolicyValue(state.actor, state.critic)

    def passes(self, state: StateT) -> tuple[NetworkPass, ...]:
        """The target, the critics, and the actor through all critics."""
        return (
            NetworkPass(state.actor.net),
            NetworkPass(state.target_critic.net, rows=self.target_draws),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.actor.net, "parameters"),
            NetworkPass(state.critic.net, "input"),
        )

    @torch.no_grad()
    def next_value(
        self, state: StateT, next_obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s', a')` of the target critics at `a' ~ pi(s')`, without entropy.

        Args:
            state: of this learner.
            next_obs: `[b, obs_dim]`, raw units.
            noise: `[b, act_dim]`, standard normal: a' is a function of it.

        Returns:
            `[b]`, return units, without gradients.
        """
        next_action, _ = state.actor.sample_with_log_prob(next_obs, noise)
        return state.target_critic(next_obs, next_action).amin(0)

    @torch.no_grad()
    def critic_target(
        self, state: StateT, batch: TransitionBatch, noise: Tensor, entropy_coef: Tensor
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) [min_i Q_i(s', a') - b alpha log pi(a'|s')]`, without gradients."""
        next_action, next_log_prob = state.actor.sample_with_log_prob(batch.next_observation, noise)
        # Without entropy in the backup (COMBO, MOBILE) values stay comparable with logged returns.
        next_value = soft_next_value(
            state.target_critic(batch.next_observation, next_action),
            next_log_prob,
            entropy_coef=entropy_coef,
            has_entropy=self.config.has_entropy_backup,
        )
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def _critic_regulariser(
        self, state: StateT, batch: TransitionBatch, values: Tensor, generator: torch.Generator
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What is added to the Bellman error, weighted, and metrics of it.

        Args:
            state: of this learner.
            batch: as in `update`.
            values: `[n, b]`, the critics at the batch, differentiable.
            generator: for draws of its own.
        """
        del state, batch, values, generator
        return None, {}

    def build_parts(self, generator: torch.Generator) -> dict[str, Any]:
        """The fields of a `SoftActorCriticState`."""
        config, context = self.config, self.context
        spec = ActorSpec("tanh_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        actor = TanhGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = CriticEnsemble(
            config.critics,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        # The logarithm is learned: the temperature stays positive, and a step changes it by a factor.
        log_entropy_coef = nn.Parameter(
            torch.full((), math.log(config.entropy_coef), device=generator.device)
        )
        return {
            "actor": actor,
            "critic": critic,
            # It moves by averaging alone; without gradients its passes keep no activations.
            "target_critic": copy.deepcopy(critic).requires_grad_(requires_grad=False),
            "log_entropy_coef": log_entropy_coef,
            "actor_optimiser": Optimiser(
                actor.net.flat,
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            "critic_optimiser": Optimiser(critic.net.flat, config.critic_learning_rate),
            "entropy_optimiser": Optimiser(log_entropy_coef, config.entropy_coef_learning_rate),
        }

    def _update_critic(
        self, state: StateT, batch: TransitionBatch, target: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        values = state.critic(batch.observation, state.critic.scale(batch.action))
        loss = critic_loss(values, target)
        # One step for both: the regulariser's gradient goes through Adam together with the Bellman error's.
        regulariser, metrics = self._critic_regulariser(state, batch, values, generator)
        state.critic_optimiser.descend(loss if regulariser is None else loss + regulariser)
        return {**critic_metrics(values, loss), **metrics}

    def _update_actor(
        self, state: StateT, obs: Tensor, noise: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        action, log_prob = state.actor.sample_with_log_prob(obs, noise)
        values = state.critic(obs, action, frozen=True)  # the gradient passes through Q to a, not to Q
        loss = soft_policy_loss(log_prob, values, entropy_coef=entropy_coef)
        state.actor_optimiser.descend(loss)
        # The temperature's step must not reach the actor.
        log_prob = log_prob.detach()
        return log_prob, {"policy/loss": loss.detach(), "policy/entropy": -log_prob.mean()}

    def _update_entropy_coef(self, state: StateT, log_prob: Tensor) -> None:
        # A rate of 0 keeps the temperature where it started: no gradient is needed.
        if self.config.entropy_coef_learning_rate == 0:
            return
        loss = temperature_loss(state.log_entropy_coef, log_prob, target_entropy=self.target_entropy)
        state.entropy_optimiser.descend(loss)
        if self.config.max_entropy_coef is not None:
            with torch.no_grad():
                # The parameter is capped, not the coefficient in the losses: it would go on growing behind
                # such a cap, and take as long to come back.
                state.log_entropy_coef.clamp_(max=math.log(self.config.max_entropy_coef))
