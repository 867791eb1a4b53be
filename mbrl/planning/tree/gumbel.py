"""Gumbel MuZero: planning that improves the policy with few simulations.

Danihelka, Guez, Schrittwieser & Silver, "Policy improvement by planning with Gumbel" (ICLR 2022). At the
root, sequential halving over the actions that lead in `gumbel + logits + sigma(q)`; below it, the action
whose visits lag most behind the improved policy.

Departures: a round visits all considered actions at once, and the set is chosen once a phase
(`exact="rounds"`); `exact="mctx"` goes one by one, as mctx does. Values are normalised with a floor of the
size of the critics' error, so that noise is not stretched over [0, 1].
"""

from typing import Annotated, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.deadline import Rounds
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.tree.halving import Round, considered_visits, halving_rounds
from mbrl.planning.tree.planner import Choice, TreeConfig, TreePlanner
from mbrl.planning.tree.proposals import (
    MASS_FLOOR,
    DiscreteProposals,
    RootSet,
    SampledActions,
    SampledProposals,
    mask_logits,
)
from mbrl.planning.tree.search import RootStats, Search
from mbrl.planning.tree.tree import Select

_EXACT_FLOOR = 1e-8
_REST = Round(size=0, is_pick=False)


class GumbelConfig(TreeConfig):
    """Gumbel search over all actions of a discrete task.

    Attributes:
        considered: m, root actions that sequential halving begins with.
        gumbel_scale: of the noise at the root: 0 acts, 1 makes targets that improve the policy in
            expectation.
        visit_offset: c_visit.
        value_coef: c_scale; `sigma(q) = (c_visit + max visits) c_scale q`.
        exact: `rounds` expands all considered actions at once, `mctx` one by one, as mctx does.
        compare_policy: whether the policy's mode is always among the considered, so that `delta_lcb` is
            known.
    """

    considered: Annotated[int, Field(ge=1, le=10_000)] = 16
    gumbel_scale: Annotated[float, Field(ge=0, le=100)] = 0.0
    visit_offset: Annotated[float, Field(ge=0, le=1e6)] = 50.0
    value_coef: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    exact: Literal["rounds", "mctx"] = "rounds"
    compare_policy: bool = True


class SampledGumbelConfig(GumbelConfig, SampledActions):
    """Gumbel search over sampled actions of a continuous task (EfficientZero V2, arXiv:2403.00564).

    Attributes:
        max_depth: edges from the root to the deepest leaf.
    """

    max_depth: Annotated[int, Field(ge=1, le=1000)] = 5


def mix_value(
    q: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    probs: Float[Tensor, "r a"],
    raw_value: Float[Tensor, "r"],
) -> Float[Tensor, "r 1"]:
    """`(V + n sum_vis P Q / sum_vis P) / (1 + n)`, n all visits: what an untried action is worth (app. D)."""
    weight = probs.clamp_min(torch.finfo(probs.dtype).tiny) * (visits > 0)
    total = visits.sum(-1, keepdim=True)
    share = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(probs.dtype).tiny)
    return (raw_value[:, None] + total * (share * q).sum(-1, keepdim=True)) / (1.0 + total)


def scale_values(
    q: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    probs: Float[Tensor, "r a"],
    raw_value: Float[Tensor, "r"],
    floor: Float[Tensor, "r 1"],
    visit_offset: float,
    value_coef: float,
    valid: Bool[Tensor, "r a"] | None = None,
) -> Float[Tensor, "r a"]:
    """`sigma(q) = (c_visit + max visits) c_scale (q - min q) / max(max q - min q, floor)` (eq. 8).

    Args:
        q: `[r, a]`, of visited actions.
        visits: `[r, a]`.
        probs: `[r, a]`, of the prior.
        raw_value: `[r]`, V of the node; completes q with `mix_value`.
        floor: least spread of values that counts as one.
        visit_offset: c_visit.
        value_coef: c_scale.
        valid: `[r, a]`, actions whose values span the range; None for all.
    """
    completed = torch.where(visits > 0, q, mix_value(q, visits, probs=probs, raw_value=raw_value))
    if valid is None:
        low, high = torch.aminmax(completed, dim=-1, keepdim=True)
    else:
        low = completed.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
        high = completed.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True)
    spread = torch.maximum(high - low, floor)
    scale = (visit_offset + visits.amax(-1, keepdim=True)) * value_coef
    return scale * (completed - low) / spread


class _RootScores:
    """Scores of candidates while a search goes on."""

    def __init__(self, search: Search, gumbel: Tensor, *, floor: Tensor, config: GumbelConfig) -> None:
        self._search, self._gumbel, self._floor, self._config = search, gumbel, floor, config
        root = search.root
        self._probs = root.logits.softmax(-1)
        self._leading = gumbel + (root.logits - root.logits.amax(-1, keepdim=True))
        # mctx lets the completed values of invalid actions span the range as well
        self._spanning = None if config.exact == "mctx" or bool(root.valid.all()) else root.valid

    def __call__(self, stats: RootStats) -> Float[Tensor, "b k"]:
        """`max(-1e9, gumbel + logits + sigma(q))`, invalid candidates included."""
        return (self._leading + self._sigma(stats)).clamp_min(MASS_FLOOR)

    def weights(self, stats: RootStats) -> Float[Tensor, "b k"]:
        """The improved policy `softmax(logits + sigma(q))`."""
        improved = self._search.root.logits + self._sigma(stats)
        return mask_logits(improved, self._search.choosable).softmax(-1)

    def _sigma(self, stats: RootStats) -> Tensor:
        return scale_values(
            stats.q,
            stats.visits,
            probs=self._probs,
            raw_value=self._search.root.value,
            floor=self._floor,
            visit_offset=self._config.visit_offset,
            value_coef=self._config.value_coef,
            valid=self._spanning,
        )


class GumbelStrategy:
    """Sequential halving at the root.

    Args:
        config: of it.
        value_scale: spread of returns; a hundredth of it is the least spread of values that counts.
    """

    outcomes = 1
    widening = 0.5

    def __init__(self, config: GumbelConfig, *, value_scale: float) -> None:
        self._config, self._value_scale = config, value_scale
        self.is_end_final = config.exact == "rounds"

    def rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        return len(halving_rounds(self._config.considered, sims)) if self._config.exact == "rounds" else sims

    def run(self, search: Search, *, sims: int, noise: RowNoise, rounds: Rounds) -> Choice:
        """Searches until simulations or time are used up."""
        gumbel = torch.zeros_like(search.root.logits)
        if self._config.gumbel_scale:
            drawn = noise.gumbel("root/gumbel", (gumbel.shape[1],)).to(gumbel.dtype)
            gumbel = self._config.gumbel_scale * drawn
        return self.search(search, gumbel, sims=sims, rounds=rounds)

    def search(
        self, search: Search, gumbel: Float[Tensor, "b k"], *, sims: int, rounds: Rounds = range
    ) -> Choice:
        """Searches with given noise.

        Args:
            search: planted trees.
            gumbel: `[b, k]`, scaled.
            sims: of each state.
            rounds: how many of them there is time for.
        """
        floor = self._floor(search.root)
        scores = _RootScores(search, gumbel, floor=floor, config=self._config)
        select = self._below(search, floor)
        run = self._run_rounds if self._config.exact == "rounds" else self._run_one_by_one
        done = run(search, scores, select, sims=sims, rounds=rounds)
        stats = search.stats()
        visits = stats.visits.masked_fill(~search.choosable, -1.0)
        best = scores(stats).masked_fill(visits != visits.amax(-1, keepdim=True), -torch.inf)
        best = best.masked_fill(~search.choosable, -torch.inf)
        return Choice(best.argmax(-1), scores.weights(stats), done)

    def _floor(self, root: RootSet) -> Float[Tensor, "b 1"]:
        """Spread of values that is no more than the critics' error."""
        if self._config.exact == "mctx":
            return torch.full_like(root.value[:, None], _EXACT_FLOOR)
        return root.value_spread.clamp_min(0.01 * self._value_scale)[:, None]

    def _below(self, search: Search, floor: Float[Tensor, "b 1"]) -> Select:
        """`argmax_a pi'(a) - visits(a) / (1 + sum visits)`: visits follow the improved policy (eq. 14)."""
        tree, config = search.tree, self._config
        q, visits = tree.below(tree.q), tree.below(tree.visits)
        logits, probs = tree.below(tree.logits), tree.below(tree.probs)

        def select(node: Tensor, rows: Tensor | None) -> Tensor:
            index = node - tree.trees
            seen = visits.index_select(0, index)
            sigma = scale_values(
                q.index_select(0, index),
                seen,
                probs=probs.index_select(0, index),
                raw_value=tree.raw_value.index_select(0, node),
                floor=floor.index_select(0, search.states_of(rows)),
                visit_offset=config.visit_offset,
                value_coef=config.value_coef,
            )
            improved = (logits.index_select(0, index) + sigma).softmax(-1)
            return (improved - seen / (1.0 + seen.sum(-1, keepdim=True))).argmax(-1)

        return select

    def _considered(self, search: Search) -> tuple[list[int], Int[Tensor, "b"]]:
        """How many actions halving begins with, as distinct numbers and which of them is each state's."""
        count = search.root.valid.sum(-1).clamp(max=self._config.considered)
        numbers, of = cast(tuple[Tensor, Tensor], torch.unique(count, return_inverse=True))
        return cast(list[int], numbers.tolist()), of

    def _run_one_by_one(
        self, search: Search, scores: _RootScores, select: Select, *, sims: int, rounds: Rounds
    ) -> int:
        """One by one, as in mctx: the best of the actions that were visited as often as is due."""
        numbers, of = self._considered(search)
        table = torch.tensor([considered_visits(number, sims) for number in numbers], device=of.device)[of]
        done = 0
        for sim in rounds(sims):
            stats = search.stats()
            is_due = search.valid & (stats.visits == table[:, sim, None])
            score = scores(stats).masked_fill(~is_due, -torch.inf)
            action = score.argmax(-1, keepdim=True)
            search.simulate(action, torch.full_like(action, sim), select=select)
            done = sim + 1
        return done

    def _run_rounds(
        self, search: Search, scores: _RootScores, select: Select, *, sims: int, rounds: Rounds
    ) -> int:
        """All actions of a phase at once; the set is chosen when a phase begins."""
        numbers, of = self._considered(search)
        schedules = [halving_rounds(number, sims) for number in numbers]
        done = torch.zeros_like(of)
        within = torch.ones_like(search.valid)
        order = of[:, None]
        for index in rounds(max(len(schedule) for schedule in schedules)):
            now = [schedule[index] if index < len(schedule) else _REST for schedule in schedules]
            widest = max(size for size, _ in now)
            size = torch.tensor([size for size, _ in now], device=of.device)[of]
            if any(is_pick for _, is_pick in now):
                chosen = self._pick(search, scores, within, size=size, is_first=index == 0)
                is_pick = torch.tensor([is_pick for _, is_pick in now], device=of.device)[of, None]
                order = chosen if index == 0 else torch.where(is_pick, chosen, order)
                rank = torch.arange(order.shape[1], device=of.device)
                kept = torch.zeros_like(within).scatter(1, order, rank < size[:, None])
                within = torch.where(is_pick, kept, within)
            action = order[:, :widest]
            place = torch.arange(widest, device=of.device)
            active = None if len(numbers) == 1 else place < size[:, None]
            if search.may_exclude:
                alive = search.valid.gather(1, action)
                active = alive if active is None else active & alive
                active = None if bool(active.all()) else active
            search.simulate(action, done[:, None] + place, select=select, active=active)
            done = done + size
        return int(done.min())

    def _pick(
        self,
        search: Search,
        scores: _RootScores,
        within: Bool[Tensor, "b k"],
        *,
        size: Int[Tensor, "b"],
        is_first: bool,
    ) -> Int[Tensor, "b k"]:
        """Candidates of the present set, best first; at first the policy's mode is among those taken."""
        within = within & search.valid
        if search.may_exclude:  # all that were left have gone: begin anew with the others
            within = torch.where(within.any(-1, keepdim=True), within, search.valid)
        score = scores(search.stats()).masked_fill(~within, -torch.inf)
        order = torch.sort(score, dim=-1, descending=True, stable=True).indices
        if not (is_first and self._config.compare_policy):
            return order
        mode = search.root.policy_slot[:, None]
        last = (size - 1)[:, None]
        rank = (order == mode).long().argmax(-1, keepdim=True)
        target = torch.where((size[:, None] > 1) & (rank > last), last, rank)
        displaced = order.gather(1, target)
        return order.scatter(1, rank, displaced).scatter(1, target, mode)


def _build_gumbel(problem: PlanningProblem, config: GumbelConfig, clock: Clock | None) -> TreePlanner:
    if not problem.prior.is_discrete:
        raise ValueError("`gumbel` plans discrete actions; for continuous ones take `sampled_gumbel`")
    return TreePlanner(
        problem,
        config,
        proposals=DiscreteProposals(problem, injected_mass=config.injected_mass),
        strategy=GumbelStrategy(config, value_scale=problem.value_scale),
        clock=clock,
    )


def _build_sampled(problem: PlanningProblem, config: SampledGumbelConfig, clock: Clock | None) -> TreePlanner:
    if problem.prior.is_discrete:
        raise ValueError("`sampled_gumbel` plans continuous actions; for discrete ones take `gumbel`")
    return TreePlanner(
        problem,
        config,
        proposals=SampledProposals(problem, config, injected_mass=config.injected_mass),
        strategy=GumbelStrategy(config, value_scale=problem.value_scale),
        clock=clock,
    )


PLANNERS.register("gumbel", "Gumbel MuZero search over all actions of a discrete task.")(
    PlannerEntry(GumbelConfig, _build_gumbel, is_discrete=True, is_continuous=False)
)
PLANNERS.register("sampled_gumbel", "Gumbel search over sampled actions of a continuous task.")(
    PlannerEntry(SampledGumbelConfig, _build_sampled, is_discrete=False, is_continuous=True)
)
