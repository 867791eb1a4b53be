"""Gumbel MuZero: planning that improves the policy with few simulations.

Danihelka, Guez, Schrittwieser & Silver, "Policy improvement by planning with Gumbel" (ICLR 2022). At the
root, sequential halving over the actions that lead in `gumbel + logits + sigma(q)`; below it, the action
whose visits lag most behind the improved policy.

Departures: a round visits all considered actions at once, and the set is chosen once a phase
(`exact="rounds"`); `exact="mctx"` goes one by one, as mctx does. Values are normalised with a floor of the
size of the critics' error, so that noise is not stretched over [0, 1].
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.deadline import Rounds
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.tree.halving import Halving, HalvingByRounds, HalvingOneByOne
from mbrl.planning.tree.planner import Choice, TreeConfig, TreePlanner
from mbrl.planning.tree.proposals import (
    MASS_FLOOR,
    DiscreteProposals,
    RootSet,
    SampledActions,
    SampledProposals,
    mask_logits,
)
from mbrl.planning.tree.qtransforms import scale_completed
from mbrl.planning.tree.search import RootStats, Search
from mbrl.planning.tree.simulation import Select

_MCTX_FLOOR: Final = 1e-8
"""`epsilon` of mctx's qtransforms: keeps the division finite, and no more."""

_FLOOR_SHARE: Final = 0.01
"""Least spread of values that counts, as a share of that of the data's returns: a fitted value is hardly
right to a hundredth, and without a floor equal actions would look as far apart as the best and the worst."""


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
        ranks: what candidates are ranked by once they were visited: `improved` is
            `gumbel + logits + sigma(q)`, which weighs values against the prior as mctx does; `value` is q
            alone, for values that are trusted to the last digit.
    """

    considered: Annotated[int, Field(ge=1, le=10_000)] = 16
    gumbel_scale: Annotated[float, Field(ge=0, le=100)] = 0.0
    visit_offset: Annotated[float, Field(ge=0, le=1e6)] = 50.0
    value_coef: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    exact: Literal["rounds", "mctx"] = "rounds"
    compare_policy: bool = True
    ranks: Literal["improved", "value"] = "improved"


class SampledGumbelConfig(GumbelConfig, SampledActions):
    """Gumbel search over sampled actions of a continuous task (EfficientZero V2, arXiv:2403.00564).

    Attributes:
        max_depth: edges from the root to the deepest leaf.
    """

    max_depth: Annotated[int, Field(ge=1, le=1000)] = 5


class _Rules(NamedTuple):
    """In what the batched search and that of mctx differ."""

    halving: Halving
    floor: Callable[[RootSet], Tensor]  # [b, 1], least spread of values that counts as one
    spanning: Callable[[RootSet], Tensor | None]  # [b, k], whose values span the range; None for all
    is_end_final: bool  # whether terminal leaves are left alone


def _batched_rules(config: GumbelConfig, value_scale: float) -> _Rules:
    def floor(root: RootSet) -> Float[Tensor, "b 1"]:
        """Spread of values that is no more than the critics' error."""
        # Differences that the critics themselves dispute must not be
        # stretched to the whole range of a value scale.
        return root.value_spread.clamp_min(_FLOOR_SHARE * value_scale)[:, None]

    def spanning(root: RootSet) -> Bool[Tensor, "b k"] | None:
        """An action that may not be taken says nothing of the range of values."""
        return None if bool(root.valid.all()) else root.valid

    halving = HalvingByRounds(config.considered, keeps_policy=config.compare_policy)
    return _Rules(halving, floor, spanning, is_end_final=True)


def _mctx_rules(config: GumbelConfig, value_scale: float) -> _Rules:
    del value_scale

    def floor(root: RootSet) -> Float[Tensor, "b 1"]:
        return torch.full_like(root.value[:, None], _MCTX_FLOOR)

    def spanning(root: RootSet) -> None:
        """The completed values of invalid actions span the range as well."""
        del root

    return _Rules(HalvingOneByOne(config.considered), floor, spanning, is_end_final=False)


class _RootScores:
    """Scores of candidates while a search goes on."""

    def __init__(
        self, search: Search, gumbel: Tensor, config: GumbelConfig, *, floor: Tensor, spanning: Tensor | None
    ) -> None:
        self._search, self._config, self._floor, self._spanning = search, config, floor, spanning
        logits = search.root.logits
        self._probs = logits.softmax(-1)
        # Only differences of logits count; with the largest at 0 the
        # floor of `__call__` means the same everywhere.
        self._leading = gumbel + (logits - logits.amax(-1, keepdim=True))

    def __call__(self, stats: RootStats) -> Float[Tensor, "b k"]:
        """`max(-1e9, gumbel + logits + sigma(q))`, or q; invalid candidates included."""
        if self._config.ranks == "value" and bool((stats.visits > 0).any()):
            return torch.where(stats.visits > 0, stats.q, MASS_FLOOR).clamp_min(MASS_FLOOR)
        return (self._leading + self._sigma(stats)).clamp_min(MASS_FLOOR)

    def weights(self, stats: RootStats) -> Float[Tensor, "b k"]:
        """The improved policy `softmax(logits + sigma(q))` (eq. 11)."""
        # Without the Gumbel noise: it chooses what is tried, and must not stay in the target.
        improved = self._search.root.logits + self._sigma(stats)
        return mask_logits(improved, self._search.choosable).softmax(-1)

    def _sigma(self, stats: RootStats) -> Tensor:
        return scale_completed(
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
        make_rules = {"rounds": _batched_rules, "mctx": _mctx_rules}[config.exact]
        self._config, self._rules = config, make_rules(config, value_scale)
        self.is_end_final = self._rules.is_end_final

    def rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        return self._rules.halving.count_rounds(sims)

    def run(self, search: Search, *, sims: int, noise: RowNoise, rounds: Rounds) -> Choice:
        """Searches until simulations or time are used up."""
        # Without noise the search is deterministic: it acts. With it the considered actions are drawn from
        # the prior without replacement (Gumbel top-k).
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
            search: trees with their roots only.
            gumbel: `[b, k]`, scaled.
            sims: of each state.
            rounds: how many of them there is time for.
        """
        rules, root = self._rules, search.root
        floor = rules.floor(root)
        scores = _RootScores(search, gumbel, self._config, floor=floor, spanning=rules.spanning(root))
        # 1. Sequential halving at the root, visits after the improved policy below it.
        select = self._below(search, floor)
        done = rules.halving.run(search, scores, select=select, sims=sims, rounds=rounds)
        # 2. Act: of the most visited candidates the one that leads in gumbel + logits + sigma(q).
        stats = search.stats()
        # -1 lies below any count, so that an excluded action is not
        # the most visited even where nothing was visited.
        visits = stats.visits.masked_fill(~search.choosable, -1.0)
        best = scores(stats).masked_fill(visits != visits.amax(-1, keepdim=True), -torch.inf)
        best = best.masked_fill(~search.choosable, -torch.inf)
        # 3. Learn: the improved policy over all candidates.
        return Choice(best.argmax(-1), scores.weights(stats), done)

    def _below(self, search: Search, floor: Float[Tensor, "b 1"]) -> Select:
        """`argmax_a pi'(a) - visits(a) / (1 + sum visits)`: visits follow the improved policy (eq. 14)."""
        tree, config = search.tree, self._config
        # Views: what is booked later is seen by later selections.
        q, visits = tree.below(tree.q), tree.below(tree.visits)
        logits, probs = tree.below(tree.logits), tree.below(tree.probs)

        def select(node: Tensor, rows: Tensor | None) -> Tensor:
            index = node - tree.trees
            seen = visits.index_select(0, index)
            sigma = scale_completed(
                q.index_select(0, index),
                seen,
                probs=probs.index_select(0, index),
                raw_value=tree.raw_value.index_select(0, node),
                floor=floor.index_select(0, search.states_of(rows)),
                visit_offset=config.visit_offset,
                value_coef=config.value_coef,
            )
            improved = (logits.index_select(0, index) + sigma).softmax(-1)
            # Deterministic: visit counts approach pi' with no noise below the root, and with few simulations.
            return (improved - seen / (1.0 + seen.sum(-1, keepdim=True))).argmax(-1)

        return select


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
