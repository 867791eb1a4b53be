"""A batch of search trees in flat tensors: descend, grow, back up; every tree and simulation at once.

Nodes stand in one tensor: first the roots, then the others in order of creation, so growing writes slices.
Edges likewise, `root_width` for a root and `inner_width` for any other node. An edge has `outcomes` slots,
one but for progressive widening, and each slot leads to a child. The last node and the last slot belong to no
tree: what must not count is booked there. Counts are floats, which saves conversions in every selection.

Simulations of one round must not share an edge: distinct trees, or distinct actions at a root.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.problem.problem import Edge

UNSEEN: Final = -1
DEAD: Final = -2  # the model gave no number
REWARD, PENALTY, MIXED, DISCOUNT, DOUBT = range(5)
VISITS: Final = 3  # column of `sums` behind those of the parts

Select: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""`(nodes, simulations or None for all) -> actions` below the roots."""


class Leaf(NamedTuple):
    """What expanding `r` slots found."""

    observation: Float[Tensor, "r obs_dim"]
    edge: Edge  # [r] each
    uncertainty: Float[Tensor, "r"]
    value: Float[Tensor, "r"]  # 0 where the edge ended
    logits: Float[Tensor, "r a"]
    actions: Float[Tensor, "r a act_dim"] | None  # None for one-hot actions


class Step(NamedTuple):
    """One level of a descent: of the simulations that came so far, the node left and the slot taken."""

    rows: Int[Tensor, "r"] | None  # None for all
    node: Int[Tensor, "r"]
    slot: Int[Tensor, "r"]


class Path(NamedTuple):
    """A descent of `r` simulations."""

    steps: list[Step]
    parent: Int[Tensor, "r"]  # node above the last slot
    slot: Int[Tensor, "r"]  # the last one


class Tree:
    """Storage of `trees` trees and the operations on it.

    Args:
        trees: number of roots.
        root_width: actions at a root.
        inner_width: actions at any other node.
        capacity: nodes besides the roots.
        obs_dim: size of a state.
        act_dim: size of an action that is stored; None for one-hot actions, which are not.
        outcomes: successors that an edge may keep.
        widening: exponent beta: a successor is drawn while `floor(visits^beta)` is not below their number.
        is_end_final: whether a terminal leaf is left alone; mctx goes on below it.
        like: tensor that gives type and device.
    """

    def __init__(
        self,
        *,
        trees: int,
        root_width: int,
        inner_width: int,
        capacity: int,
        obs_dim: int,
        act_dim: int | None,
        like: Tensor,
        outcomes: int = 1,
        widening: float = 0.5,
        is_end_final: bool = True,
    ) -> None:
        self.trees, self.root_width, self.inner_width = trees, root_width, inner_width
        self.outcomes, self.widening, self.is_end_final = outcomes, widening, is_end_final
        self.capacity, self.size = capacity, 0
        self._first = trees * root_width  # edge of the first node below the roots
        nodes, edges = trees + capacity + 1, self._first + capacity * inner_width + 1
        slots = edges * outcomes
        self._void, self._void_slot = nodes - 1, slots - 1
        self.sums = like.new_zeros(nodes, 4)  # reward, penalty and bootstrap parts, visits
        self.raw_value = like.new_zeros(nodes)
        self.observation = like.new_empty(nodes, obs_dim)
        self.is_end = torch.zeros(nodes, dtype=torch.bool, device=like.device)
        self.parent_slot = torch.full((nodes,), UNSEEN, device=like.device)
        self.sim = torch.full((nodes,), UNSEEN, device=like.device)  # simulation that made the node
        self.q = like.new_zeros(edges)
        self.visits = like.new_zeros(edges)
        self.logits = like.new_empty(edges)
        self.probs = like.new_empty(edges)
        self.actions = None if act_dim is None else like.new_empty(edges, act_dim)
        self.child = torch.full((slots,), UNSEEN, device=like.device)
        self.child[-1] = self._void
        self.is_open = torch.zeros(slots, dtype=torch.bool, device=like.device)
        self.parts = like.new_zeros(slots, 5)
        self.slot_visits = self.visits if outcomes == 1 else like.new_zeros(slots)
        self._one_hot = torch.eye(root_width, dtype=like.dtype, device=like.device)

    def at_root(self, edges: Tensor) -> Tensor:
        """View `[trees, root_width]` of a tensor of edges."""
        return edges[: self._first].view(self.trees, self.root_width)

    def below(self, edges: Tensor) -> Tensor:
        """View `[capacity, inner_width]` of a tensor of edges."""
        return edges[self._first : self._first + self.capacity * self.inner_width].view(-1, self.inner_width)

    def value(self, node: Int[Tensor, "*r"]) -> Float[Tensor, "*r"]:
        """Mean of what came back through nodes."""
        reward, penalty, bootstrap, visits = self.sums[node].unbind(-1)
        return (reward - penalty + bootstrap) / visits

    def action(self, edge: Int[Tensor, "*r"]) -> Float[Tensor, "*r act_dim"]:
        """The actions of edges."""
        if self.actions is not None:
            return self.actions[edge]
        return self._one_hot[edge % self.root_width]  # as wide below the roots

    def first_edge(self, node: Int[Tensor, "*r"]) -> Int[Tensor, "*r"]:
        """Edge of action 0 of nodes below the roots."""
        return (node - self.trees) * self.inner_width + self._first

    def origin(self, slot: int) -> tuple[int, int]:
        """Node and action that a slot belongs to."""
        edge = slot // self.outcomes
        if edge < self._first:
            return divmod(edge, self.root_width)
        row, action = divmod(edge - self._first, self.inner_width)
        return self.trees + row, action

    def main_slot(self, edge: Int[Tensor, "r"]) -> Int[Tensor, "r"]:
        """The most visited outcome of edges."""
        slot = edge * self.outcomes
        if self.outcomes == 1:
            return slot
        every = slot[:, None] + torch.arange(self.outcomes, device=edge.device)
        return slot + self.slot_visits[every].argmax(1)

    def plant(
        self,
        observation: Float[Tensor, "t obs_dim"],
        value: Float[Tensor, "t"],
        *,
        logits: Float[Tensor, "t a"],
        actions: Float[Tensor, "t a act_dim"] | None,
    ) -> None:
        """Sets the roots; each starts with one visit."""
        roots = slice(0, self.trees)
        self.observation[roots] = observation
        self.raw_value[roots] = value
        self.sums[roots, 2] = value
        self.sums[roots, VISITS] = 1.0
        self.at_root(self.logits).copy_(logits)
        self.at_root(self.probs).copy_(logits.softmax(-1))
        if self.actions is not None and actions is not None:
            self.actions[: self._first] = actions.flatten(0, 1)

    def descend(
        self, root: Int[Tensor, "r"], action: Int[Tensor, "r"], *, select: Select, max_depth: int
    ) -> Path:
        """Walks from roots to the first slot that is new, ended or `max_depth` edges deep.

        Args:
            root: `[r]`, tree of each simulation.
            action: `[r]`, what it does first.
            select: what it does then.
            max_depth: in edges.
        """
        node, edge, rows = root, root * self.root_width + action, None
        slot = parent = leaf = edge
        steps: list[Step] = []
        while True:
            slot = edge if self.outcomes == 1 else self._choose_outcome(edge)
            steps.append(Step(rows, node, slot))
            parent = node if rows is None else parent.index_copy(0, rows, node)
            leaf = slot if rows is None else leaf.index_copy(0, rows, slot)
            if len(steps) == max_depth:
                break
            live = self.is_open.index_select(0, slot).nonzero().squeeze(1)
            if len(live) == 0:
                break
            if len(live) < len(slot):
                slot = slot.index_select(0, live)
                rows = live if rows is None else rows.index_select(0, live)
            node = self.child.index_select(0, slot)
            edge = self.first_edge(node) + select(node, rows)
        return Path(steps, parent, leaf)

    def grow(self, slot: Int[Tensor, "r"], leaf: Leaf, sim: Int[Tensor, "r"]) -> None:
        """Hangs a new node behind each slot."""
        count = len(slot)
        rows = slice(self.size, self.size + count)
        nodes = slice(self.trees + self.size, self.trees + self.size + count)
        edge = leaf.edge
        self.size += count
        self.observation[nodes] = leaf.observation
        self.raw_value[nodes] = leaf.value
        self.is_end[nodes] = edge.ended
        self.parent_slot[nodes] = slot
        self.sim[nodes] = sim
        self.below(self.logits)[rows] = leaf.logits
        self.below(self.probs)[rows] = leaf.logits.softmax(-1)
        if self.actions is not None and leaf.actions is not None:
            first = self._first + rows.start * self.inner_width
            self.actions[first : first + count * self.inner_width] = leaf.actions.flatten(0, 1)
        self.child[slot] = torch.arange(nodes.start, nodes.stop, device=slot.device)
        self.is_open[slot] = ~edge.ended if self.is_end_final else torch.ones_like(edge.ended)
        parts = (edge.reward, edge.penalty, edge.mixed, edge.discount, leaf.uncertainty)
        self.parts[slot] = torch.stack(parts, -1)

    def bury(self, slot: Int[Tensor, "r"]) -> None:
        """Closes slots for which the model gave no number; their edges are not proposed again."""
        self.child[slot] = DEAD
        edge = slot // self.outcomes
        self.logits[edge] = torch.finfo(self.logits.dtype).min
        self.probs[edge] = 0.0

    def backup(self, path: Path) -> None:
        """Adds the returns of a descent to every node and edge on its way.

        From the leaf with `(0, 0, V)` upwards: `G = part + discount G`, for rewards, penalties and
        bootstraps.
        """
        leaf = self.child.index_select(0, path.slot)
        steps = path.steps
        if bool((leaf < 0).any()):
            steps, leaf = self._divert(steps, leaf), leaf.masked_fill(leaf < 0, self._void)
        slots = torch.cat([step.slot for step in steps])
        parts = self.parts.index_select(0, slots)
        gain = parts.new_zeros(len(leaf), 4)
        gain[:, 2] = self.raw_value.index_select(0, leaf)
        gains: list[Tensor] = [gain]
        pieces = torch.split(parts, [len(step.slot) for step in steps])
        for step, piece in zip(reversed(steps), reversed(pieces), strict=True):
            above = gain if step.rows is None else gain.index_select(0, step.rows)
            above = torch.addcmul(piece[:, :4], piece[:, DISCOUNT, None], above)
            gain = above if step.rows is None else gain.index_copy(0, step.rows, above)
            gains.append(above)
        added = torch.cat(gains)
        added[:, VISITS] = 1.0
        self.sums.index_add_(0, torch.cat([leaf, *(step.node for step in reversed(steps))]), added)
        self._refresh(slots, parts)

    def edge_parts(self, edge: Int[Tensor, "*r"]) -> Float[Tensor, "*r 4"]:
        """`(reward, penalty, bootstrap, uncertainty)` of visited edges, by parts of Q, mean over outcomes."""
        slot = edge[..., None] * self.outcomes + torch.arange(self.outcomes, device=edge.device)
        child, parts = self.child[slot].clamp_min(0), self.parts[slot]
        sums = self.sums[child]
        below = sums[..., :3] / sums[..., VISITS, None].clamp_min(1.0)
        found = torch.cat([parts[..., :3] + parts[..., DISCOUNT, None] * below, parts[..., DOUBT, None]], -1)
        weight = self.slot_visits[slot]
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1.0)
        return (weight[..., None] * found).sum(-2)

    def max_backup(self) -> Float[Tensor, "t"]:
        """Values of the roots if every node took its best visited edge: `max_a r + discount max ...`."""
        best = self.raw_value.clone()
        for node in range(self.trees + self.size - 1, -1, -1):
            inner = node >= self.trees
            width = self.inner_width if inner else self.root_width
            first = int(self.first_edge(torch.tensor(node))) if inner else node * width
            visits = self.visits[first : first + width]
            if not bool((visits > 0).any()):
                continue
            span = slice(first * self.outcomes, (first + width) * self.outcomes)
            parts, child = self.parts[span], self.child[span]
            worth = parts[:, REWARD] - parts[:, PENALTY] + parts[:, MIXED]
            worth = worth + parts[:, DISCOUNT] * best[child.clamp_min(0)]
            weighted = (self.slot_visits[span] * worth).view(width, -1).sum(1) / visits.clamp_min(1.0)
            best[node] = weighted[visits > 0].max()
        return best[: self.trees]

    def _refresh(self, slots: Tensor, parts: Tensor) -> None:
        """Counts a visit of each slot and puts what its child is worth now into Q."""
        ones = torch.ones_like(parts[:, 0])
        if self.outcomes == 1:
            self.visits.index_add_(0, slots, ones)
            sums = self.sums.index_select(0, self.child.index_select(0, slots))
            value = (sums[:, 0] - sums[:, 1] + sums[:, 2]) / sums[:, VISITS]
            worth = parts[:, REWARD] - parts[:, PENALTY] + parts[:, MIXED] + parts[:, DISCOUNT] * value
            self.q.index_copy_(0, slots, worth)
            return
        edge = slots // self.outcomes
        self.visits.index_add_(0, edge, ones)
        self.slot_visits.index_add_(0, slots, ones)
        found = self.edge_parts(edge)
        self.q[edge] = found[:, 0] - found[:, 1] + found[:, 2]

    def _choose_outcome(self, edge: Tensor) -> Tensor:
        """A free slot while `floor(visits^beta)` permits another outcome, else the least visited one."""
        slot = edge[:, None] * self.outcomes + torch.arange(self.outcomes, device=edge.device)
        child = self.child[slot]
        stored = (child != UNSEEN).sum(-1)
        due = (self.visits[edge] ** self.widening + 1e-6).floor() >= stored
        least = self.slot_visits[slot].masked_fill(child < 0, torch.inf).argmin(-1)
        return edge * self.outcomes + torch.where(due & (stored < self.outcomes), stored, least)

    def _divert(self, steps: list[Step], leaf: Tensor) -> list[Step]:
        """Sends what simulations without a leaf would book into the void."""
        lost = leaf < 0
        diverted: list[Step] = []
        for step in steps:
            here = lost if step.rows is None else lost[step.rows]
            node = step.node.masked_fill(here, self._void)
            diverted.append(Step(step.rows, node, step.slot.masked_fill(here, self._void_slot)))
        return diverted
