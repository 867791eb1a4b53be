"""Reanalyse: a planner improves decisions at logged states, and a learner distils them.

Sources: MuZero Unplugged (Schrittwieser et al. 2021, arXiv:2104.06294) for search on logged states with the
logged action among the candidates; sampled search for continuous actions (Hubert et al. 2021,
arXiv:2104.06303).

Departures:
- the model is fitted to the log once, and search pays for its uncertainty;
- a decision is kept only if its lower bound is no worse than that of the policy's own action, by the same
  search (safe acceptance); elsewhere the policy is held by its anchor alone;
- with a gate (`gate: members`) gains are first tested by long roll-outs in members that did not plan:
  improve, distil and evaluate anew, until the test finds no more;
- searches are made a thousand states at a time, with the networks of that moment, and are used for a few
  refreshes, as model rollouts are.
"""

import dataclasses
import math
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.algorithms.base import (
    RECIPES,
    Recipe,
    RecipeConfig,
    RecipeContext,
    Stream,
    data_value_bounds,
)
from mbrl.algorithms.imagination import TerminationSource, choose_termination
from mbrl.core.device import on_device
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import CriticValues, Policy, StateValueFn, TerminationFn
from mbrl.core.types import Metrics, SpaceSpec, StateDict, TransitionBatch
from mbrl.data.returns import LoggedEpisodes
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.learners.distil import DistilConfig
from mbrl.nets.action_box import ActionBox
from mbrl.ops.spread import robust_scale
from mbrl.planning.base import SOURCES, Budget, Hints, Planner, PlanResult
from mbrl.planning.choice import PlannerField
from mbrl.planning.improvement.gate import Gate, calibrate_gate
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.learned import learned_problem, with_pessimism
from mbrl.planning.problem.members import split_members
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.problem.uncertainty import UncertaintyConfig

Target: TypeAlias = Literal["weights", "action"]

_CHUNK_ROWS = 256
_DATASET = SOURCES.index("dataset")


class ReanalyseConfig(RecipeConfig):
    """Search on logged states as the source of decisions to learn.

    Attributes:
        planner: which one, with its settings; it has to compare its action with the policy's.
        sims: simulations or plans for each state.
        target: `weights` stores draws from the improved policy over the candidates; `action` the selected
            action, for many action dimensions.
        draws: decisions stored for each state (`weights` only).
        states: logged states that one refresh searches.
        refresh_interval: updates between two refreshes.
        retain: refreshes whose decisions the buffer can hold.
        search_from: updates before the first search; the clone and its values are learned in these.
        improved_ratio: share of improved decisions in a batch once there are some.
        injects_logged: whether the logged action is among the candidates.
        margin: what the lower bound of a decision must exceed that of the policy's own action by, return
            units.
        gate: whether gains are tested before any is accepted: `members` lets the first two thirds of the
            model's members plan and the others follow what was planned; gains below the level that held
            there are not accepted, and none is where no level held, so that improvement ends by itself.
        gate_states: logged states of that test, at each refresh.
        gate_horizon: steps that both actions are followed for.
        penalty_coef: lambda, on the uncertainty of imagined steps.
        lcb_coef: kappa, deviations over members that are subtracted from returns.
        uncertainty: how it is measured.
        termination: who ends imagined episodes: the `learned` head, the known rule of the `task` (or of the
            log), or nobody; `auto` takes the rule where there is one.
    """

    planner: PlannerField
    sims: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    target: Target = "weights"
    draws: Annotated[int, Field(ge=1, le=1000)] = 4
    states: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 500
    retain: Annotated[int, Field(ge=1, le=1000)] = 5
    search_from: Annotated[int, Field(ge=0, le=1_000_000_000)] = 5000
    improved_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    injects_logged: bool = True
    margin: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    gate: Literal["none", "members"] = "none"
    gate_states: Annotated[int, Field(ge=5, le=1_000_000)] = 100
    gate_horizon: Annotated[int, Field(ge=1, le=100_000)] = 200
    penalty_coef: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    lcb_coef: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    termination: TerminationSource = "auto"

    @model_validator(mode="after")
    def _values_belong_to_actions(self) -> "ReanalyseConfig":
        learner = self.learner.config
        # A drawn candidate is another action than the one whose value the row would hold.
        if isinstance(learner, DistilConfig) and learner.learns_search_values and self.target != "action":
            raise ValueError(
                "the search values the selected action: learns_search_values needs target=action"
            )
        return self


@RECIPES.register("reanalyse", "Decisions improved by search on logged states, accepted safely, distilled.")
class Reanalyse(Recipe):
    """A distilling learner on logged data and a planner's decisions."""

    Config = ReanalyseConfig
    needs_dynamics: ClassVar[bool] = True
    weighs_sources: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: ReanalyseConfig, context: RecipeContext) -> Stream:
        """A mixture of the dataset and a ring of improved decisions."""
        transitions, dynamics = context.logged(cls.__name__), context.model(cls.__name__)
        discount = config.learner.config.discount
        real = DatasetSource(transitions, context.mixture)
        draws = config.draws if config.target == "weights" else 1
        # The most rows that `retain` refreshes can accept.
        decisions = ModelBuffer(config.states * draws * config.retain, real.layout)
        search = DecisionSearch(
            config=config,
            space=context.space,
            transitions=transitions,
            dynamics=dynamics,
            termination=choose_termination(config.termination, context, dynamics),
            decisions=decisions,
            value_scale=_value_scale(transitions, context.episodes, discount),
        )
        return Stream(
            DecisionSource(real, decisions, improved_ratio=config.improved_ratio),
            refresh=search,
            refresh_interval=config.refresh_interval,
            value_bounds=data_value_bounds(transitions, discount),
        )


def _value_scale(transitions: TransitionBatch, episodes: LoggedEpisodes | None, discount: float) -> float:
    """Spread of the logged returns; that of a reward that goes on for ever where no episodes are noted."""
    if episodes is not None:
        return episodes.discounted_return_scale(discount=discount)
    # sum_t g^t of the reward's deviation: the largest that returns could deviate.
    return robust_scale(transitions.reward) / (1 - discount)


class DecisionSource:
    """Logged rows alone until the first improved decision arrives, then a mixture; a `BatchSource`.

    Args:
        real: logged rows.
        decisions: the ring of improved decisions.
        improved_ratio: share of these in a batch.
    """

    def __init__(self, real: DatasetSource, decisions: ModelBuffer, *, improved_ratio: float) -> None:
        self._real, self._decisions = real, decisions
        self._mixture = MixtureSource([(real, 1 - improved_ratio), (decisions, improved_ratio)])

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws a batch."""
        # Batches stay full-sized: until decisions arrive all rows are logged.
        source = self._real if len(self._decisions) == 0 else self._mixture
        return source.sample(batch_size, generator)

    def state_dict(self) -> StateDict:
        """Of both parts."""
        return self._mixture.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._mixture.load_state_dict(state)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSearch:
    """Searches logged states with the present policy and values, and stores what it accepts.

    A stored row is a last step whose reward is the lower bound of the selected action's value: critics of
    one-step targets may regress to it, if that action is what the row holds (`target: action`).
    """

    config: ReanalyseConfig
    space: SpaceSpec
    transitions: TransitionBatch
    dynamics: FittedDynamics
    termination: TerminationFn
    decisions: ModelBuffer
    value_scale: float

    def refresh_with_value(
        self, policy: Policy, value: StateValueFn | None, step: int, generator: torch.Generator
    ) -> Metrics:
        """Renews the decisions, unless it is too early.

        Raises:
            ConfigError: the learner has no critics, or the planner compares nothing with the policy.
        """
        # A search with fresh critics would find what they overrate.
        if step < self.config.search_from:
            return {}
        planner, judge = self._planner(policy, value)
        # What gain has to be exceeded: the margin, and the level of the gate.
        least, found = self.config.margin, {}
        if judge is not None:
            gate = self._gate(planner, judge, generator)
            least = math.inf if gate.threshold is None else max(least, gate.threshold)
            is_open = torch.tensor(float(gate.is_open), dtype=torch.float64)
            found = {"reanalyse/gate_open": is_open}
        shape, device = (self.config.states,), generator.device
        index = torch.randint(len(self.transitions), shape, generator=generator, device=device)
        # One stream for each state, so that chunks change no result.
        noise = RowNoise.draw(len(index), generator)
        gains: list[Tensor] = []
        sums: list[Tensor] = []
        for rows in (slice(k, k + _CHUNK_ROWS) for k in range(0, len(index), _CHUNK_ROWS)):
            obs, result = self._search(planner, index[rows], noise.rows(rows))
            # Safe acceptance: pessimistic values of both actions by the same search. NaN,
            # where they were not compared, accepts nothing.
            accepted = result.delta_lcb >= least
            if bool(accepted.any()):
                self.decisions.push(self._rows(obs, result, accepted, noise.rows(rows)))
            gains.append(result.delta_lcb)
            sums.append(_summary(result, accepted))
        if not bool(torch.cat(gains).isfinite().any()):
            raise ConfigError(
                f"The planner {self.config.planner.name!r} compared its action with the policy's nowhere, so "
                "nothing can be accepted. Remedy: raise algorithm.sims, or use another planner."
            )
        return {**dict(zip(_METRICS, torch.stack(sums).sum(0) / len(index), strict=True)), **found}

    def _gate(self, planner: Planner, judge: PlanningProblem, generator: torch.Generator) -> Gate:
        """Tests the planner's gains in members that it does not plan in, at states drawn from the log."""
        chosen = torch.randint(len(self.transitions), (self.config.gate_states,), generator=generator)
        return calibrate_gate(
            planner,
            judge,
            self.transitions.observation[chosen],
            # Drawn one by one from the whole log, states count each for itself.
            torch.arange(len(chosen)),
            horizon=self.config.gate_horizon,
            budget=Budget(self.config.sims),
            generator=generator,
        )

    def _planner(self, policy: Policy, value: StateValueFn | None) -> tuple[Planner, PlanningProblem | None]:
        """The planner, and what its gains are tested in; None for no test."""
        if not isinstance(value, CriticValues):
            raise ConfigError(
                f"reanalyse searches with the learner's critics, but {self.config.learner.name!r} has none. "
                "Remedy: set algorithm.learner.name=distil (over choices discrete_distil)."
            )
        config = self.config
        # With the present policy as prior and its critics at the leaves; the model stays that of the fit.
        problem = learned_problem(
            self.dynamics,
            policy,
            value,
            space=self.space,
            discount=config.learner.config.discount,
            uncertainty=config.uncertainty,
            termination=self.termination,
            value_scale=self.value_scale,
        )
        pessimism = Pessimism(penalty_coef=config.penalty_coef, lcb_coef=config.lcb_coef)
        device = self.transitions.observation.device
        problem = on_device(with_pessimism(problem, pessimism), device)
        if config.gate == "none":
            return config.planner.build(problem), None
        problem, judge = split_members(problem)
        # The judge is asked for what happens, not for what it would rather not be sure of.
        return config.planner.build(problem), dataclasses.replace(judge, pessimism=Pessimism())

    def _search(
        self, planner: Planner, index: Tensor, noise: RowNoise
    ) -> tuple[Float[Tensor, "b obs_dim"], PlanResult]:
        obs, mask = self.transitions.observation[index], self.transitions.action_mask
        hints = Hints(mask=None if mask is None else mask[index])
        if self.config.injects_logged:
            # The one action at this state whose outcome the log knows.
            hints = dataclasses.replace(
                hints, candidates=self._planned(self.transitions.action[index])[:, None]
            )
        return obs, planner.plan(obs, budget=Budget(self.config.sims), noise=noise, hints=hints)

    def _planned(self, action: Tensor) -> Tensor:
        """Logged actions as planners know them: in [-1, 1], or one-hot as they are."""
        if self.space.is_discrete:
            return action
        # Clamped: controllers log commands a little beyond their bounds.
        return ActionBox(self.space, action.device).scale(action).clamp(-1.0, 1.0)

    def _rows(self, obs: Tensor, result: PlanResult, accepted: Tensor, noise: RowNoise) -> TransitionBatch:
        """Accepted decisions as last steps."""
        actions = result.action[:, None]
        if self.config.target == "weights":
            actions = draw_candidates(result.weights, result.candidates, count=self.config.draws, noise=noise)
        count = actions.shape[1]
        action = actions[accepted].flatten(0, 1).to(obs.dtype)
        if not self.space.is_discrete:
            action = ActionBox(self.space, obs.device).unscale(action)
        # A decision for each draw, those of a state side by side.
        obs = obs[accepted].repeat_interleave(count, 0)
        # A last step: the reward is a return by itself, and nothing may be bootstrapped behind it.
        ended = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        return TransitionBatch(
            observation=obs,
            action=action,
            reward=result.value_lcb[accepted].repeat_interleave(count, 0).to(obs.dtype),
            # Never read, since the row has ended; s itself keeps it finite.
            next_observation=obs,
            terminated=ended,
            from_model=ended,
        )


_METRICS = (
    "reanalyse/acceptance_rate",
    "reanalyse/delta_lcb",
    "reanalyse/value",
    "reanalyse/uncertainty",
    "reanalyse/logged_rate",
)


def _summary(result: PlanResult, accepted: Tensor) -> Float[Tensor, "5"]:
    """Sums over states; the logged rate counts where the heaviest candidate is the logged action."""
    heaviest = result.weights.argmax(1, keepdim=True)
    is_logged = result.provenance.gather(1, heaviest)[:, 0] == _DATASET
    # NaN counts as 0 and its state stays in the mean: rates are over all states that were searched.
    columns = (accepted, result.delta_lcb.nan_to_num(), result.value, result.uncertainty, is_logged)
    return torch.stack([column.double().nan_to_num().sum() for column in columns])


def draw_candidates(
    weights: Float[Tensor, "b k"], candidates: Float[Tensor, "b k act_dim"], *, count: int, noise: RowNoise
) -> Float[Tensor, "b count act_dim"]:
    """Draws from the improved policy over the candidates, by stratified inversion of its distribution.

    The k-th draw lies in the k-th of `count` equal slices of probability, so that few draws cover it well.

    Args:
        weights: of the candidates; rows sum to 1.
        candidates: actions.
        count: draws for each state.
        noise: one stream a state.
    """
    upper = weights.double().cumsum(1)
    # The last bound is 1 exactly, whatever the weights sum to in float32.
    upper = upper / upper[:, -1:]
    # Place k lies in [k, k + 1): one draw in each of `count` equal slices.
    slices = torch.arange(count, dtype=torch.float64, device=upper.device)
    place = slices + noise.uniform("decision", (count,))
    index = torch.searchsorted(upper, place / count).clamp_max(upper.shape[1] - 1)
    return candidates[torch.arange(len(index), device=index.device)[:, None], index]
