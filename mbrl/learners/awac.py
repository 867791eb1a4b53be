"""Advantage-weighted actor-critic: cloning with weights `exp(beta A)`, A from critics of the policy itself.

Sources: Nair et al. 2020 (arXiv:2006.09359), eqs. 4 and 8; the clipped exponential weights are those of
advantage-weighted regression, Peng et al. 2019 (arXiv:1910.00177), and of CORL.

Departures:
- `tanh` bounds the mean of the policy; CORL leaves it free and clips actions;
- observations are standardised inside the networks (CORL does the same outside).
"""

import dataclasses
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.critics import PolicyValue, regress_critics
from mbrl.learners.weighted_cloning import WeightedCloning, WeightedCloningConfig, WeightedCloningState
from mbrl.nets.actors import ClippedGaussianActor
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.advantage import exponential_weight, softmax_weight
from mbrl.ops.targets import td_target

WeightForm: TypeAlias = Literal["exponential", "softmax"]


class AWACConfig(WeightedCloningConfig):
    """Advantage-weighted actor-critic; `inverse_temperature` is the inverse of the paper's lambda.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        weights: `exponential` is `min(exp(beta A), max_weight)`; `softmax` normalises over the batch,
            without a cap.
        value_samples: actions of the policy over which V(s) in the advantage is averaged.
    """

    hidden: Hidden = (256, 256, 256)
    weights: WeightForm = "exponential"
    value_samples: Annotated[int, Field(ge=1, le=1000)] = 1


@dataclasses.dataclass(slots=True)
class AWACState(WeightedCloningState[ClippedGaussianActor]):
    """Networks and optimisers."""


@LEARNERS.register("awac", "Advantage-weighted actor-critic: cloning weighted by the policy's own critics.")
class AWAC(WeightedCloning[AWACConfig, AWACState]):
    """The AWAC learner: see `WeightedCloning` for its arguments."""

    Config: ClassVar[type[LearnerConfig]] = AWACConfig

    def init(self, generator: torch.Generator) -> AWACState:
        """Fresh networks and optimisers."""
        return AWACState(**self.build_parts("clipped_gaussian", generator))

    def update(self, state: AWACState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, of the actor with the new critics, and of the targets."""
        count = 1 + self.config.value_samples
        # The first row of noise draws a' of the target, the others the actions over which V(s) is averaged.
        noise = torch.randn(count, *batch.action.shape, generator=generator, device=generator.device)
        scaled = state.critic.scale(batch.action)
        # Q: (Q_i(s, a) - r - g (1 - terminated) min_j Q'_j(s', a'))^2, a' ~ pi(s')              (eq. 4)
        target = self.critic_target(state, batch, noise[0])
        metrics = regress_critics(state.critic, state.critic_optimiser, batch, target)
        # pi: -w(A(s, a)) log pi(a|s), A = Q(s, a) - E_{a~ ~ pi(s)} Q(s, a~), with the new Q       (eq. 8)
        advantage = self.advantage(state, batch.observation, scaled, noise=noise[1:])
        metrics |= self._update_policy(state, batch, advantage)
        # Q' <- (1 - tau) Q' + tau Q
        self.update_targets(state)
        return metrics

    def value(self, state: AWACState) -> PolicyValue:
        """The critics at the actor's action."""
        return PolicyValue(state.actor, state.critic)

    def passes(self, state: AWACState) -> tuple[NetworkPass, ...]:
        """The target and the critics; the new critics at the logged and at drawn actions; the clone.

        Drawing the policy's actions could reuse the clone's pass.
        """
        return (
            NetworkPass(state.actor.net),
            NetworkPass(state.target_critic.net),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.critic.net, rows=1 + self.config.value_samples),
            NetworkPass(state.actor.net, "parameters"),
        )

    @torch.no_grad()
    def critic_target(self, state: AWACState, batch: TransitionBatch, noise: Tensor) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) min_i Q_i(s', a')`, `a' ~ pi(s')`, target critics, no gradients."""
        next_value = self.next_value(state, batch.next_observation, noise)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    @torch.no_grad()
    def next_value(
        self, state: AWACState, next_obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s', a')` of the target critics at `a' ~ pi(s')`, without gradients."""
        # The least critic: an error that is too high would else become a target, and grow with every backup.
        return state.target_critic(next_obs, state.actor.scaled_sample(next_obs, noise)).amin(0)

    @torch.no_grad()
    def advantage(
        self, state: AWACState, obs: Tensor, scaled_action: Tensor, *, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a) - mean_j min_i Q_i(s, a_j)`, `a_j ~ pi(s)` from k rows of noise, no gradients."""
        # Both terms come from the same critics, so a level that all actions of a state share cancels. The
        # weight is a number: with a gradient through it the actor could raise its weights instead of cloning.
        own = state.critic.at_actions(obs, state.actor.scaled_sample(obs, noise))
        return state.critic(obs, scaled_action).amin(0) - own.amin(0).mean(0)

    def _update_policy(
        self, state: AWACState, batch: TransitionBatch, advantage: Tensor
    ) -> dict[str, Tensor]:
        config, beta = self.config, self.config.inverse_temperature
        # The softmax divides by the batch's mean weight, so only differences between its rows count; the
        # plain exponential keeps its size, and needs the cap.
        if config.weights == "softmax":
            weight = softmax_weight(advantage, inverse_temperature=beta)
        else:
            weight = exponential_weight(advantage, inverse_temperature=beta, max_weight=config.max_weight)
        # One row that carries the whole batch shows in the largest weight.
        return {**self.update_actor(state, batch, weight), "policy/weight_max": weight.max()}
