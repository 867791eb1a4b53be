"""Storage of a batch of search trees in flat tensors, so that every tree and simulation moves at once.

Nodes stand in one tensor: first the roots, then the others in order of creation, so that new nodes are
written as slices. Edges likewise, `root_width` for a root and `inner_width` for any other node. An edge has
`outcomes` slots, one but for progressive widening, and each slot leads to a child. The last node and the last
slot belong to no tree (the void): what must not count is booked there. Counts are floats, which saves
conversions in every selection.
"""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.problem.problem import Edge

UNVISITED: Final = -1
"""Child of a slot that no simulation came to."""

MASKED: Final = -2
"""Child of a slot for which the model gave no number."""

REWARD, PENALTY, MIXED, DISCOUNT, UNCERTAINTY = range(5)  # columns of `parts`
VISITS: Final = 3  # column of `sums` behind rewards, penalties and bootstraps


class Leaf(NamedTuple):
    """What the model, the critic and the prior say of `r` expanded slots."""

    observation: Float[Tensor, "r obs_dim"]
    edge: Edge  # [r] each
    uncertainty: Float[Tensor, "r"]
    value: Float[Tensor, "r"]  # 0 where the edge ended
    logits: Float[Tensor, "r a"]
    actions: Float[Tensor, "r a act_dim"] | None  # None for one-hot actions
    limited: Float[Tensor, "r 2"] | None = None  # is the constraint broken, cost; None without limits

    @property
    def is_finite(self) -> bool:
        """Whether every number is; a sum has fewer elements to look at."""
        edge = self.edge
        total = self.value.sum() + edge.reward.sum() + edge.penalty.sum() + edge.mixed.sum()
        return bool((total + self.logits.sum()).isfinite())

    def take(self, rows: Int[Tensor, "k"]) -> "Leaf":
        """Some of the rows."""
        return Leaf(
            self.observation[rows],
            Edge(*(part[rows] for part in self.edge)),
            self.uncertainty[rows],
            self.value[rows],
            self.logits[rows],
            None if self.actions is None else self.actions[rows],
            None if self.limited is None else self.limited[rows],
        )


class Tree:
    """Trees from their roots; a root starts with one visit and its own value.

    Args:
        observation: `[t, obs_dim]`, states at the roots.
        value: `[t]`, V there; gives type and device.
        logits: `[t, k]`, of the prior.
        actions: `[t, k, act_dim]`; None for one-hot actions, which are not stored.
        inner_width: actions at any other node.
        capacity: nodes besides the roots.
        outcomes: successors that an edge may keep.
        widening: exponent beta: a successor is drawn while `floor(visits^beta)` is not below their number.
        is_end_final: whether a terminal leaf is left alone; mctx goes on below it.
        most_broken: share of members that may break a constraint in a step below the roots; None where there
            is no constraint.
    """

    def __init__(
        self,
        observation: Float[Tensor, "t obs_dim"],
        value: Float[Tensor, "t"],
        *,
        logits: Float[Tensor, "t k"],
        actions: Float[Tensor, "t k act_dim"] | None,
        inner_width: int,
        capacity: int,
        outcomes: int = 1,
        widening: float = 0.5,
        is_end_final: bool = True,
        most_broken: float | None = None,
    ) -> None:
        self.most_broken = most_broken
        self.trees, self.root_width = logits.shape
        self.inner_width, self.capacity, self.size = inner_width, capacity, 0
        self.outcomes, self.widening, self.is_end_final = outcomes, widening, is_end_final
        self._first = self.trees * self.root_width  # edge of the first node below the roots
        self._allocate(observation, value, act_dim=None if actions is None else actions.shape[-1])
        roots = slice(0, self.trees)
        self.observation[roots] = observation
        self.raw_value[roots] = value
        # A root begins as a leaf that was visited once: all its value is bootstrap.
        self.sums[roots, 2] = value
        self.sums[roots, VISITS] = 1.0
        self.at_root(self.logits).copy_(logits)
        self.at_root(self.probs).copy_(logits.softmax(-1))
        if self.actions is not None and actions is not None:
            self.actions[: self._first] = actions.flatten(0, 1)

    def _allocate(self, observation: Tensor, like: Tensor, *, act_dim: int | None) -> None:
        device = like.device
        nodes = self.trees + self.capacity + 1
        edges = self._first + self.capacity * self.inner_width + 1
        slots = edges * self.outcomes
        # The last of each: indices stay valid, so that masked simulations need no branch.
        self.void, self.void_slot = nodes - 1, slots - 1
        self.sums = like.new_zeros(nodes, 4)  # reward, penalty and bootstrap parts, visits
        self.raw_value = like.new_zeros(nodes)
        # Empty, not zero: every row is written before it is read, and most of the capacity may never be.
        self.observation = like.new_empty(nodes, observation.shape[1])
        self.is_end = torch.zeros(nodes, dtype=torch.bool, device=device)
        self.parent_slot = torch.full((nodes,), UNVISITED, device=device)
        self.sim = torch.full((nodes,), UNVISITED, device=device)  # simulation that made the node
        self.q = like.new_zeros(edges)
        self.visits = like.new_zeros(edges)
        self.logits = like.new_empty(edges)
        self.probs = like.new_empty(edges)
        self.actions = None if act_dim is None else like.new_empty(edges, act_dim)
        self.child = torch.full((slots,), UNVISITED, device=device)
        self.child[-1] = self.void
        self.is_open = torch.zeros(slots, dtype=torch.bool, device=device)
        self.parts = like.new_zeros(slots, 5)
        self.limited = like.new_zeros(slots, 2)  # broken, cost; 0 without limits
        self.slot_visits = self.visits if self.outcomes == 1 else like.new_zeros(slots)
        self._one_hot = torch.eye(self.root_width, dtype=like.dtype, device=device)

    def at_root(self, edges: Tensor) -> Tensor:
        """View `[trees, root_width]` of a tensor of edges."""
        return edges[: self._first].view(self.trees, self.root_width)

    def below(self, edges: Tensor) -> Tensor:
        """View `[capacity, inner_width]` of a tensor of edges."""
        return edges[self._first : self._first + self.capacity * self.inner_width].view(-1, self.inner_width)

    def value(self, node: Int[Tensor, "*r"]) -> Float[Tensor, "*r"]:
        """What nodes are worth: the mean of what came back through them, or what `Backward` makes of it."""
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

    def edges_of(self, node: Int[Tensor, "r"], *, is_root: bool) -> Int[Tensor, "r a"]:
        """All edges of roots, or of other nodes."""
        width = self.root_width if is_root else self.inner_width
        first = node * width if is_root else self.first_edge(node)
        return first[:, None] + torch.arange(width, device=node.device)

    def origin(self, slot: int) -> tuple[int, int]:
        """Node and action that a slot belongs to."""
        edge = slot // self.outcomes
        if edge < self._first:
            return divmod(edge, self.root_width)
        row, action = divmod(edge - self._first, self.inner_width)
        return self.trees + row, action

    def slots(self, edge: Int[Tensor, "*r"]) -> Int[Tensor, "*r outcomes"]:
        """The slots of edges."""
        return edge[..., None] * self.outcomes + torch.arange(self.outcomes, device=edge.device)

    def main_slot(self, edge: Int[Tensor, "r"]) -> Int[Tensor, "r"]:
        """The most visited outcome of edges."""
        if self.outcomes == 1:
            return edge
        return edge * self.outcomes + self.slot_visits[self.slots(edge)].argmax(1)

    def edge_uncertainty(self) -> Float[Tensor, "edges"]:
        """Uncertainty of every edge, the largest of its outcomes."""
        return self.parts[:, UNCERTAINTY].view(-1, self.outcomes).amax(1)

    def edge_parts(self, edge: Int[Tensor, "*r"]) -> Float[Tensor, "*r 4"]:
        """`(reward, penalty, bootstrap, uncertainty)` of visited edges, by parts of Q, mean over outcomes."""
        slot = self.slots(edge)
        child, parts = self.child[slot].clamp_min(0), self.parts[slot]
        sums = self.sums[child]
        # The child's mean by parts; clamped for children that are not there, whose weight is 0.
        below = sums[..., :3] / sums[..., VISITS, None].clamp_min(1.0)
        q_parts = parts[..., :3] + parts[..., DISCOUNT, None] * below
        by_outcome = torch.cat([q_parts, parts[..., UNCERTAINTY, None]], -1)
        # Outcomes count by their visits: the mean is then over what was simulated.
        weight = self.slot_visits[slot]
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1.0)
        return (weight[..., None] * by_outcome).sum(-2)

    def add_nodes(self, slot: Int[Tensor, "r"], leaf: Leaf, sim: Int[Tensor, "r"]) -> None:
        """Puts a new node behind each slot."""
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
        # A flag for each slot: selection asks it once a level, instead of child and end.
        self.is_open[slot] = ~edge.ended if self.is_end_final else torch.ones_like(edge.ended)
        parts = (edge.reward, edge.penalty, edge.mixed, edge.discount, leaf.uncertainty)
        self.parts[slot] = torch.stack(parts, -1)
        if leaf.limited is not None:
            self.limited[slot] = leaf.limited

    def close(self, slot: Int[Tensor, "r"]) -> None:
        """Closes slots below the roots that break a constraint, and every slot above that leads nowhere else.

        At a root such a slot stays open and counts as broken: it is the search that decides what may be
        chosen there, from the trees of all members. One outcome for each edge.
        """
        while len(slot):
            self.limited[slot, 0] = 1.0
            slot = slot[slot >= self._first]
            if len(slot) == 0:
                return
            self.mask(slot)
            self.is_open[slot] = False
            node = self.trees + (slot - self._first) // self.inner_width
            is_dead = (self.child[self.edges_of(node, is_root=False)] == MASKED).all(1)
            # Sorted out, since several of a node may be closed at once.
            above = self.parent_slot[node[is_dead]].sort().values
            slot = above[torch.diff(above, prepend=above.new_full((1,), -1)) != 0]

    def mask(self, slot: Int[Tensor, "r"]) -> None:
        """Closes slots for which the model gave no number; their edges are not proposed again."""
        self.child[slot] = MASKED
        edge = slot // self.outcomes
        # The least finite number, not -inf: softmax over a node whose actions are all masked stays finite.
        self.logits[edge] = torch.finfo(self.logits.dtype).min
        self.probs[edge] = 0.0
