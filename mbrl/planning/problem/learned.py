"""A fitted model, a policy and its critics as what planners plan in."""

import dataclasses
from typing import Annotated, Literal, Protocol, TypeAlias, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import (
    CriticValues,
    DiscretePolicy,
    DynamicsModel,
    Policy,
    StochasticPolicy,
    TerminationFn,
)
from mbrl.core.types import DynamicsPosterior, SpaceSpec
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.nets.action_box import ActionBox
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import LeafValue, Pessimism, PlanningProblem, Prior, StepOut
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, Measure
from mbrl.uncertainty.penalty import UNIT_QUANTILE, UnitFree

DoubtName: TypeAlias = Literal["target_q_std", "ens_std", "max_aleatoric", "max_dev", "max_pair", "total_std"]

_TERMINATES_FROM = 0.5
_MODE_SEED = 0


class DoubtConfig(BaseModel):
    """How u, the uncertainty of an imagined step, is measured; always in reward units.

    Attributes:
        measure: `target_q_std` is the deviation over members of what the step leads to,
            `r_e + discount (1 - ended_e) Q(s'_e, a')`; any other is a measure of the posterior in units of
            its 0.95 quantile on held-out data, times the deviation of the logged rewards.
        action_samples: draws of a' for `target_q_std`; 0 takes the policy's mode.
        proposal_std: deviation of proposals around a policy that has no density, half-range units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: DoubtName = "target_q_std"
    action_samples: Annotated[int, Field(ge=0, le=1000)] = 0
    proposal_std: Annotated[float, Field(gt=0, le=2)] = 0.2


@runtime_checkable
class Doubt(Protocol):
    """How unsure the members together are of a step."""

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        posterior: DynamicsPosterior,
    ) -> Float[Tensor, "r"]:
        """u, reward units, >= 0; `action` in environment units."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureDoubt:
    """`c_r u(posterior)`: a unit-free measure in units of the logged rewards' deviation.

    Attributes:
        measure: of the posterior alone.
        reward_scale: c_r, reward units.
    """

    measure: Measure
    reward_scale: float

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        posterior: DynamicsPosterior,
    ) -> Float[Tensor, "r"]:
        """The measure, scaled."""
        del obs, action
        return self.reward_scale * self.measure(posterior)


@dataclasses.dataclass(frozen=True, slots=True)
class TargetDoubt:
    """`std_e [r_e + g (1 - ended_e) mean_{a'} Q(s'_e, a')]` of the members' means, population deviation.

    Q is the mean of the critics. The draws of a' are the same for all rows and members, so that u is a
    function of the step and members that agree have none.

    Attributes:
        termination: probability of termination.
        prior: acts at successors.
        leaf: critics.
        discount: g.
        action_samples: draws of a'; 0 takes the mode.
    """

    termination: TerminationFn
    prior: Prior
    leaf: LeafValue
    discount: float
    action_samples: int = 0

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        posterior: DynamicsPosterior,
    ) -> Float[Tensor, "r"]:
        """The deviation of the targets."""
        ended = ends(self.termination, obs, action, posterior.mean)
        alive = self.discount * (~ended).to(posterior.reward_mean.dtype)
        value = self._value(posterior.mean.flatten(0, 1)).view_as(alive)
        return torch.addcmul(posterior.reward_mean, alive, value).std(0, correction=0)

    def _value(self, obs: Float[Tensor, "n obs_dim"]) -> Float[Tensor, "n"]:
        if self.action_samples == 0:
            return self.leaf.value(obs).mean(0)
        shape = (self.action_samples, 1, self.prior.act_dim)
        noise = RowNoise(torch.tensor([_MODE_SEED], device=obs.device)).normal("target", shape)[0]
        noise = noise.to(obs.dtype).expand(-1, len(obs), -1)
        if self.prior.is_discrete:
            actions = torch.stack([self.prior.act(obs, draw) for draw in noise])
        else:
            actions = self.prior.sample(obs, noise)
        rows = obs.expand(self.action_samples, *obs.shape).flatten(0, 1)
        values = self.leaf.action_value(rows, actions.flatten(0, 1)).mean(0)
        return values.view(self.action_samples, -1).mean(0)


class LearnedStep:
    """One imagined step in a fitted ensemble; a `StepFn`.

    Args:
        model: the members.
        termination: probability of termination; from 0.5 on a step ends the task.
        box: maps [-1, 1] to the task's actions; None for one-hot actions, which pass as they are.
        doubt: measures u; None computes none, and a row that asks for one member costs one member.
    """

    def __init__(
        self,
        model: DynamicsModel,
        termination: TerminationFn,
        box: ActionBox | None,
        *,
        doubt: Doubt | None = None,
    ) -> None:
        self.model, self.termination, self.box, self.doubt = model, termination, box, doubt

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        return self.model.ensemble_size

    @torch.no_grad()
    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        *,
        member: Int[Tensor, "r"] | None = None,
        noise: Float[Tensor, "r outcome"] | None = None,
    ) -> StepOut:
        """See `mbrl.planning.problem.problem.StepFn`; all members are given the same draws."""
        raw = action if self.box is None else self.box.unscale(action)
        uncertainty = torch.zeros_like(obs[:, 0])
        if member is not None and self.doubt is None:
            moments = self.model.predict_member(obs, raw, member)
        else:
            posterior = self.model.predict(obs, raw)
            if self.doubt is not None:
                uncertainty = self.doubt(obs, raw, posterior)
            moments = (posterior.mean, posterior.variance, posterior.reward_mean, posterior.reward_variance)
            if member is not None:
                rows = torch.arange(len(obs), device=obs.device)
                moments = tuple(part[member, rows] for part in moments)
        next_obs, reward = _draw(*moments, noise=noise)
        return StepOut(next_obs, reward, ends(self.termination, obs, raw, next_obs), uncertainty)


def _draw(
    mean: Tensor, variance: Tensor, reward: Tensor, reward_variance: Tensor, *, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    if noise is None:
        return mean, reward
    next_obs = torch.addcmul(mean, variance.sqrt(), noise[:, :-1])
    return next_obs, torch.addcmul(reward, reward_variance.sqrt(), noise[:, -1])


def ends(
    termination: TerminationFn, obs: Tensor, action: Tensor, next_obs: Float[Tensor, "*e r obs_dim"]
) -> Bool[Tensor, "*e r"]:
    """Whether a step ends the task, with probability above 0.5, for each member's successor."""
    if next_obs.dim() == 2:
        return termination(obs, action, next_obs) > _TERMINATES_FROM
    members = len(next_obs)
    obs, action = (x.expand(members, *x.shape).flatten(0, 1) for x in (obs, action))
    return (termination(obs, action, next_obs.flatten(0, 1)) > _TERMINATES_FROM).view(members, -1)


class PolicyPrior:
    """A policy over a box as a `Prior`: actions in [-1, 1].

    Draws of a policy with a density are its own; `spread` multiplies its noise, so its deviation before it
    is squashed or clipped. A policy without a density proposes `clip(pi(s) + proposal_std spread eps)`.

    Args:
        policy: acts in environment units.
        box: of the task's actions.
        proposal_std: deviation of proposals, half-range units, for policies without a density.
    """

    def __init__(self, policy: Policy, box: ActionBox, *, proposal_std: float = 0.2) -> None:
        self.policy, self.box, self.proposal_std = policy, box, proposal_std

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.policy.act_dim

    @property
    def is_discrete(self) -> bool:
        """False."""
        return False

    def act(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "r act_dim"] | None = None
    ) -> Float[Tensor, "r act_dim"]:
        """The mode, or a draw."""
        if noise is None:
            return self._scaled(self.policy.act(obs))
        return self.sample(obs, noise[None])[0]

    def sample(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "k r act_dim"], *, spread: float = 1.0
    ) -> Float[Tensor, "k r act_dim"]:
        """`k` draws for each observation."""
        if isinstance(self.policy, StochasticPolicy):
            return self._scaled(self.policy.sample(obs, len(noise), noise * spread))
        mode = self._scaled(self.policy.act(obs))
        return torch.add(mode, noise, alpha=self.proposal_std * spread).clamp(-1.0, 1.0)

    def logits(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r act_dim"]:
        """Refused.

        Raises:
            ConfigError: always: a box has no list of actions.
        """
        del obs
        raise ConfigError(
            "A policy over a box of actions has no logits: use a planner for continuous actions."
        )

    def _scaled(self, action: Tensor) -> Tensor:
        return self.box.scale(action).clamp(-1.0, 1.0)


class DiscretePrior:
    """A policy over finitely many actions as a `Prior`: one-hot vectors.

    Args:
        policy: knows its probabilities.
    """

    def __init__(self, policy: DiscretePolicy) -> None:
        self.policy = policy

    @property
    def act_dim(self) -> int:
        """Number of actions."""
        return self.policy.act_dim

    @property
    def is_discrete(self) -> bool:
        """True."""
        return True

    def act(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "r act_dim"] | None = None
    ) -> Float[Tensor, "r act_dim"]:
        """The policy's own action, or a draw of it."""
        return self.policy.act(obs, noise)

    def sample(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "k r act_dim"], *, spread: float = 1.0
    ) -> Float[Tensor, "k r act_dim"]:
        """Refused.

        Raises:
            ConfigError: always: planners of discrete actions read `logits`.
        """
        del obs, noise, spread
        raise ConfigError(
            "A policy over finitely many actions is not sampled: use a planner for discrete ones."
        )

    def logits(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r act_dim"]:
        """`log pi(a|s)`, finite: a probability of 0 becomes the least positive number."""
        probs = self.policy.probs(obs)
        return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


class CriticLeaf:
    """Critics of a policy as a `LeafValue`: `V_j(s) = Q_j(s, mode(s))`, never evaluated at terminal states.

    Args:
        critics: Q in environment units.
        prior: whose mode acts at leaves.
        box: of the task's actions; None for one-hot actions.
        unit: of the critics' values, reward units; critics of rescaled rewards have another than 1.
    """

    def __init__(
        self, critics: CriticValues, prior: Prior, box: ActionBox | None, *, unit: float = 1.0
    ) -> None:
        self.critics, self.prior, self.box, self.unit = critics, prior, box, unit

    def value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "c r"]:
        """Q of the prior's mode."""
        return self.action_value(obs, self.prior.act(obs))

    def action_value(
        self, obs: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"]
    ) -> Float[Tensor, "c r"]:
        """Q of an action."""
        raw = action if self.box is None else self.box.unscale(action)
        values = self.critics.action_values(obs, raw).to(obs.dtype)
        return values if self.unit == 1.0 else values * self.unit


def make_prior(policy: Policy, space: SpaceSpec, *, proposal_std: float = 0.2) -> Prior:
    """A policy of either kind as what proposes actions."""
    if isinstance(policy, DiscretePolicy):
        return DiscretePrior(policy)
    return PolicyPrior(policy, ActionBox(space), proposal_std=proposal_std)


def learned_problem(
    dynamics: FittedDynamics,
    policy: Policy,
    critics: CriticValues,
    *,
    space: SpaceSpec,
    discount: float,
    doubt: DoubtConfig | None = None,
    termination: TerminationFn | None = None,
    value_unit: float = 1.0,
    value_scale: float = 1.0,
) -> PlanningProblem:
    """What planners plan in, without pessimism yet: its step measures u, for `calibrate_planner`.

    Args:
        dynamics: the fitted model.
        policy: proposes actions and acts at leaves.
        critics: of the policy, environment units.
        space: sizes and bounds.
        discount: g.
        doubt: how u is measured.
        termination: a task's known rule; None takes the learned head.
        value_unit: of the critics' values, reward units.
        value_scale: spread of the returns of the data, return units.

    Raises:
        ConfigError: the fit stored no quantile of the measure.
    """
    config = DoubtConfig() if doubt is None else doubt
    prior = make_prior(policy, space, proposal_std=config.proposal_std)
    box = None if prior.is_discrete else ActionBox(space)
    leaf = CriticLeaf(critics, prior, box, unit=value_unit)
    ending = dynamics.termination if termination is None else termination
    measured: Doubt = TargetDoubt(ending, prior, leaf, discount, config.action_samples)
    if config.measure != "target_q_std":
        measured = _posterior_doubt(config.measure, dynamics)
    step = LearnedStep(dynamics.model, ending, box, doubt=measured)
    return PlanningProblem(step, prior, leaf, space.obs_dim, discount, value_scale=value_scale)


def with_pessimism(problem: PlanningProblem, pessimism: Pessimism) -> PlanningProblem:
    """The problem at a price of doubt; where nothing reads u, its steps no longer compute it."""
    step = problem.step
    if not pessimism.reads_uncertainty and isinstance(step, LearnedStep):
        step = LearnedStep(step.model, step.termination, step.box)
    return dataclasses.replace(problem, step=step, pessimism=pessimism)


def _posterior_doubt(name: DoubtName, dynamics: FittedDynamics) -> MeasureDoubt:
    assert name in POSTERIOR_MEASURES
    quantiles = dynamics.thresholds.get(name, {})
    if UNIT_QUANTILE not in quantiles:
        raise ConfigError(
            f"The fit stored no {UNIT_QUANTILE:g} quantile of the measure {name!r}, its unit. "
            "Remedy: use measure=target_q_std, or fit again."
        )
    measure = UnitFree(MEASURES.get(name), quantiles[UNIT_QUANTILE])
    return MeasureDoubt(cast("Measure", measure), dynamics.reward_scale)
