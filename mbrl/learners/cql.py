"""Conservative Q-learning: a soft actor-critic whose critics are pressed down where there are no data.

Source: Kumar et al. 2020 (arXiv:2006.04779), eq. 4 and appendix F: CQL(H). On batches that hold imagined
transitions the same term is that of COMBO (Yu et al. 2021, arXiv:2102.08363, eq. 2).

Departures:
- the log-sum-exp subtracts `log 3n` and divides only Q by the temperature, so that it estimates
  `T log of the integral of exp(Q/T)` at every T; several releases do neither;
- means are over the rows concerned, so the share of imagined rows does not change the weight of a term;
- all networks learn from the first update: no cloning phase.
"""

import dataclasses
import math
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, Optimiser
from mbrl.learners.soft_actor_critic import SoftActorCritic, SoftActorCriticConfig, SoftActorCriticState
from mbrl.nets.chunked import chunked_sum
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.conservative import log_integral_exp, soft_maximum
from mbrl.ops.gaussian import LOG_2
from mbrl.ops.losses import masked_mean
from mbrl.ops.targets import td_target

Estimator: TypeAlias = Literal["importance", "unweighted"]
States: TypeAlias = Literal["all", "imagined"]
TargetForm: TypeAlias = Literal["sample", "max_of_min", "min_of_max"]

MAX_LAGRANGE_FACTOR: Final = 1e6

_CHUNK_ROWS = 960
"""State-action pairs in a chunk: 32 states of 30 actions, whose activations fit a cache of 2 MiB."""


class CQLConfig(SoftActorCriticConfig):
    """Conservative Q-learning.

    Attributes:
        conservative_weight: of the term beside the Bellman error.
        conservative_actions: n; the term samples n uniform actions, n of the policy at s and n of the policy
            at s' for each state.
        conservative_temperature: T of the log-sum-exp.
        conservative_states: where the log-sum-exp is taken: at `all` rows of a batch, or at the `imagined`
            ones; a batch without imagined rows takes all.
        estimator: `importance` weights actions by their density; `unweighted` is the plain log-sum-exp over
            the samples and the logged action.
        lagrange_gap: the weight is multiplied by a factor that grows while the term exceeds this gap (return
            units) and shrinks below it; None keeps the weight as it is. It is 1,000,000 at most.
        lagrange_factor: that factor at the start.
        lagrange_learning_rate: Adam rate of its logarithm.
        target: `sample` bootstraps on one action; the others on the best of `target_actions`: the greatest
            least critic, or the least of each critic's greatest value. Those have no entropy.
        target_actions: of a target that takes the best.
    """

    hidden: Hidden = (256, 256, 256)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    has_entropy_backup: bool = False
    conservative_weight: Annotated[float, Field(ge=0, le=1e4)] = 5.0
    conservative_actions: Annotated[int, Field(ge=1, le=1000)] = 10
    conservative_temperature: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    conservative_states: States = "all"
    estimator: Estimator = "importance"
    lagrange_gap: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None
    lagrange_factor: Annotated[float, Field(gt=0, le=MAX_LAGRANGE_FACTOR)] = 1.0
    lagrange_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    target: TargetForm = "sample"
    target_actions: Annotated[int, Field(ge=2, le=1000)] = 10

    @property
    def is_conservative(self) -> bool:
        """Unless the term has no weight."""
        return self.conservative_weight > 0

    @model_validator(mode="after")
    def _check_target(self) -> "CQLConfig":
        # A maximum over draws has no density: there is no log pi to subtract.
        if self.target != "sample" and self.has_entropy_backup:
            raise ValueError(f"target {self.target!r} has no entropy: set has_entropy_backup to false")
        return self


@dataclasses.dataclass(slots=True)
class CQLState(SoftActorCriticState):
    """Besides networks and optimisers the Lagrange factor."""

    log_lagrange_factor: nn.Parameter
    lagrange_optimiser: Optimiser


class Proposals(NamedTuple):
    """Actions at which the log-sum-exp is taken.

    Attributes:
        obs: `[b, obs_dim]`, raw units; every action is judged at the state of its column.
        actions: `[k, b, act_dim]`, scaled to [-1, 1].
        log_density: `[k, b]`, of the source of each action; None where actions are not weighted.
    """

    obs: Float[Tensor, "b obs_dim"]
    actions: Float[Tensor, "k b act_dim"]
    log_density: Float[Tensor, "k b"] | None


@LEARNERS.register("cql", "Conservative Q-learning: critics pressed down where there are no data.")
class CQL(SoftActorCritic[CQLConfig, CQLState]):
    """The CQL learner: see `SoftActorCritic` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = CQLConfig

    def __init__(self, config: CQLConfig, context: LearnerContext) -> None:
        super().__init__(config, context)
        # Read by the base's `update`, which draws the noise of targets and actor at once.
        self.target_draws = 1 if config.target == "sample" else config.target_actions

    def init(self, generator: torch.Generator) -> CQLState:
        """Fresh networks and optimisers."""
        # The logarithm is learned: the factor stays positive whatever a step of Adam does.
        log_factor = nn.Parameter(
            torch.full((), math.log(self.config.lagrange_factor), device=generator.device)
        )
        return CQLState(
            **self.build_parts(generator),
            log_lagrange_factor=log_factor,
            lagrange_optimiser=Optimiser(log_factor, self.config.lagrange_learning_rate),
        )

    def passes(self, state: CQLState) -> tuple[NetworkPass, ...]:
        """Those of the base; the policy at s and s', one pass each; the critics at all sampled actions."""
        logged = self.config.estimator == "unweighted"
        return (
            *super().passes(state),
            NetworkPass(state.actor.net, rows=2),
            NetworkPass(state.critic.net, "parameters", rows=3 * self.config.conservative_actions + logged),
        )

    @torch.no_grad()
    def critic_target(
        self, state: CQLState, batch: TransitionBatch, noise: Tensor, entropy_coef: Tensor
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) V(s')`, V as `CQLConfig.target` says, without gradients.

        Args:
            state: of this learner.
            batch: as in `update`.
            noise: `[b, act_dim]`; `[target_actions, b, act_dim]` for a target that takes the best.
            entropy_coef: temperature; read by `sample` only.
        """
        if self.config.target == "sample":
            return super().critic_target(state, batch, noise, entropy_coef)
        # Q_ij: critic i at draw j of pi(s'); max_j min_i, or min_i max_j.
        actions, _ = state.actor.sample_with_log_prob(batch.next_observation, noise)
        values = state.target_critic.at_actions(batch.next_observation, actions)
        least_first = self.config.target == "max_of_min"
        next_value = values.amin(0).amax(0) if least_first else values.amax(1).amin(0)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    @torch.no_grad()
    def propose(self, state: CQLState, batch: TransitionBatch, generator: torch.Generator) -> Proposals:
        """Draws the actions of the log-sum-exp: uniform, of pi at s, of pi at s', in this order.

        The unweighted form adds the logged action.
        """
        obs, next_obs, logged = self._conservative_rows(state, batch)
        # Three proposals of n actions each: uniform ones reach what the policy never proposes.
        shape = (self.config.conservative_actions, *logged.shape)
        uniform = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
        noise = torch.randn(2, *shape, generator=generator, device=generator.device)
        # Actions of pi at s' are judged at s as well (see `Proposals.obs`): the states differ little, and
        # those are the actions that the targets ask about.
        here, log_here = state.actor.sample_with_log_prob(obs, noise[0])
        there, log_there = state.actor.sample_with_log_prob(next_obs, noise[1])
        # Without weights the sum runs over the logged action as
        # well: it is then no less than that action's value.
        if self.config.estimator == "unweighted":
            return Proposals(obs, torch.cat([uniform, here, there, logged[None]]), None)
        # The density of a uniform action in [-1, 1]^d is 2^-d.
        log_uniform = torch.full_like(log_here, -logged.shape[-1] * LOG_2)
        return Proposals(
            obs, torch.cat([uniform, here, there]), torch.cat([log_uniform, log_here, log_there])
        )

    def soft_values(self, state: CQLState, proposals: Proposals) -> Float[Tensor, "n"]:
        """Mean over the states of each critic's log-sum-exp, `[n]`, differentiable in the critics."""
        obs, actions, log_density = proposals
        size = max(1, _CHUNK_ROWS // actions.shape[0])
        temperature = self.config.conservative_temperature

        def part(k: int) -> Tensor:
            # All actions of some states: the log-sum-exp is taken
            # within a state, so chunks only split the mean.
            rows = slice(k * size, (k + 1) * size)
            values = state.critic.at_actions(obs[rows], actions[:, rows])
            if log_density is None:
                return soft_maximum(values, temperature=temperature).sum(1)
            return log_integral_exp(values, log_density[:, rows], temperature=temperature).sum(1)

        # Summed by chunks and divided once, since the last chunk may be smaller.
        return chunked_sum(state.critic.net.flat, part, math.ceil(len(obs) / size)) / len(obs)

    def _conservative_rows(self, state: CQLState, batch: TransitionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Observation, next observation and scaled action of the rows that the term presses down."""
        parts = (batch.observation, batch.next_observation, state.critic.scale(batch.action))
        if self.config.conservative_states == "all":
            return parts
        rows = batch.from_model.nonzero()[:, 0]
        # The buffer of imagined rows is empty at first; a mean over no rows would switch the term off.
        if rows.numel() == 0:
            return parts
        obs, next_obs, action = (part.index_select(0, rows) for part in parts)
        return obs, next_obs, action

    def _critic_regulariser(
        self, state: CQLState, batch: TransitionBatch, values: Tensor, generator: torch.Generator
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        config = self.config
        # alpha (E_s [T log int exp(Q(s, a) / T) da] - E_D [Q(s, a)])    (Kumar et al. 2020, eq. 4)
        soft = self.soft_values(state, self.propose(state, batch, generator))
        # The data term holds up logged actions only: lifting imagined ones would undo the pressure on them.
        gap = soft - masked_mean(values, ~batch.from_model)
        metrics = {"critic/conservative_gap": gap.detach().mean()}
        if config.lagrange_gap is None:
            # Summed over critics like the Bellman error, so that their balance does not depend on N.
            return config.conservative_weight * gap.sum(), metrics
        # Critics descend with the factor as it is; the factor then ascends on the same gap (appendix F).
        factor = state.log_lagrange_factor.detach().exp()
        self._update_lagrange_factor(state, gap.detach().mean(), config.lagrange_gap)
        metrics["critic/lagrange_factor"] = factor
        return factor * config.conservative_weight * gap.sum(), metrics

    def _update_lagrange_factor(self, state: CQLState, gap: Tensor, wanted: float) -> None:
        """Ascends `factor * weight * (gap - wanted)` in the logarithm of the factor.

        The parameter is capped, not the factor in the loss: a capped loss has no gradient, and a factor that
        once got there would never come down.
        """
        # `gap` is detached: this step moves the factor and leaves the critics alone.
        loss = -state.log_lagrange_factor.exp() * self.config.conservative_weight * (gap - wanted)
        state.lagrange_optimiser.descend(loss)
        with torch.no_grad():
            state.log_lagrange_factor.clamp_(max=math.log(MAX_LAGRANGE_FACTOR))
