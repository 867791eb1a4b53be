"""A search over `b` states: rounds of simulations of all at once, and what their trees say at the root."""

import dataclasses
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.problem.problem import Limits
from mbrl.planning.tree.evaluation import Evaluate, Rows
from mbrl.planning.tree.proposals import RootSet
from mbrl.planning.tree.simulation import Backward, Select, backward, expand, simulate
from mbrl.planning.tree.tree import VISITS, Tree


@dataclasses.dataclass(frozen=True, slots=True)
class Copies:
    """How the trees of one state relate.

    Attributes:
        count: trees of a state.
        members: E, members of the ensemble; tree p follows member `p mod E`.
        is_forest: every simulation runs in all trees of its state; else in one, visits of an action in turn.
    """

    count: int = 1
    members: int = 1
    is_forest: bool = False


class RootStats(NamedTuple):
    """What the trees of a state say of its `k` candidates."""

    q: Float[Tensor, "b k"]  # mean less `lcb_coef` deviations: what decides
    mean: Float[Tensor, "b k"]
    deviation: Float[Tensor, "b k"]  # over members
    visits: Float[Tensor, "b k"]


def instantiate_trees(
    root: RootSet,
    copies: Copies,
    *,
    is_stored: bool,
    inner_width: int,
    capacity: int,
    outcomes: int = 1,
    widening: float = 0.5,
    is_end_final: bool = True,
    most_broken: float | None = None,
) -> Tree:
    """`copies.count` trees for each state, from its root; see `Tree`.

    Args:
        root: of `b` states.
        copies: how trees of a state relate.
        is_stored: whether actions differ from node to node; if not, they are one-hot vectors in order.
        inner_width: actions of a node below the roots.
        capacity: nodes besides the roots, of all trees together.
        outcomes: successors that an edge may keep.
        widening: exponent of their number in visits.
        is_end_final: whether terminal leaves are left alone.
        most_broken: see `Tree`.
    """

    def repeat(rows: Tensor) -> Tensor:
        # The trees of a state stand side by side, [b copies]: tree c of state s is s * copies + c.
        return rows if copies.count == 1 else rows.repeat_interleave(copies.count, 0)

    return Tree(
        repeat(root.observation),
        repeat(root.value),
        logits=repeat(root.logits),
        actions=repeat(root.actions) if is_stored else None,
        inner_width=inner_width,
        capacity=capacity,
        outcomes=outcomes,
        widening=widening,
        is_end_final=is_end_final,
        most_broken=most_broken,
    )


class Search:
    """A search over `b` states: rounds of simulations, and what their trees say at the root.

    Args:
        root: candidates and values at the roots.
        evaluate: expands edges.
        tree: `copies.count` trees for each state.
        copies: how trees of a state relate.
        lcb_coef: kappa.
        max_depth: in edges.
        halt_threshold: u_max; no plan enters more uncertainty if it knows of a way around.
        limits: which candidates may be chosen while another is left; None for all.
        turn: `[b]`, which tree a state's simulations begin with, if they take turns.
        backward: what nodes make of what comes back.
    """

    def __init__(
        self,
        *,
        root: RootSet,
        evaluate: Evaluate,
        tree: Tree,
        copies: Copies,
        lcb_coef: float,
        max_depth: int,
        halt_threshold: float = math.inf,
        limits: Limits | None = None,
        turn: Int[Tensor, "b"] | None = None,
        backward: Backward = backward,
    ) -> None:
        self.root, self.tree, self.copies, self.max_depth = root, tree, copies, max_depth
        self.halt_threshold, self._limits = halt_threshold, limits
        self._evaluate, self._backward = evaluate, backward
        self._lcb_coef, self._turn = lcb_coef, turn
        self._alive = root.valid
        self.bad_rows = self.deepest = self.rounds = 0
        device = root.value.device
        self._state = torch.arange(len(root.value), device=device)
        self._copy = torch.arange(copies.count, device=device)
        self._owner = self._state.repeat_interleave(copies.count)  # of each tree

    @property
    def valid(self) -> Bool[Tensor, "b k"]:
        """Candidates worth a simulation: allowed, answered in numbers, not halted while another is not."""
        alive = self._keep_within(self._alive)
        if self.halt_threshold == math.inf:
            return alive
        # Where all are too uncertain none is better than another, and the search goes on with all.
        fine = alive & ~self._halted()
        return torch.where(fine.any(-1, keepdim=True), fine, alive)

    @property
    def choosable(self) -> Bool[Tensor, "b k"]:
        """Candidates that a plan may begin with: the valid ones if any of them was tried, else all alive."""
        alive = self._alive
        if self._limits is not None:
            # Of those that were tried: nothing is known to keep to a limit before it was imagined.
            tried = alive & (self.stats().visits > 0)
            alive = self._keep_within(torch.where(tried.any(-1, keepdim=True), tried, alive))
        if self.halt_threshold == math.inf:
            return alive
        # A candidate that halts may be chosen only where nothing else was tried.
        tried = self.valid & (self.stats().visits > 0)
        return torch.where(tried.any(-1, keepdim=True), self.valid & alive, alive)

    @property
    def may_exclude(self) -> bool:
        """Whether candidates may have become invalid on the way."""
        return self.bad_rows > 0 or self.halt_threshold < math.inf or self._limits is not None

    def limited(self) -> Float[Tensor, "3 b k"]:
        """Share of members in which a candidate breaks the constraint, and the mean cost of its first step.

        It breaks it in a member whose step does, or behind whose step every way does that was looked at. 0
        for candidates that were not tried.
        """
        tree, shape = self.tree, (-1, self.copies.count, self.tree.root_width)
        first = tree.trees * tree.root_width
        by_slot = tree.limited[: first * tree.outcomes].view(first, tree.outcomes, 2)
        weight = tree.slot_visits[: first * tree.outcomes].view(first, tree.outcomes, 1)
        by_edge = (weight * by_slot).sum(1) / weight.sum(1).clamp_min(1.0)
        if tree.outcomes == 1:  # a way that was closed after its first visits still counts
            by_edge = by_slot[:, 0]
        visits = tree.at_root(tree.visits).view(shape)
        weight = (visits > 0).to(visits.dtype) if self.copies.is_forest else visits
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1.0)
        broken, cost = ((weight * part.reshape(shape)).sum(1) for part in by_edge.unbind(-1))
        return torch.stack((broken, cost, broken))

    def _keep_within(self, alive: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
        """Those that keep to the constraint; where none does, those that break it in the fewest members."""
        if self._limits is None:
            return alive
        excess = self._limits.excess(*self.limited())
        least = excess.masked_fill(~alive, torch.inf).amin(-1, keepdim=True)
        return alive & (excess <= least)

    def run_round(
        self,
        action: Int[Tensor, "b k"],
        sim: Int[Tensor, "b k"],
        *,
        select: Select,
        active: Bool[Tensor, "b k"] | None = None,
    ) -> None:
        """One simulation below each of some root actions, distinct ones for each state.

        Args:
            action: `[b, k]`, candidates to begin with.
            sim: `[b, k]`, number of each simulation.
            select: what to do below the roots; it is given nodes and simulations, see `states_of`.
            active: `[b, k]`, which of them to run; None for all.
        """
        # 1. Assign: in which tree of its state each simulation runs.
        rows, first = self._assign_trees(action, sim, active)
        self._running = rows.state
        # 2. Simulate: walk down from the roots to a slot with nothing behind it.
        root = rows.state * self.copies.count + rows.copy
        path = simulate(self.tree, root, first, select=select, max_depth=self.max_depth)
        # 3. Expand: ask the model what is there. At the root the copies of a state ask for the same edges.
        # Below the roots every tree has grown in its own way.
        if len(path.steps) > 1:
            rows = rows._replace(shared=0)
        self._exclude(expand(self.tree, path, rows, self._evaluate))
        # 4. Backward: take what came back to all nodes and edges on the way.
        self._backward(self.tree, path)
        self.rounds += 1
        self.deepest = max(self.deepest, len(path.steps))

    def states_of(self, rows: Int[Tensor, "r"] | None) -> Int[Tensor, "r"]:
        """States that simulations of the present round belong to."""
        return self._running if rows is None else self._running.index_select(0, rows)

    def stats(self) -> RootStats:
        """Pools the roots' edges over the trees of each state.

        A forest takes the mean over members. Trees in turn take the mean by visits; the deviation is over
        members, each the mean of its trees.
        """
        count = self.copies.count
        visits, q = self.tree.at_root(self.tree.visits), self.tree.at_root(self.tree.q)
        if count == 1:
            return RootStats(q, q, torch.zeros_like(q), visits)
        visits, q = visits.view(-1, count, visits.shape[1]), q.view(-1, count, q.shape[1])
        by_member, seen = self.by_member(visits, q)
        # The mean: members count equally in a forest, simulations where trees take turns.
        weight = seen if self.copies.is_forest else visits
        mean = (weight * (by_member if self.copies.is_forest else q)).sum(1) / weight.sum(1).clamp_min(1.0)
        # The deviation over the members that were asked, however many trees each has.
        members = seen.sum(1).clamp_min(1.0)
        centre = (seen * by_member).sum(1, keepdim=True) / members[:, None]
        deviation = ((seen * (by_member - centre)).square().sum(1) / members).sqrt()
        total = visits.amax(1) if self.copies.is_forest else visits.sum(1)
        return RootStats(mean - self._lcb_coef * deviation, mean, deviation, total)

    def root_values(self) -> Float[Tensor, "b"]:
        """What the roots of each state are worth; a mean of all that came back is lowered by exploration."""
        # Sums and visits over the trees of a state: their mean by visits.
        sums = self.tree.sums[: self.tree.trees].view(-1, self.copies.count, 4).sum(1)
        return (sums[:, 0] - sums[:, 1] + sums[:, 2]) / sums[:, VISITS]

    def edges(self, slot: Int[Tensor, "b"]) -> Int[Tensor, "b copies"]:
        """A candidate's edge in each tree of its state."""
        first = self._state[:, None] * self.copies.count + self._copy
        return first * self.tree.root_width + slot[:, None]

    def by_member(
        self, visits: Float[Tensor, "b copies k"], q: Float[Tensor, "b copies k"]
    ) -> tuple[Float[Tensor, "b e k"], Float[Tensor, "b e k"]]:
        """Q by members, and 1 where a member was asked."""
        if self.copies.count != self.copies.members:
            # Several trees of a member, or none: its Q is their mean by visits.
            member = torch.arange(self.copies.members, device=q.device)
            of = (self._copy % self.copies.members == member[:, None]).to(q.dtype)
            total = of @ visits
            return (of @ (visits * q)) / total.clamp_min(1.0), (total > 0).to(q.dtype)
        return q, (visits > 0).to(q.dtype)

    def _assign_trees(
        self, action: Int[Tensor, "b k"], sim: Int[Tensor, "b k"], active: Bool[Tensor, "b k"] | None
    ) -> tuple[Rows, Int[Tensor, "r"]]:
        """Whose the simulations of a round are, and what they do first."""
        width, shared = action.shape[1], 0
        state = self._state[:, None].expand_as(action)
        if self.copies.is_forest:  # every member runs every simulation
            shape = (len(action), self.copies.count, width)
            copy = self._copy[:, None].expand(shape)
            state, action, sim = (part[:, None].expand(shape) for part in (state, action, sim))
            shared = width if active is None else 0
            active = None if active is None else active[:, None].expand(shape)
        elif self.copies.count > 1:  # particles take turns, action by action
            assert self._turn is not None
            copy = (self._turn[:, None] + self.stats().visits.gather(1, action).long()) % self.copies.count
        else:
            copy = torch.zeros_like(action)
        flat = [part.reshape(-1) for part in (state, copy, action, sim)]
        if active is not None:
            chosen = active.reshape(-1).nonzero().squeeze(1)
            flat = [part.index_select(0, chosen) for part in flat]
        state, copy, action, sim = flat
        return Rows(state, sim, copy, shared), action

    def _exclude(self, masked: Int[Tensor, "n"]) -> None:
        """Candidates whose own edge was masked are no longer valid."""
        if len(masked) == 0:
            return
        tree = self.tree
        self.bad_rows += len(masked)
        at_root = masked // tree.outcomes
        at_root = at_root[at_root < tree.trees * tree.root_width]
        # A copy: it begins as the root set's own mask, which is not ours to change.
        self._alive = self._alive.clone()
        self._alive[self._owner[at_root // tree.root_width], at_root % tree.root_width] = False

    def _halted(self) -> Bool[Tensor, "b k"]:
        """Candidates whose first step was found too uncertain."""
        uncertainty = self.tree.at_root(self.tree.edge_uncertainty())
        by_copy = uncertainty.view(-1, self.copies.count, self.tree.root_width)
        # In any tree: where particles take turns an edge was stepped in some of them only.
        return (by_copy > self.halt_threshold).any(1)
