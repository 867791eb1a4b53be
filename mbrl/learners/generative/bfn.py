"""BFN: a flow-matching clone of the log, and the best of N of its draws by critics that learn the same way.

Source: the baseline BFN of Li et al. 2025 (arXiv:2507.07969), after Chen et al. 2023 (arXiv:2209.14548); the
clone as in flow Q-learning, Park et al. 2025 (arXiv:2502.02538).

Departures from the authors' code:
- the target critics choose among the draws in a target and value the choice; the code chooses by the online
  critics;
- the evaluation policy judges the same draws of noise in every state instead of fresh ones: it is
  deterministic;
- observations are standardised inside the networks;
- SiLU in the velocity field and ReLU in the critics, where the code has GELU; weights start as in
  `torch.nn.Linear`.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser
from mbrl.learners.critics import regress_critics
from mbrl.nets.best_of import BEST_OF, BestOfPolicy, BestOfSpec
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.generative.flow import FLOW, FlowPolicy, FlowSpec
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.flow import straight_path
from mbrl.ops.losses import squared_action_error
from mbrl.ops.polyak import polyak_update
from mbrl.ops.spread import lower_bound
from mbrl.ops.targets import td_target


class BFNConfig(LearnerConfig):
    """Best of N draws of a flow-matching clone.

    Attributes:
        hidden: widths of the hidden layers of the critics.
        flow_hidden: widths of the hidden layers of the velocity field.
        flow_steps: Euler steps from noise to an action, each a pass of the field.
        critics: number of critics.
        critic_layer_norm: LayerNorm in the critics.
        pessimism: deviations of the critics that are taken off their mean wherever draws are ranked or
            valued; 0 is their mean, 1 with two critics the least of them.
        target_candidates: N in a Bellman target; 1 evaluates the clone.
        acting_candidates: N of the policy; 1 is the clone itself.
        flow_learning_rate: Adam rate of the velocity field.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    flow_hidden: Hidden = (256, 256)
    flow_steps: Annotated[int, Field(ge=1, le=1000)] = 5
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    critic_layer_norm: bool = True
    pessimism: Annotated[float, Field(ge=0, le=1000)] = 0.0
    target_candidates: Annotated[int, Field(ge=1, le=10_000)] = 4
    acting_candidates: Annotated[int, Field(ge=1, le=10_000)] = 16
    flow_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class BFNState(LearnerState):
    """Networks and optimisers; the policy holds the clone and the critics."""

    policy: BestOfPolicy
    target_critic: CriticEnsemble
    flow_optimiser: Optimiser
    critic_optimiser: Optimiser

    @property
    def clone(self) -> FlowPolicy:
        """Who draws."""
        behaviour = self.policy.behaviour
        assert isinstance(behaviour, FlowPolicy)
        return behaviour

    @property
    def critic(self) -> CriticEnsemble:
        """What ranks."""
        return self.policy.ranker


@dataclasses.dataclass(frozen=True, slots=True)
class BFNValue:
    """Values as draws are ranked: `mean_i Q_i - pessimism std_i Q_i`.

    Attributes:
        policy: acts and ranks.
    """

    policy: BestOfPolicy

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """Of the policy's deterministic action."""
        return self.action_value(obs, self.policy.act(obs))

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Of `action`, environment units."""
        return self.policy.rank(obs, action[None])[0]

    @torch.no_grad()
    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """`Q_i(s, a)` of every critic."""
        return self.policy.ranker(obs, self.policy.scale(action))


@LEARNERS.register("bfn", "BFN: the best of N draws of a flow-matching clone, by critics of the same rule.")
class BFN:
    """The BFN learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    Config: ClassVar[type[LearnerConfig]] = BFNConfig

    def __init__(self, config: BFNConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> BFNState:
        """Fresh networks and optimisers."""
        config, space = self.config, self.context.space
        spec = BestOfSpec(
            BEST_OF,
            space,
            behaviour=FlowSpec(FLOW, space, config.flow_hidden, config.flow_steps),
            candidates=config.acting_candidates,
            rankers=config.critics,
            rank_hidden=config.hidden,
            rank_layer_norm=config.critic_layer_norm,
            pessimism=config.pessimism,
        )
        policy = BestOfPolicy(spec, copy.deepcopy(self.context.normaliser), generator)
        assert isinstance(policy.behaviour, FlowPolicy)
        return BFNState(
            policy=policy,
            # Targets move by averaging alone; without gradients their passes keep no activations.
            target_critic=copy.deepcopy(policy.ranker).requires_grad_(requires_grad=False),
            flow_optimiser=Optimiser(policy.behaviour.field.flat, config.flow_learning_rate),
            critic_optimiser=Optimiser(policy.ranker.net.flat, config.critic_learning_rate),
        )

    def update(self, state: BFNState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, the velocity field and the target critics."""
        rows, size, count = len(batch), self.context.space.act_dim, self.config.target_candidates
        device = generator.device
        # Starts of the flow of the whole update at once: `count` for each row of the targets, one to learn.
        draws = torch.randn(count + 1, rows, size, generator=generator, device=device)
        time = torch.rand(rows, generator=generator, device=device)
        # Q: (Q_i(s, a) - r - g (1 - terminated) max_j Q'(s', a_j))^2, a_j ~ clone(s')
        target = self.critic_target(state, batch, draws[:count])
        metrics = regress_critics(state.critic, state.critic_optimiser, batch, target)
        # v: |v(s, x_t, t) - (a - x_0)|^2, x_t = (1 - t) x_0 + t a, x_0 ~ N(0, I), t ~ U(0, 1)
        loss = self.flow_loss(state, batch, draws[count], time)
        state.flow_optimiser.descend(loss)
        # Q' <- (1 - tau) Q' + tau Q
        tau = self.config.polyak_tau
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=tau)
        return {**metrics, "policy/loss": loss.detach()}

    def policy(self, state: BFNState) -> BestOfPolicy:
        """The best of N draws."""
        return state.policy

    def value(self, state: BFNState) -> BFNValue:
        """The critics, joined as for ranking."""
        return BFNValue(state.policy)

    def passes(self, state: BFNState) -> tuple[NetworkPass, ...]:
        """Draws at s', each a pass of the field a step; target critics at them; critics and field trained."""
        field, count = state.clone.field, self.config.target_candidates
        return (
            NetworkPass(field, rows=count * self.config.flow_steps),
            NetworkPass(state.target_critic.net, rows=count),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(field, "parameters"),
        )

    def flow_loss(
        self,
        state: BFNState,
        batch: TransitionBatch,
        noise: Float[Tensor, "b act_dim"],
        time: Float[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """`mean |v(s, x_t, t) - (a - x_0)|^2 / act_dim`, x_t on the line from `noise` x_0 to the action."""
        clone = state.clone
        # In [-1, 1]: noise of deviation 1 is then of the size of the actions, whatever their units.
        point, velocity = straight_path(noise, clone.scale(batch.action), time)
        predicted = clone.velocity(clone.normaliser(batch.observation), point, time)
        return squared_action_error(predicted, velocity)

    @torch.no_grad()
    def critic_target(
        self, state: BFNState, batch: TransitionBatch, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) max_j Q'(s', a_j)`, a_j the clone's draw from `noise[j]`.

        Q' is the mean of the target critics less `pessimism` of their deviations.
        """
        # Draws of the log's own distribution: no critic is asked about an action that nobody would take.
        action = state.clone.scaled_sample(batch.next_observation, noise)
        values = state.target_critic.at_actions(batch.next_observation, action)
        # Critics are joined first, the maximum over draws last: where critics disagree a draw loses.
        best = lower_bound(values, self.config.pessimism).amax(0)
        return td_target(batch.reward, batch.terminated, best, discount=self.config.discount)
