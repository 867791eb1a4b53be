"""A planner by tree search: root candidates, a search strategy, a report; whatever the strategy is."""

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import (
    Budget,
    Hints,
    PlannerConfig,
    PlanResult,
    PlanStats,
    check_call,
    leave_inference,
)
from mbrl.planning.deadline import Costs, Deadline, Rounds, halve
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.tree.evaluation import ModelEvaluation, Transition
from mbrl.planning.tree.proposals import Proposals, clip_to_box
from mbrl.planning.tree.search import Copies, Search, instantiate_trees
from mbrl.planning.tree.simulation import Backward, backward, backward_max
from mbrl.planning.tree.summary import follow_plan, pool_parts

NodeValue: TypeAlias = Literal["mean", "max"]

_BACKWARDS: Final[Mapping[NodeValue, Backward]] = {"mean": backward, "max": backward_max}

_MOST_SIMS: Final = 128
"""Of a budget in milliseconds alone: eight for each of 16 candidates. Storage for all of them is allocated
before the first, so that "as many as possible" needs an end."""

_FIRST_SIMS: Final = 32
"""While no round has been timed: two for each of 16 candidates, so that a first call is short."""


class TreeConfig(PlannerConfig):
    """What all tree searches share.

    Attributes:
        max_depth: edges from the root to the deepest leaf.
        transition: whose belief a step follows: `mean` of the members' means; `ts1`, a member drawn for each
            step and a draw of its Gaussian; `ts_inf`, trees with a fixed member that take turns;
            `member_forest`, a tree for every member, of which simulations are counted.
        particles: trees of a state under `ts_inf`; None for one a member.
        node_value: what a node is worth: the `mean` of all that came back through it, as in mctx; or the
            `max` of its leaf value and its best action, so that search cannot undo what precise leaves know.
            A maximum takes the errors of imprecise leaves for gains.
        injected_mass: prior mass that logged actions share at the root.
        keep_tree: whether the plan carries its trees, for explanations.
    """

    max_depth: Annotated[int, Field(ge=1, le=1000)] = 10
    transition: Transition = "member_forest"
    particles: Annotated[int, Field(ge=1, le=1000)] | None = None
    node_value: NodeValue = "mean"
    injected_mass: Annotated[float, Field(ge=0, lt=1)] = 0.25
    keep_tree: bool = False


class Choice(NamedTuple):
    """What a strategy decided.

    Attributes:
        slot: `[b]`, the candidate to take.
        weights: `[b, k]`, the improved policy; rows sum to 1.
        sims: simulations done for each state.
    """

    slot: Int[Tensor, "b"]
    weights: Float[Tensor, "b k"]
    sims: int


@runtime_checkable
class Strategy(Protocol):
    """Decides which simulations are run, and what they say."""

    @property
    def outcomes(self) -> int:
        """Successors that an edge may keep."""
        ...

    @property
    def widening(self) -> float:
        """Exponent of their number in visits."""
        ...

    @property
    def is_end_final(self) -> bool:
        """Whether terminal leaves are left alone."""
        ...

    def rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        ...

    def run(self, search: Search, *, sims: int, noise: RowNoise, rounds: Rounds) -> Choice:
        """Searches until simulations or rounds are used up."""
        ...


class TreePlanner:
    """Plans by tree search.

    Args:
        problem: what to plan in.
        config: what all tree searches share.
        proposals: candidates.
        strategy: which of them to try, and how often.
        clock: seconds; None permits no budget of milliseconds.

    Raises:
        ConfigError: the problem limits what a whole plan costs.
    """

    def __init__(
        self,
        problem: PlanningProblem,
        config: TreeConfig,
        *,
        proposals: Proposals,
        strategy: Strategy,
        clock: Clock | None,
    ) -> None:
        limits = problem.limits
        if limits is not None and limits.cost < math.inf:
            raise ConfigError(
                "A tree search does not know what whole plans cost, so that it keeps to no cost_limit. "
                "Remedy: a price (cost_price), or a planner that follows plans: mppi, icem, rollout."
            )
        self._problem, self._config = problem, config
        self._proposals, self._strategy = proposals, strategy
        self._clock = clock
        self._costs: Costs = {}

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in."""
        return self._problem

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """Plans, without gradients; see `Planner.plan`."""
        # Cheaper than no_grad by the version counters; the results leave it, since callers may train on them.
        with torch.inference_mode():
            result = self._plan(obs, budget=budget, noise=noise, hints=hints or Hints())
        return leave_inference(result)

    def _plan(self, obs: Tensor, *, budget: Budget, noise: RowNoise, hints: Hints) -> PlanResult:
        deadline = Deadline(budget, self._clock, self._costs)
        check_call(obs, noise, hints, problem=self._problem)
        obs = obs.to(self._problem.dtype)
        sims = self._affordable(budget, deadline, states=len(obs))
        # No time even for the roots: the policy's action, marked as a fallback.
        if sims == 0:
            return act_by_policy(self._problem, obs, milliseconds=deadline.milliseconds)
        # Before the search, so that there is an action whatever the model says.
        fallback, _ = clip_to_box(self._problem.prior.act(obs))
        evaluation = ModelEvaluation(
            self._problem,
            self._proposals,
            transition=self._config.transition,
            noise=noise,
            sims=sims,
            is_end_final=self._strategy.is_end_final,
        )
        start, work, finish = _works(len(obs))
        # 1. Root: the candidates at each state, and what the critic says of it.
        with deadline.timed(start):
            search = self._from_root(obs, evaluation, noise=noise, hints=hints, sims=sims)
        # 2. Search: rounds of simulations while there is budget.
        rounds = functools.partial(deadline.repeat, work, then=finish)
        choice = self._strategy.run(search, sims=sims, noise=noise, rounds=rounds)
        # 3. Report: the chosen candidate by parts, its plan, the improved policy.
        with deadline.timed(finish):
            return self._report(search, choice, evaluation=evaluation, fallback=fallback, deadline=deadline)

    def _affordable(self, budget: Budget, deadline: Deadline, *, states: int) -> int:
        """Simulations to begin with: the most that should fit into milliseconds, by halves; 0 for none."""
        if budget.milliseconds is None:
            assert budget.sims is not None
            return budget.sims
        start, work, finish = _works(states)
        if not deadline.permits(start, work, finish):
            return 0
        most = _MOST_SIMS if budget.sims is None else budget.sims
        cost = deadline.cost(work)
        if cost is None:
            return min(most, _FIRST_SIMS)
        # Root and report are paid for in any case; what is left buys rounds.
        rest = (deadline.cost(start) or 0.0) + (deadline.cost(finish) or 0.0)
        sizes = halve(most, 1)
        return next((size for size in sizes if deadline.fits(self._strategy.rounds(size) * cost + rest)), 1)

    def _from_root(
        self, obs: Tensor, evaluation: ModelEvaluation, *, noise: RowNoise, hints: Hints, sims: int
    ) -> Search:
        """The trees of every state, with their roots only."""
        problem, config = self._problem, self._config
        root = self._proposals.root(obs, noise, hints)
        members = problem.step.ensemble_size
        copies = {
            "mean": Copies(1, members),
            "ts1": Copies(1, members),
            "ts_inf": Copies(config.particles or members, members),
            "member_forest": Copies(members, members, is_forest=True),
        }[config.transition]
        tree = instantiate_trees(
            root,
            copies,
            is_stored=self._proposals.is_stored,
            inner_width=self._proposals.width,
            # A simulation makes one node at most, in a forest one in every tree.
            capacity=len(obs) * sims * (copies.count if copies.is_forest else 1),
            outcomes=self._strategy.outcomes,
            widening=self._strategy.widening,
            is_end_final=self._strategy.is_end_final,
            most_broken=None if problem.limits is None else problem.limits.share,
        )
        return Search(
            root=root,
            evaluate=evaluation,
            tree=tree,
            copies=copies,
            lcb_coef=problem.pessimism.lcb_coef,
            max_depth=config.max_depth,
            halt_threshold=problem.pessimism.halt_threshold,
            limits=problem.limits,
            # A random first tree: over many states no member is asked more often than others.
            turn=(noise.uniform("tree/turn", (1,)) * copies.count).long().squeeze(1),
            backward=_BACKWARDS[config.node_value],
        )

    def _report(
        self,
        search: Search,
        choice: Choice,
        *,
        evaluation: ModelEvaluation,
        fallback: Tensor,
        deadline: Deadline,
    ) -> PlanResult:
        # 1. The chosen candidate; the policy's mode where nothing in numbers came back from it.
        root, stats = search.root, search.stats()
        slot, kappa = choice.slot, self._problem.pessimism.lcb_coef
        visits = stats.visits.long()
        lost = visits.gather(1, slot[:, None]).squeeze(1) == 0
        slot = torch.where(lost, root.policy_slot, slot)
        # 2. Its value by parts, the mean over members, and their deviation for the lower bound.
        parts = pool_parts(search, slot)
        bootstrap = torch.where(lost, root.value, parts.bootstrap)
        value = parts.reward - parts.penalty + bootstrap
        deviation = stats.deviation.gather(1, slot[:, None]).squeeze(1)
        # 3. What to do after it.
        plan, length = follow_plan(search, slot)
        plan[:, 0] = torch.where(lost[:, None], fallback, plan[:, 0])
        limited, own = _limited(search, slot, visits), _limited(search, root.policy_slot, visits)
        one_hot = torch.nn.functional.one_hot(slot, root.logits.shape[1]).to(value.dtype)
        return PlanResult(
            action=plan[:, 0],
            plan=plan,
            plan_length=length,
            candidates=root.actions,
            weights=torch.where(lost[:, None], one_hot, choice.weights),
            visits=visits,
            provenance=root.provenance,
            value=value,
            value_lcb=value - kappa * deviation,
            reward_part=parts.reward,
            penalty_part=parts.penalty,
            bootstrap_part=bootstrap,
            uncertainty=parts.uncertainty,
            delta_lcb=_compare(stats.q, visits, slot=slot, other=root.policy_slot),
            limited=limited,
            policy_limited=own,
            stats=PlanStats(
                sims=choice.sims,
                rounds=search.rounds,
                model_rows=evaluation.model_rows,
                model_calls=evaluation.model_calls,
                milliseconds=deadline.milliseconds,
                is_deadline_hit=deadline.is_hit,
                is_fallback=lost,
                bad_rows=search.bad_rows,
                max_depth=search.deepest,
                clipped=root.clipped + int(evaluation.clipped),
            ),
            tree=search if self._config.keep_tree else None,
        )


def _limited(search: Search, slot: Tensor, visits: Tensor) -> Float[Tensor, "b 3"]:
    """What a candidate breaks and costs; NaN where it was not tried."""
    index = slot[None, :, None].expand(3, -1, 1)
    unknown = visits.gather(1, slot[:, None])[:, 0] == 0
    return search.limited().gather(2, index)[..., 0].masked_fill(unknown, torch.nan).T


def _works(states: int) -> tuple[tuple[str, int], ...]:
    """What a call does in turn, as a deadline knows it: the roots, rounds, the report."""
    return ("root", states), ("round", states), ("report", states)


def _compare(q: Tensor, visits: Tensor, *, slot: Tensor, other: Tensor) -> Float[Tensor, "b"]:
    """Difference of two candidates' Q; NaN where one was not visited."""
    both = torch.stack([slot, other], 1)
    # Both bounds come from one search with the same draws, so much of their error cancels.
    difference = q.gather(1, both[:, :1]) - q.gather(1, both[:, 1:])
    seen = (visits.gather(1, both) > 0).all(1)
    return difference.squeeze(1).masked_fill(~seen, torch.nan)
