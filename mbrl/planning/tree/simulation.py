"""The life of a simulation in the textbook's verbs: simulate, expand, backward (as in mctx's search).

Simulations of one call must not share an edge: they run in distinct trees, or begin with distinct actions.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from mbrl.planning.tree.evaluation import Evaluate, Rows
from mbrl.planning.tree.tree import DISCOUNT, MIXED, PENALTY, REWARD, UNVISITED, VISITS, Leaf, Tree

Select: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""`(nodes, simulations or None for all) -> actions` below the roots."""

Backward: TypeAlias = "Callable[[Tree, Path], None]"
"""Takes what simulations found back to all nodes and edges on their paths."""


class Step(NamedTuple):
    """One level of a path: of the simulations that came so far, the node left and the slot taken."""

    rows: Int[Tensor, "r"] | None  # None for all
    node: Int[Tensor, "r"]
    slot: Int[Tensor, "r"]


class Path(NamedTuple):
    """The way of `r` simulations from a root to a leaf."""

    steps: list[Step]
    parent: Int[Tensor, "r"]  # node above the last slot
    slot: Int[Tensor, "r"]  # the last one


def simulate(
    tree: Tree, root: Int[Tensor, "r"], action: Int[Tensor, "r"], *, select: Select, max_depth: int
) -> Path:
    """Walks from roots to the first slot that is unvisited, ended or `max_depth` edges deep.

    Args:
        tree: storage.
        root: `[r]`, tree of each simulation.
        action: `[r]`, what it does first.
        select: what it does then.
        max_depth: in edges.
    """
    node, edge, rows = root, root * tree.root_width + action, None
    slot = parent = leaf = edge
    steps: list[Step] = []
    while True:
        # Take the edge, and under progressive widening one of its outcomes.
        slot = edge if tree.outcomes == 1 else choose_outcome(tree, edge)
        steps.append(Step(rows, node, slot))
        parent = node if rows is None else parent.index_copy(0, rows, node)
        leaf = slot if rows is None else leaf.index_copy(0, rows, slot)
        if len(steps) == max_depth:
            break
        # Simulations go on while a node that has not ended lies behind the slot.
        live = tree.is_open.index_select(0, slot).nonzero().squeeze(1)
        if len(live) == 0:
            break
        if len(live) < len(slot):
            slot = slot.index_select(0, live)
            rows = live if rows is None else rows.index_select(0, live)
        # There they choose among its actions.
        node = tree.child.index_select(0, slot)
        edge = tree.first_edge(node) + select(node, rows)
    return Path(steps, parent, leaf)


def choose_outcome(tree: Tree, edge: Int[Tensor, "r"]) -> Int[Tensor, "r"]:
    """A free slot while `floor(visits^beta)` permits another outcome, else the least visited one."""
    slot = tree.slots(edge)
    child = tree.child[slot]
    stored = (child != UNVISITED).sum(-1)
    due = (tree.visits[edge] ** tree.widening + 1e-6).floor() >= stored  # 1e-6: 9^0.5 may round to 2.99..
    # The least visited: outcomes are draws of one distribution, so they should count alike.
    least = tree.slot_visits[slot].masked_fill(child < 0, torch.inf).argmin(-1)
    return edge * tree.outcomes + torch.where(due & (stored < tree.outcomes), stored, least)


def expand(tree: Tree, path: Path, rows: Rows, evaluate: Evaluate) -> Int[Tensor, "n"]:
    """Puts a node behind every unvisited slot; those seen before, ended or at the depth limit cost nothing.

    Args:
        tree: storage.
        path: of the simulations.
        rows: whose they are.
        evaluate: asks model, critic and prior.

    Returns:
        The slots for which the model gave no number; they are masked.
    """
    unvisited = (tree.child.index_select(0, path.slot) == UNVISITED).nonzero().squeeze(1)
    if len(unvisited) == 0:
        return unvisited
    parent, slot, sim = path.parent, path.slot, rows.sim
    if len(unvisited) < len(slot):
        parent, slot = (part.index_select(0, unvisited) for part in (parent, slot))
        rows = rows.take(unvisited)
        sim = rows.sim
    leaf = evaluate(tree.observation.index_select(0, parent), tree.action(slot // tree.outcomes), rows)
    if leaf.is_finite:
        tree.add_nodes(slot, leaf, sim)
        _close_broken(tree, slot, leaf)
        return slot[:0]
    edge = leaf.edge
    parts = torch.stack([leaf.value, edge.reward, edge.penalty, edge.mixed], -1)
    finite = parts.isfinite().all(-1) & leaf.logits.isfinite().all(-1)
    good = finite.nonzero().squeeze(1)
    tree.add_nodes(slot[good], leaf.take(good), sim[good])
    _close_broken(tree, slot[good], leaf.take(good))
    bad = slot[~finite]
    tree.mask(bad)
    return bad


def _close_broken(tree: Tree, slot: Int[Tensor, "r"], leaf: Leaf) -> None:
    """Leaves no way below the roots that breaks a constraint: such a step is not taken and counts nothing."""
    if leaf.limited is None or tree.most_broken is None or tree.outcomes > 1:
        return  # several outcomes of an edge are draws, of which a share may break it
    inner = slot >= tree.trees * tree.root_width
    tree.close(slot[inner & (leaf.limited[:, 0] > tree.most_broken)])


def backward(tree: Tree, path: Path) -> None:
    """Adds the returns of a path to every node and edge on it.

    From the leaf with `(0, 0, V)` upwards: `G = part + discount G`, for rewards, penalties and bootstraps.
    """
    leaf = tree.child.index_select(0, path.slot)
    steps = path.steps
    if bool((leaf < 0).any()):
        is_cut = tree.most_broken is not None
        steps = _cut_closed(tree, steps) if is_cut else _send_to_void(tree, steps, leaf)
        leaf = leaf.masked_fill(leaf < 0, tree.void)
    slots = torch.cat([step.slot for step in steps])
    parts = tree.parts.index_select(0, slots)
    # The leaf's own value is all bootstrap.
    gain = parts.new_zeros(len(leaf), 4)
    gain[:, 2] = tree.raw_value.index_select(0, leaf)
    gains: list[Tensor] = [gain]
    # G = part + discount G, one level at a time; simulations that ended higher up wait until it is theirs.
    pieces = torch.split(parts, [len(step.slot) for step in steps])
    for step, piece in zip(reversed(steps), reversed(pieces), strict=True):
        above = gain if step.rows is None else gain.index_select(0, step.rows)
        above = torch.addcmul(piece[:, :4], piece[:, DISCOUNT, None], above)
        if tree.most_broken is not None:
            # Behind a way that was closed nothing came back: its node is worth what it is without the way.
            closed = (step.slot == tree.void_slot) & (step.node != tree.void)
            above[:, 2] = torch.where(closed, tree.raw_value[step.node], above[:, 2])
        gain = above if step.rows is None else gain.index_copy(0, step.rows, above)
        gains.append(above)
    # Nodes take the sums and a visit each, then edges what their children are worth now.
    added = torch.cat(gains)
    added[:, VISITS] = 1.0
    tree.sums.index_add_(0, torch.cat([leaf, *(step.node for step in reversed(steps))]), added)
    _update_edges(tree, slots, parts)


def _update_edges(tree: Tree, slots: Tensor, parts: Tensor) -> None:
    """Counts a visit of each slot; `Q = reward - penalty + mixed + discount V(child)`."""
    ones = torch.ones_like(parts[:, 0])
    if tree.outcomes == 1:
        tree.visits.index_add_(0, slots, ones)
        sums = tree.sums.index_select(0, tree.child.index_select(0, slots))
        value = (sums[:, 0] - sums[:, 1] + sums[:, 2]) / sums[:, VISITS]
        q = parts[:, REWARD] - parts[:, PENALTY] + parts[:, MIXED] + parts[:, DISCOUNT] * value
        tree.q.index_copy_(0, slots, q)
        return
    edge = slots // tree.outcomes
    tree.visits.index_add_(0, edge, ones)
    tree.slot_visits.index_add_(0, slots, ones)
    by_part = tree.edge_parts(edge)
    tree.q[edge] = by_part[:, 0] - by_part[:, 1] + by_part[:, 2]


def backward_max(tree: Tree, path: Path) -> None:
    """Makes every node on a path worth the best of its own leaf value and its visited edges.

    From the leaf upwards, by parts: `V <- max(V_leaf, max_a Q(a))`. So a search below a node cannot lower it:
    poor actions that were tried there say nothing of the good ones. `sums` hold value times visits, as those
    of `backward` do.
    """
    leaf = tree.child.index_select(0, path.slot)
    reached = leaf >= 0  # the others were masked, and came back with nothing
    leaf = leaf[reached]
    tree.sums[leaf, 2] += tree.raw_value[leaf]
    tree.sums[leaf, VISITS] += 1.0
    for depth in range(len(path.steps) - 1, -1, -1):
        step = path.steps[depth]
        kept = reached if step.rows is None else reached[step.rows]
        if tree.most_broken is not None:
            kept = tree.child[step.slot] >= 0  # above a way that was closed visits count
        node, slot = step.node[kept], step.slot[kept]
        # 1. The edge: a visit, and Q from what its child is worth now.
        edge, ones = slot // tree.outcomes, tree.q.new_ones(len(slot))
        tree.visits.index_add_(0, edge, ones)
        if tree.outcomes > 1:
            tree.slot_visits.index_add_(0, slot, ones)
        by_part = tree.edge_parts(edge)
        tree.q[edge] = by_part[:, 0] - by_part[:, 1] + by_part[:, 2]
        # 2. The node: its best visited edge, unless the critic thought more of it from the start.
        edges = tree.edges_of(node, is_root=depth == 0)
        none = tree.visits[edges] == 0
        if tree.outcomes == 1:
            none = none | (tree.child[edges] < 0)
        q = tree.q[edges].masked_fill(none, -torch.inf)
        best = edges.gather(1, q.argmax(1, keepdim=True)).squeeze(1)
        own = by_part.new_zeros(len(node), 3)
        own[:, 2] = tree.raw_value[node]
        is_better = tree.q[best] > tree.raw_value[node]
        parts = torch.where(is_better[:, None], tree.edge_parts(best)[:, :3], own)
        visits = 1.0 + tree.visits[edges].sum(1, keepdim=True)
        tree.sums[node] = torch.cat((parts * visits, visits), 1)


def _cut_closed(tree: Tree, steps: list[Step]) -> list[Step]:
    """The same steps, but slots with no node behind them are the void's; of roots their simulations, too.

    So a simulation that ends before a closed way counts as a visit of all that leads there. Otherwise a
    candidate would fall behind others in visits for each of its ways that is closed.
    """
    cut: list[Step] = []
    for depth, step in enumerate(steps):
        gone = tree.child[step.slot] < 0
        node = step.node.masked_fill(gone, tree.void) if depth == 0 else step.node
        cut.append(Step(step.rows, node, step.slot.masked_fill(gone, tree.void_slot)))
    return cut


def _send_to_void(tree: Tree, steps: list[Step], leaf: Tensor) -> list[Step]:
    """The same steps, but what simulations without a leaf would book goes to the void."""
    lost = leaf < 0
    diverted: list[Step] = []
    for step in steps:
        here = lost if step.rows is None else lost[step.rows]
        node = step.node.masked_fill(here, tree.void)
        diverted.append(Step(step.rows, node, step.slot.masked_fill(here, tree.void_slot)))
    return diverted
