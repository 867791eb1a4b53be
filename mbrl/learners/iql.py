"""Implicit Q-learning: values of the best logged actions by expectile regression, no other action in them.

Source: Kostrikov et al. 2021 (arXiv:2110.06169), eqs. 5 to 7. The order of an update is that of the reference
code: V, the actor with the new V, Q with the new V, the targets.

Departures:
- observations are standardised inside the networks; the reference code leaves them raw;
- the reference code scales rewards to a return range of 1000: `reward_transform: return_range` of a recipe;
- weights start as in `torch.nn.Linear`, not orthogonal; no dropout.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, Optimiser, Schedule
from mbrl.learners.critics import regress_critics
from mbrl.learners.weighted_cloning import WeightedCloning, WeightedCloningConfig, WeightedCloningState
from mbrl.nets.actors import Actor, ActorKind
from mbrl.nets.critics import CriticEnsemble, StateValue
from mbrl.nets.passes import NetworkPass
from mbrl.ops.advantage import expectile_loss, exponential_weight
from mbrl.ops.targets import td_target

PolicyForm: TypeAlias = Literal["gaussian", "deterministic"]
_KINDS: dict[PolicyForm, ActorKind] = {"gaussian": "clipped_gaussian", "deterministic": "deterministic"}


class IQLConfig(WeightedCloningConfig):
    """Implicit Q-learning.

    Attributes:
        actor_schedule: course of the actor's rate over the run.
        expectile: tau of the value regression; 0.5 evaluates the behaviour, towards 1 its best actions.
        form: `gaussian` maximises the weighted likelihood with one deviation for all states; `deterministic`
            minimises the weighted squared action error.
    """

    actor_schedule: Schedule = "cosine"
    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.7
    form: PolicyForm = "gaussian"


@dataclasses.dataclass(slots=True)
class IQLState(WeightedCloningState[Actor]):
    """Besides actor and critics the value network."""

    state_value: StateValue
    value_optimiser: Optimiser


@dataclasses.dataclass(frozen=True, slots=True)
class IQLValue:
    """The value network, and the least online critic."""

    state_value: StateValue
    critic: CriticEnsemble

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`V(s)`, an expectile over logged actions rather than the value of the policy's own."""
        return self.state_value(obs)

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)`."""
        return self.action_values(obs, action).amin(0)

    @torch.no_grad()
    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """`Q_i(s, a)` of every critic."""
        return self.critic(obs, self.critic.scale(action))


@LEARNERS.register("iql", "Implicit Q-learning: expectile values and advantage-weighted cloning.")
class IQL(WeightedCloning[IQLConfig, IQLState]):
    """The IQL learner: see `WeightedCloning` for its arguments."""

    Config: ClassVar[type[LearnerConfig]] = IQLConfig

    def init(self, generator: torch.Generator) -> IQLState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        parts = self.build_parts(_KINDS[config.form], generator)
        # V has statistics of its own, like actor and critics: each network is moved and stored by itself.
        normaliser = copy.deepcopy(context.normaliser)
        state_value = StateValue(context.space, config.hidden, normaliser, generator=generator)
        value_optimiser = Optimiser(state_value.net.flat, config.critic_learning_rate)
        return IQLState(**parts, state_value=state_value, value_optimiser=value_optimiser)

    def update(self, state: IQLState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of V, the actor, the critics and the targets; draws nothing."""
        del generator
        rows, scaled = len(batch), state.critic.scale(batch.action)
        # V: |tau - 1(d < 0)| d^2, d = min_i Q'_i(s, a) - V(s), at logged actions only        (eq. 5)
        with torch.no_grad():
            # Target critics: V regresses on Q and Q on V, and would else chase one another. Logged actions
            # only, so no critic is ever asked about an action that it was not trained on.
            least = state.target_critic(batch.observation, scaled).amin(0)
        metrics = self._update_value(state, batch.observation, least)
        # pi: -min(exp(beta (Q' - V)), w_max) log pi(a|s), with the new V                      (eq. 7)
        with torch.no_grad():
            # V(s) and V(s') in one pass, after V's step: advantage and target then come from the same V.
            values = state.state_value(torch.cat([batch.observation, batch.next_observation]))
        metrics |= self._update_policy(state, batch, least - values[:rows])
        # Q: (Q_i(s, a) - r - g (1 - terminated) V(s'))^2, with the new V                      (eq. 6)
        target = td_target(batch.reward, batch.terminated, values[rows:], discount=self.config.discount)
        metrics |= regress_critics(state.critic, state.critic_optimiser, batch, target)
        # Q' <- (1 - tau) Q' + tau Q
        self.update_targets(state)
        return metrics

    def value(self, state: IQLState) -> IQLValue:
        """The value network and the critics."""
        return IQLValue(state.state_value, state.critic)

    def passes(self, state: IQLState) -> tuple[NetworkPass, ...]:
        """Target critics at s and V at s'; V, the critics and the actor are trained.

        The advantage that weights the clone could take V(s) from the loss of V.
        """
        return (
            NetworkPass(state.target_critic.net),
            NetworkPass(state.state_value.net),
            NetworkPass(state.state_value.net, "parameters"),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.actor.net, "parameters"),
        )

    @torch.no_grad()
    def next_value(
        self, state: IQLState, next_obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`V(s')`, without gradients; no action is drawn, so that the noise is not read."""
        del noise
        return state.state_value(next_obs)

    def _update_value(self, state: IQLState, obs: Tensor, least: Tensor) -> dict[str, Tensor]:
        # Above 0.5 the expectile leans to the better logged actions of a state: a maximum within the data.
        loss = expectile_loss(least - state.state_value(obs), expectile=self.config.expectile)
        state.value_optimiser.descend(loss)
        return {"value/loss": loss.detach()}

    def _update_policy(self, state: IQLState, batch: TransitionBatch, advantage: Tensor) -> dict[str, Tensor]:
        beta, cap = self.config.inverse_temperature, self.config.max_weight
        # The advantage has no gradient; the weights say how much each logged action is cloned.
        weight = exponential_weight(advantage, inverse_temperature=beta, max_weight=cap)
        return {
            **self.update_actor(state, batch, weight),
            "policy/weight": weight.mean(),
            # A large share means that beta is too large: good and very good actions are cloned alike.
            "policy/weights_capped": (weight >= cap).to(weight.dtype).mean(),
        }
