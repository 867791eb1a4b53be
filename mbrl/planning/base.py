"""The planner's seam: a budget in, a plan with its reasons out."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from mbrl.core.registry import Registry
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem

SOURCES: Final = ("dataset", "clone", "policy", "flat_policy", "warm", "shooting", "uniform")
"""Where a candidate comes from; `PlanResult.provenance` counts in this order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """How long to think; with both limits, whichever comes first.

    Attributes:
        sims: simulations of a tree search, or plans that an optimiser scores, for each state.
        milliseconds: of the planner's clock, for the whole batch.

    Raises:
        ValueError: no limit, or one that is not positive.
    """

    sims: int | None = None
    milliseconds: float | None = None

    def __post_init__(self) -> None:
        if self.sims is None and self.milliseconds is None:
            raise ValueError("a budget needs `sims`, `milliseconds` or both")
        if self.sims is not None and self.sims < 1:
            raise ValueError(f"a budget of {self.sims} sims leaves nothing to do; give at least 1")
        if self.milliseconds is not None and not self.milliseconds > 0:
            raise ValueError(f"a budget of {self.milliseconds} ms leaves no time; give more than 0")


@dataclasses.dataclass(frozen=True, slots=True)
class PlanStats:
    """What planning cost, for the whole batch.

    Attributes:
        sims: simulations or plans done for each state.
        rounds: sequential rounds or iterations.
        model_rows: rows that went through the model.
        model_calls: sequential calls of the model.
        milliseconds: elapsed on the planner's clock; NaN without one.
        is_deadline_hit: planning stopped because of the clock.
        is_fallback: `[b]`, the action is the policy's own, because there was no time, no finite value, or a
            gate that did not believe in its gain.
        bad_rows: model rows that were NaN or infinite and were left out.
        max_depth: deepest node or horizon reached.
        clipped: actions that had to be clipped to [-1, 1] before a model call.
    """

    sims: int
    rounds: int
    model_rows: int
    model_calls: int
    milliseconds: float
    is_deadline_hit: bool
    is_fallback: Bool[Tensor, "b"]
    bad_rows: int
    max_depth: int
    clipped: int


@dataclasses.dataclass(frozen=True, slots=True)
class PlanResult:
    """Plans of `b` states; actions in [-1, 1] or one-hot.

    `value = reward_part - penalty_part + bootstrap_part`, up to rounding.

    Attributes:
        action: `[b, act_dim]`, what to do now.
        plan: `[b, l, act_dim]`, what to do after it, `action` first; rows beyond `plan_length` mean nothing.
        plan_length: `[b]`.
        candidates: `[b, k, act_dim]`, root actions that were compared.
        weights: `[b, k]`, the improved policy over them; rows sum to 1.
        visits: `[b, k]`, simulations that began with each; 0 for optimisers.
        provenance: `[b, k]`, index into `SOURCES`.
        value: `[b]`, of the selected action, mean over members.
        value_lcb: `[b]`, `value` less `lcb_coef` deviations over members.
        reward_part: `[b]`, discounted raw rewards.
        penalty_part: `[b]`, discounted penalties.
        bootstrap_part: `[b]`, discounted values of leaves.
        uncertainty: `[b]`, of the selected action's first step, reward units.
        delta_lcb: `[b]`, lower bound of the action less that of the policy's mode; NaN where not compared.
        stats: what it cost.
        limited: `[b, 3]`, of the selected plan: share of its futures that break the constraint, sum of its
            steps' costs, steps that break it, mean over futures; 0 without them. A tree search looks at the
            first step and at dead ends behind it, and tells the first step's cost.
        policy_limited: `[b, 3]`, the same of the policy's mode; NaN where nothing was imagined.
        tree: the search tree, if asked for.
        elites: `[b, m, l, act_dim]`, further plans that the planner would like to see again at the next step,
            in `Hints.elites`; None for none.
    """

    action: Float[Tensor, "b act_dim"]
    plan: Float[Tensor, "b l act_dim"]
    plan_length: Int[Tensor, "b"]
    candidates: Float[Tensor, "b k act_dim"]
    weights: Float[Tensor, "b k"]
    visits: Int[Tensor, "b k"]
    provenance: Int[Tensor, "b k"]
    value: Float[Tensor, "b"]
    value_lcb: Float[Tensor, "b"]
    reward_part: Float[Tensor, "b"]
    penalty_part: Float[Tensor, "b"]
    bootstrap_part: Float[Tensor, "b"]
    uncertainty: Float[Tensor, "b"]
    delta_lcb: Float[Tensor, "b"]
    stats: PlanStats
    limited: Float[Tensor, "b 3"]
    policy_limited: Float[Tensor, "b 3"]
    tree: Any = None
    elites: Float[Tensor, "b m l act_dim"] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Hints:
    """What a caller may know of the states.

    Attributes:
        warm: `[b, l, act_dim]`, the plan of the step before, already shifted by one; None for none.
        has_warm: `[b]`, rows whose `warm` counts; None for all.
        mask: `[b, act_dim]`, discrete actions that are allowed; None for all.
        candidates: `[b, k, act_dim]`, actions to inject at the root (the logged ones); None for none.
        elites: `[b, m, l, act_dim]`, `PlanResult.elites` of the step before, already shifted by one; they
            count in the rows of `has_warm`. None for none.
    """

    warm: Float[Tensor, "b l act_dim"] | None = None
    has_warm: Bool[Tensor, "b"] | None = None
    mask: Bool[Tensor, "b act_dim"] | None = None
    candidates: Float[Tensor, "b k act_dim"] | None = None
    elites: Float[Tensor, "b m l act_dim"] | None = None


@runtime_checkable
class Planner(Protocol):
    """Plans for a batch of states. Stateless: what is carried from step to step is in `Hints`."""

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in."""
        ...

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """Plans, without gradients.

        Args:
            obs: `[b, obs_dim]`, raw units, finite.
            budget: when to stop.
            noise: one stream a state; a state's plan depends on its own stream alone.
            hints: what is known besides.

        Raises:
            ValueError: naming the row, for observations that are not finite, masks without a valid action,
                shapes that do not fit.
        """
        ...


class PlannerConfig(BaseModel):
    """Base of every planner's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclasses.dataclass(frozen=True, slots=True)
class PlannerEntry:
    """A planner in the registry.

    Attributes:
        config: class of its settings.
        build: makes it from a problem, settings and a clock (None permits no budget of milliseconds).
        is_discrete: whether it plans one-hot actions.
        is_continuous: whether it plans actions in a box.
    """

    config: type[PlannerConfig]
    build: Callable[[PlanningProblem, Any, Clock | None], Planner]
    is_discrete: bool
    is_continuous: bool


PlannerTable: TypeAlias = Registry[PlannerEntry]

PLANNERS: PlannerTable = Registry(
    "planner",
    "mbrl.planning",
    group="mbrl.planners",
    spelling='mbrl.registry("planners")',
    needs=("config", "build", "is_discrete", "is_continuous"),
)


def check_observations(obs: Tensor, problem: PlanningProblem) -> None:
    """Refuses observations that nobody can plan from.

    Raises:
        ValueError: naming the first bad row.
    """
    if obs.ndim != 2 or obs.shape[1] != problem.obs_dim:
        raise ValueError(f"observations are [b, {problem.obs_dim}], not {list(obs.shape)}")
    bad = torch.nonzero(~obs.isfinite().all(-1)).flatten()
    if len(bad):
        raise ValueError(f"observation in row {int(bad[0])} is not finite")


def check_hints(hints: Hints, rows: int, problem: PlanningProblem) -> None:
    """Refuses hints that fit no plan of `rows` states.

    Raises:
        ValueError: a mask of continuous actions, elites without a warm plan, a shape that does not fit, no
            valid action, or a number that is not finite, naming the row.
    """
    if hints.mask is not None:
        _check_mask(hints.mask, rows, problem)
    if hints.elites is not None and hints.warm is None:
        raise ValueError("elites come with the warm plan of the same step")
    act_dim = problem.prior.act_dim
    for name, given, axes in (
        ("candidates", hints.candidates, "k"),
        ("warm", hints.warm, "l"),
        ("elites", hints.elites, "m, l"),
    ):
        if given is None:
            continue
        fits = given.ndim == (4 if name == "elites" else 3)
        fits = fits and (len(given), given.shape[-1]) == (rows, act_dim)
        is_empty = name == "candidates" and fits and given.shape[1] == 0
        if not fits or is_empty:
            least = " with k > 0" if name == "candidates" else ""
            raise ValueError(f"{name} are [{rows}, {axes}, {act_dim}]{least}, not {list(given.shape)}")
        bad = ~given.flatten(1).isfinite().all(1)
        if name != "candidates" and hints.has_warm is not None:
            bad = bad & hints.has_warm.to(bad.device)
        if bool(bad.any()):
            raise ValueError(f"{name} in row {int(bad.nonzero()[0])} are not finite")


def _check_mask(mask: Tensor, rows: int, problem: PlanningProblem) -> None:
    act_dim = problem.prior.act_dim
    if not problem.prior.is_discrete:
        raise ValueError("masks are for discrete actions")
    if mask.shape != (rows, act_dim):
        raise ValueError(f"masks are [{rows}, {act_dim}], not {list(mask.shape)}")
    empty = torch.nonzero(~mask.any(-1)).flatten()
    if len(empty):
        raise ValueError(f"the mask of row {int(empty[0])} leaves no valid action")


def check_call(obs: Tensor, noise: RowNoise, hints: Hints, *, problem: PlanningProblem) -> None:
    """Refuses what nobody can plan from: observations, hints, another number of streams than of states.

    Raises:
        ValueError: naming the row where there is one.
    """
    check_observations(obs, problem)
    check_hints(hints, len(obs), problem)
    if len(noise.seeds) != len(obs):
        raise ValueError(f"{len(obs)} states need as many streams of noise, not {len(noise.seeds)}")


def leave_inference(result: PlanResult) -> PlanResult:
    """The same with ordinary tensors: those of `inference_mode` would be refused as targets of a loss."""
    tensors = {
        field.name: value.clone()
        for field in dataclasses.fields(result)
        if isinstance(value := getattr(result, field.name), Tensor)
    }
    stats = dataclasses.replace(result.stats, is_fallback=result.stats.is_fallback.clone())
    return dataclasses.replace(result, stats=stats, **tensors)
