"""PUCT search as in MuZero, one simulation at a time; progressive widening for continuous or random steps.

Schrittwieser et al. 2020 (arXiv:1911.08265), appendix B; progressive widening: Couetoux et al. 2011. All
actions of a node are drawn when it is made and revealed one after another, so shapes are fixed. The original
reveals by drawing anew, which comes to the same.
"""

from typing import Annotated, Final

import numpy as np
import scipy.special
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.deadline import Rounds
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.tree.evaluation import Transition
from mbrl.planning.tree.planner import Choice, TreeConfig, TreePlanner
from mbrl.planning.tree.proposals import DiscreteProposals, RootSet, SampledActions, SampledProposals
from mbrl.planning.tree.qtransforms import scale_visited
from mbrl.planning.tree.search import Search
from mbrl.planning.tree.simulation import Select
from mbrl.planning.tree.tree import VISITS

_TIE_BREAK: Final = 1e-7
"""Size of the noise on scores, as in mctx: it decides between equal ones, and between no others."""

_MCTX_FLOOR: Final = 1e-8
"""`epsilon` of mctx's qtransforms: keeps the division finite, and no more."""


class PUCTConfig(TreeConfig):
    """PUCT search over all actions of a discrete task.

    Attributes:
        exploration_init: c_init.
        exploration_base: c_base; exploration grows as `c_init + log((visits + c_base + 1) / c_base)`.
        dirichlet_fraction: share of Dirichlet noise in the root's prior.
        dirichlet_concentration: of that noise.
        temperature: actions are drawn by `visits^(1 / temperature)`; 0 takes the most visited.
        least_spread: least spread of values that counts as one, in `value_scale`; the critics' disagreement
            counts as well unless this is 0.
    """

    exploration_init: Annotated[float, Field(ge=0, le=1e3)] = 1.25
    exploration_base: Annotated[float, Field(gt=0, le=1e9)] = 19652.0
    dirichlet_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    dirichlet_concentration: Annotated[float, Field(gt=0, le=1e3)] = 0.3
    temperature: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    least_spread: Annotated[float, Field(ge=0, le=1)] = 0.01


class DPWConfig(PUCTConfig, SampledActions):
    """PUCT with progressive widening of actions and outcomes; samples actions where they are continuous.

    Attributes:
        max_depth: edges from the root to the deepest leaf.
        transition: a draw for each new outcome makes widening of outcomes worth its name.
        action_coef: c; a node reveals `ceil(c visits^alpha)` of its actions.
        action_exponent: alpha.
        outcome_exponent: beta; an edge draws another outcome while `floor(visits^beta)` is not below their
            number.
        outcomes: that an edge may keep.
        inner_samples: actions of a node below the root, which are revealed one by one.
    """

    max_depth: Annotated[int, Field(ge=1, le=1000)] = 5
    transition: Transition = "ts1"
    action_coef: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    action_exponent: Annotated[float, Field(ge=0, le=1)] = 0.5
    outcome_exponent: Annotated[float, Field(ge=0, le=1)] = 0.5
    outcomes: Annotated[int, Field(ge=1, le=10_000)] = 4
    inner_samples: Annotated[int, Field(ge=1, le=10_000)] = 8


def score_puct(
    values: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    probs: Float[Tensor, "r a"],
    node_visits: Float[Tensor, "r"],
    init: float,
    base: float,
) -> Float[Tensor, "r a"]:
    """`Q + sqrt(N) (c_init + log((N + c_base + 1) / c_base)) P / (n + 1)`."""
    total = node_visits[:, None]
    # c_base keeps the logarithm at 0 until visits are many: exploration is about c_init for small budgets.
    exploration = init + torch.log((total + base + 1.0) / base)
    # Q + P sqrt(N) / (1 + n): the bonus falls with visits of the action and rises with those of the others.
    return values + torch.sqrt(total) * exploration * probs / (visits + 1.0)


def reveal(
    valid: Bool[Tensor, "r a"], node_visits: Float[Tensor, "r"], *, coef: float, exponent: float
) -> Bool[Tensor, "r a"]:
    """The first `clip(ceil(c visits^alpha), 1, A)` valid actions."""
    # 1e-6: 9^0.5 may round to 3.00.., whose ceiling would be 4.
    count = (coef * node_visits**exponent - 1e-6).ceil().clamp_min(1.0)
    # Counted over valid actions: an excluded one takes nobody's place.
    return valid & (valid.long().cumsum(-1) <= count[:, None])


def draw_dirichlet(noise: RowNoise, count: int, *, concentration: float) -> Float[Tensor, "b count"]:
    """Symmetric Dirichlet draws, from Gamma variates by inversion; float64."""
    uniform = noise.uniform("root/dirichlet", (count,)).numpy()
    # At small concentrations nearly all variates round to 0; the floor keeps their sum positive.
    gamma = np.maximum(scipy.special.gammaincinv(concentration, uniform), np.finfo(np.float64).tiny)
    return torch.from_numpy(gamma / gamma.sum(-1, keepdims=True))


class PUCTStrategy:
    """One simulation after another, each by upper confidence bounds.

    Args:
        config: of it.
        value_scale: spread of returns.
        is_end_final: whether terminal leaves are left alone; mctx goes on below them.
    """

    def __init__(self, config: PUCTConfig, *, value_scale: float, is_end_final: bool = True) -> None:
        self._config, self._value_scale, self.is_end_final = config, value_scale, is_end_final
        self._widening = config if isinstance(config, DPWConfig) else None
        self.outcomes = 1 if self._widening is None else self._widening.outcomes
        self.widening = 0.5 if self._widening is None else self._widening.outcome_exponent

    def rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        return sims

    def run(self, search: Search, *, sims: int, noise: RowNoise, rounds: Rounds) -> Choice:
        """Searches until simulations or time are used up."""
        root, config = search.root, self._config
        probs = root.logits.softmax(-1)
        if config.dirichlet_fraction:
            # Noise over valid actions alone, so that it costs masked ones no mass of the prior.
            drawn = draw_dirichlet(noise, probs.shape[1], concentration=config.dirichlet_concentration)
            drawn = (drawn.to(probs) * root.valid) / (drawn.to(probs) * root.valid).sum(-1, keepdim=True)
            probs = (1.0 - config.dirichlet_fraction) * probs + config.dirichlet_fraction * drawn
        width = max(probs.shape[1], search.tree.inner_width)
        # Drawn once for a search and the same at every node: a function of the state's stream alone.
        ties = _TIE_BREAK * noise.uniform("tree/ties", (width,)).to(probs.dtype)
        done = self.search(search, probs, sims=sims, ties=ties, rounds=rounds)
        return self._decide(search, noise, done)

    def search(
        self,
        search: Search,
        probs: Float[Tensor, "b k"],
        *,
        sims: int,
        ties: Float[Tensor, "b w"],
        rounds: Rounds = range,
    ) -> int:
        """Simulates by a given prior at the root; returns how often.

        Args:
            search: trees with their roots only.
            probs: `[b, k]`, the root's prior.
            sims: of each state.
            ties: `[b, w]`, added to scores; w at least the width of any node.
            rounds: how many of them there is time for.
        """
        root = search.root
        floor = self._floor(root)
        select = self._below(search, floor, ties)
        done = 0
        for sim in rounds(sims):
            # 1. Score the candidates: values on one scale, an exploration bonus, noise that breaks ties.
            stats = search.stats()
            # The root's own visit, as in mctx.
            total = stats.visits.sum(-1) + 1.0
            values = scale_visited(stats.q, stats.visits, node_value=search.root_values(), floor=floor)
            score = self._score(values, stats.visits, probs=probs, node_visits=total, ties=ties)
            # 2. Widen: so many of them are in play as the visits of the root allow.
            usable = search.valid
            if self._widening is not None:
                usable = self._reveal(usable, total)
            # 3. One simulation that begins with the best.
            action = score.masked_fill(~usable, -torch.inf).argmax(-1, keepdim=True)
            search.run_round(action, torch.full_like(action, sim), select=select)
            done = sim + 1
        return done

    def _decide(self, search: Search, noise: RowNoise, done: int) -> Choice:
        """By visits; of equally visited actions, the one of most value."""
        stats, temperature = search.stats(), self._config.temperature
        visits = stats.visits * search.choosable
        total = visits.sum(-1, keepdim=True)
        # Nothing was visited: weights must sum to 1 all the same.
        even = torch.full_like(visits, 1.0 / visits.shape[1])
        weights = torch.where(total > 0, visits / total.clamp_min(1.0), even)
        if temperature == 0.0:
            most = visits == visits.amax(-1, keepdim=True)
            # Among equals by value; the prior has had its say in the visits.
            slot = stats.q.masked_fill(~most | ~search.choosable, -torch.inf).argmax(-1)
        else:
            # Gumbel-max: a draw from visits^(1 / temperature), normalised.
            drawn = noise.gumbel("root/temperature", (visits.shape[1],)).to(visits.dtype)
            slot = (weights.log() / temperature + drawn).argmax(-1)
        return Choice(slot, weights, done)

    def _floor(self, root: RootSet) -> Float[Tensor, "b 1"]:
        """Spread of values that is no more than the critics' error."""
        if self._config.least_spread == 0.0:
            return torch.full_like(root.value[:, None], _MCTX_FLOOR)
        return root.value_spread.clamp_min(self._config.least_spread * self._value_scale)[:, None]

    def _score(
        self, values: Tensor, visits: Tensor, *, probs: Tensor, node_visits: Tensor, ties: Tensor
    ) -> Tensor:
        config = self._config
        score = score_puct(
            values,
            visits,
            probs=probs,
            node_visits=node_visits,
            init=config.exploration_init,
            base=config.exploration_base,
        )
        return score + ties[:, : score.shape[1]]

    def _reveal(self, valid: Tensor, node_visits: Tensor) -> Tensor:
        assert self._widening is not None
        coef, exponent = self._widening.action_coef, self._widening.action_exponent
        return reveal(valid, node_visits, coef=coef, exponent=exponent)

    def _below(self, search: Search, floor: Tensor, ties: Tensor) -> Select:
        """The best score among the actions that a node has revealed (Schrittwieser et al. 2020, eq. 2)."""
        tree = search.tree
        q, visits, probs = tree.below(tree.q), tree.below(tree.visits), tree.below(tree.probs)

        def select(node: Tensor, rows: Tensor | None) -> Tensor:
            index, state = node - tree.trees, search.states_of(rows)
            seen, prior = visits.index_select(0, index), probs.index_select(0, index)
            # The node's visits with the one that made it.
            total = tree.sums.index_select(0, node)[:, VISITS]
            values = scale_visited(
                q.index_select(0, index),
                seen,
                node_value=tree.value(node),
                floor=floor.index_select(0, state),
            )
            score = self._score(
                values, seen, probs=prior, node_visits=total, ties=ties.index_select(0, state)
            )
            if self._widening is not None:
                # Masked ones keep their place: a probability of 0 leaves them no bonus.
                usable = self._reveal(torch.ones_like(seen, dtype=torch.bool), total)
                score = score.masked_fill(~usable, -torch.inf)
            return score.argmax(-1)

        return select


def _build_puct(problem: PlanningProblem, config: PUCTConfig, clock: Clock | None) -> TreePlanner:
    if not problem.prior.is_discrete:
        raise ValueError("`puct` plans discrete actions; for continuous ones take `sampled_gumbel` or `dpw`")
    return TreePlanner(
        problem,
        config,
        proposals=DiscreteProposals(problem, injected_mass=config.injected_mass),
        strategy=PUCTStrategy(config, value_scale=problem.value_scale),
        clock=clock,
    )


def _build_dpw(problem: PlanningProblem, config: DPWConfig, clock: Clock | None) -> TreePlanner:
    if problem.prior.is_discrete:
        proposals = DiscreteProposals(problem, injected_mass=config.injected_mass, is_sorted=True)
    else:
        proposals = SampledProposals(problem, config, injected_mass=config.injected_mass)
    strategy = PUCTStrategy(config, value_scale=problem.value_scale)
    return TreePlanner(problem, config, proposals=proposals, strategy=strategy, clock=clock)


PLANNERS.register("puct", "PUCT search of MuZero over all actions of a discrete task.")(
    PlannerEntry(PUCTConfig, _build_puct, is_discrete=True, is_continuous=False)
)
PLANNERS.register("dpw", "PUCT with progressive widening of actions and of random outcomes.")(
    PlannerEntry(DPWConfig, _build_dpw, is_discrete=True, is_continuous=True)
)
