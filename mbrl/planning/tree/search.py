"""A search over `b` states: simulations of all at once, and what their trees say at the root."""

import dataclasses
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.tree.evaluation import Evaluate, Rows
from mbrl.planning.tree.proposals import RootSet
from mbrl.planning.tree.tree import DOUBT, UNSEEN, VISITS, Leaf, Path, Select, Tree


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


class Chosen(NamedTuple):
    """Parts of Q of one action a state, pooled over its trees."""

    reward: Float[Tensor, "b"]
    penalty: Float[Tensor, "b"]
    bootstrap: Float[Tensor, "b"]
    uncertainty: Float[Tensor, "b"]


class Search:
    """Trees of `b` states and the simulations in them.

    Args:
        root: candidates and values at the roots.
        evaluate: expands edges.
        tree: empty storage for `b * copies.count` trees.
        copies: how trees of a state relate.
        lcb_coef: kappa.
        max_depth: in edges.
        halt_threshold: u_max; no plan enters more uncertainty if it knows of a way around.
        turn: `[b]`, which tree a state's simulations begin with, if they take turns.
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
        turn: Int[Tensor, "b"] | None = None,
    ) -> None:
        self.root, self.tree, self.copies, self.max_depth = root, tree, copies, max_depth
        self._evaluate, self._lcb_coef, self._turn = evaluate, lcb_coef, turn
        self._halt_threshold, self._alive = halt_threshold, root.valid
        self.bad_rows = self.deepest = self.rounds = 0
        device = root.value.device
        self._state = torch.arange(len(root.value), device=device)
        self._copy = torch.arange(copies.count, device=device)
        self._owner = self._state.repeat_interleave(copies.count)  # of each tree

        def repeat(rows: Tensor) -> Tensor:
            return rows if copies.count == 1 else rows.repeat_interleave(copies.count, 0)

        tree.plant(
            repeat(root.observation),
            repeat(root.value),
            logits=repeat(root.logits),
            actions=None if tree.actions is None else repeat(root.actions),
        )

    @property
    def valid(self) -> Bool[Tensor, "b k"]:
        """Candidates worth a simulation: allowed, answered in numbers, not halted while another is not."""
        if self._halt_threshold == math.inf:
            return self._alive
        fine = self._alive & ~self._halted()
        return torch.where(fine.any(-1, keepdim=True), fine, self._alive)

    @property
    def choosable(self) -> Bool[Tensor, "b k"]:
        """Candidates that a plan may begin with: the valid ones if any of them was tried, else all alive."""
        if self._halt_threshold == math.inf:
            return self._alive
        tried = self.valid & (self.stats().visits > 0)
        return torch.where(tried.any(-1, keepdim=True), self.valid, self._alive)

    @property
    def may_exclude(self) -> bool:
        """Whether candidates may have become invalid on the way."""
        return self.bad_rows > 0 or self._halt_threshold < math.inf

    def simulate(
        self,
        action: Int[Tensor, "b k"],
        sim: Int[Tensor, "b k"],
        *,
        select: Select,
        active: Bool[Tensor, "b k"] | None = None,
    ) -> None:
        """Runs one round: a simulation that begins with each action, distinct ones for each state.

        Args:
            action: `[b, k]`, candidates to begin with.
            sim: `[b, k]`, number of each simulation.
            select: what to do below the roots; it is given nodes and simulations, see `states_of`.
            active: `[b, k]`, which of them to run; None for all.
        """
        width = action.shape[1]
        state = self._state[:, None].expand_as(action)
        if self.copies.is_forest:
            shape = (len(action), self.copies.count, width)
            copy = self._copy[:, None].expand(shape)
            state, action, sim = (part[:, None].expand(shape) for part in (state, action, sim))
            active = None if active is None else active[:, None].expand(shape)
        elif self.copies.count > 1:
            assert self._turn is not None
            copy = (self._turn[:, None] + self.stats().visits.gather(1, action).long()) % self.copies.count
        else:
            copy = torch.zeros_like(action)
        flat = [part.reshape(-1) for part in (state, copy, action, sim)]
        if active is not None:
            chosen = active.reshape(-1).nonzero().squeeze(1)
            flat = [part.index_select(0, chosen) for part in flat]
        state, copy, action, sim = flat
        self._running = state
        path = self.tree.descend(
            state * self.copies.count + copy, action, select=select, max_depth=self.max_depth
        )
        shared = width if active is None and self.copies.is_forest and len(path.steps) == 1 else 0
        self._expand(path, Rows(state, sim, copy, shared))
        self.tree.backup(path)
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
        by_member, seen = self._by_member(visits, q)
        weight = seen if self.copies.is_forest else visits
        mean = (weight * (by_member if self.copies.is_forest else q)).sum(1) / weight.sum(1).clamp_min(1.0)
        members = seen.sum(1).clamp_min(1.0)
        centre = (seen * by_member).sum(1, keepdim=True) / members[:, None]
        deviation = ((seen * (by_member - centre)).square().sum(1) / members).sqrt()
        total = visits.amax(1) if self.copies.is_forest else visits.sum(1)
        return RootStats(mean - self._lcb_coef * deviation, mean, deviation, total)

    def member_values(self) -> Float[Tensor, "b e k"]:
        """Q of each candidate in each member's trees; NaN where none was visited."""
        count, width = self.copies.count, self.tree.root_width
        visits = self.tree.at_root(self.tree.visits).view(-1, count, width)
        by_member, seen = self._by_member(visits, self.tree.at_root(self.tree.q).view(-1, count, width))
        return by_member.masked_fill(seen == 0, torch.nan)

    def pool(self, slot: Int[Tensor, "b"]) -> Chosen:
        """Parts of Q of one candidate a state, pooled as `stats` pools Q."""
        edge = self._edges(slot)
        parts, visits = self.tree.edge_parts(edge), self.tree.visits[edge]
        weight = (visits > 0).to(visits.dtype) if self.copies.is_forest else visits
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1.0)
        return Chosen(*(weight[..., None] * parts).sum(1).unbind(-1))

    def follow(self, slot: Int[Tensor, "b"]) -> tuple[Float[Tensor, "b l act_dim"], Int[Tensor, "b"]]:
        """The plan that begins with a candidate, and its length."""
        edges = self.plan_edges(slot)
        return self.tree.action(edges.clamp_min(0)), (edges >= 0).sum(1)

    def plan_edges(self, slot: Int[Tensor, "b"]) -> Int[Tensor, "b l"]:
        """The most visited way below a candidate, as edges, in the tree that speaks for the others; then -1.

        That is the member's closest to the mean in a forest, else the tree with most visits of the candidate.
        """
        tree = self.tree
        edge = self._edges(slot)
        visits = tree.visits[edge]
        if self.copies.is_forest:
            mean = self.stats().mean.gather(1, slot[:, None])
            copy = (tree.q[edge] - mean).abs().masked_fill(visits == 0, torch.inf).argmin(1)
        else:
            copy = visits.argmax(1)
        edge = edge.gather(1, copy[:, None]).squeeze(1)
        plan = [edge]
        while len(plan) < self.max_depth:
            edge = self._deeper(edge)
            if not bool((edge >= 0).any()):
                break
            plan.append(edge)
        return torch.stack(plan, 1)

    def root_values(self) -> Float[Tensor, "b"]:
        """Mean of all that came back to the roots of each state, which forced exploration lowers."""
        sums = self.tree.sums[: self.tree.trees].view(-1, self.copies.count, 4).sum(1)
        return (sums[:, 0] - sums[:, 1] + sums[:, 2]) / sums[:, VISITS]

    def _deeper(self, edge: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """The most visited edge below each, of equals the one of most value; -1 where there is none."""
        tree = self.tree
        child = tree.child[tree.main_slot(edge.clamp_min(0))]
        row = (child - tree.trees).clamp_min(0)
        visits, q = tree.below(tree.visits)[row], tree.below(tree.q)[row]
        if self._halt_threshold < math.inf:
            doubt = tree.parts[:, DOUBT].view(-1, tree.outcomes).amax(1)
            visits = visits * (tree.below(doubt)[row] <= self._halt_threshold)
        most = visits.amax(1, keepdim=True)
        best = q.masked_fill(visits != most, -torch.inf).argmax(1)
        going = (edge >= 0) & (child >= tree.trees) & (most.squeeze(1) > 0)
        return torch.where(going, tree.first_edge(child) + best, -1)

    def _halted(self) -> Bool[Tensor, "b k"]:
        """Candidates whose first step was found too uncertain."""
        tree = self.tree
        doubt = tree.at_root(tree.parts[:, DOUBT].view(-1, tree.outcomes).amax(1))
        return (doubt.view(-1, self.copies.count, tree.root_width) > self._halt_threshold).any(1)

    def _edges(self, slot: Tensor) -> Int[Tensor, "b copies"]:
        """A candidate's edge in each tree of its state."""
        first = self._state[:, None] * self.copies.count + self._copy
        return first * self.tree.root_width + slot[:, None]

    def _by_member(self, visits: Tensor, q: Tensor) -> tuple[Float[Tensor, "b e k"], Float[Tensor, "b e k"]]:
        """Q by members, and 1 where a member was asked."""
        if self.copies.count != self.copies.members:
            member = torch.arange(self.copies.members, device=q.device)
            of = (self._copy % self.copies.members == member[:, None]).to(q.dtype)
            total = of @ visits
            return (of @ (visits * q)) / total.clamp_min(1.0), (total > 0).to(q.dtype)
        return q, (visits > 0).to(q.dtype)

    def _expand(self, path: Path, rows: Rows) -> None:
        """Asks what is behind new slots; those seen before, ended or at the depth limit, cost nothing."""
        tree = self.tree
        new = (tree.child.index_select(0, path.slot) == UNSEEN).nonzero().squeeze(1)
        if len(new) == 0:
            return
        parent, slot, state, sim, copy = path.parent, path.slot, rows.state, rows.sim, rows.copy
        if len(new) < len(slot):
            parent, slot, state, sim, copy = (
                part.index_select(0, new) for part in (parent, slot, state, sim, copy)
            )
            rows = Rows(state, sim, copy)
        observation = tree.observation.index_select(0, parent)
        leaf = self._evaluate(observation, tree.action(slot // tree.outcomes), rows)
        edge = leaf.edge
        total = leaf.value.sum() + edge.reward.sum() + edge.penalty.sum() + edge.mixed.sum()
        if bool((total + leaf.logits.sum()).isfinite()):
            tree.grow(slot, leaf, sim)
        else:
            self._grow_finite(slot, leaf, sim)

    def _grow_finite(self, slot: Tensor, leaf: Leaf, sim: Tensor) -> None:
        """Leaves out what the model did not answer in numbers, and the candidates that led there at once."""
        tree, edge = self.tree, leaf.edge
        parts = torch.stack([leaf.value, edge.reward, edge.penalty, edge.mixed], -1)
        finite = parts.isfinite().all(-1) & leaf.logits.isfinite().all(-1)
        good, bad = finite.nonzero().squeeze(1), (~finite).nonzero().squeeze(1)
        self.bad_rows += len(bad)
        kept = Leaf(
            leaf.observation[good],
            type(edge)(*(part[good] for part in edge)),
            leaf.uncertainty[good],
            leaf.value[good],
            leaf.logits[good],
            None if leaf.actions is None else leaf.actions[good],
        )
        tree.grow(slot[good], kept, sim[good])
        tree.bury(slot[bad])
        at_root = slot[bad] // tree.outcomes
        at_root = at_root[at_root < tree.trees * tree.root_width]
        self._alive = self._alive.clone()
        self._alive[self._owner[at_root // tree.root_width], at_root % tree.root_width] = False
