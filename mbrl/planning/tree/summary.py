"""What the trees of a finished search say of one candidate: its value by parts, and the plan below it."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.tree.search import Search
from mbrl.planning.tree.tree import MASKED


class PooledParts(NamedTuple):
    """Parts of Q of one candidate a state, pooled over its trees."""

    reward: Float[Tensor, "b"]
    penalty: Float[Tensor, "b"]
    bootstrap: Float[Tensor, "b"]
    uncertainty: Float[Tensor, "b"]


def pool_parts(search: Search, slot: Int[Tensor, "b"]) -> PooledParts:
    """Parts of Q of one candidate a state, pooled as `Search.stats` pools Q."""
    edge = search.edges(slot)
    parts, visits = search.tree.edge_parts(edge), search.tree.visits[edge]
    # As in `Search.stats`: members count alike in a forest, simulations elsewhere. So parts add up to Q.
    weight = (visits > 0).to(visits.dtype) if search.copies.is_forest else visits
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1.0)
    return PooledParts(*(weight[..., None] * parts).sum(1).unbind(-1))


def member_values(search: Search) -> Float[Tensor, "b e k"]:
    """Q of each candidate in each member's trees; NaN where none was visited."""
    tree, count = search.tree, search.copies.count
    visits, q = (tree.at_root(part).view(-1, count, tree.root_width) for part in (tree.visits, tree.q))
    by_member, seen = search.by_member(visits, q)
    return by_member.masked_fill(seen == 0, torch.nan)


def follow_plan(
    search: Search, slot: Int[Tensor, "b"]
) -> tuple[Float[Tensor, "b l act_dim"], Int[Tensor, "b"]]:
    """The plan that begins with a candidate, and its length."""
    edges = plan_edges(search, slot)
    # Behind its end a plan repeats edge 0; the length says how much of it counts.
    return search.tree.action(edges.clamp_min(0)), (edges >= 0).sum(1)


def plan_edges(search: Search, slot: Int[Tensor, "b"]) -> Int[Tensor, "b l"]:
    """The most visited way below a candidate, as edges, in the tree that speaks for the others; then -1.

    That is the member's closest to the mean in a forest, else the tree with most visits of the candidate.
    """
    tree = search.tree
    # 1. The tree that speaks for the others.
    edge = search.edges(slot)
    visits = tree.visits[edge]
    if search.copies.is_forest:
        mean = search.stats().mean.gather(1, slot[:, None])
        copy = (tree.q[edge] - mean).abs().masked_fill(visits == 0, torch.inf).argmin(1)
    else:
        copy = visits.argmax(1)
    # 2. Down it by visits, which are the search's own verdict.
    edge = edge.gather(1, copy[:, None]).squeeze(1)
    plan = [edge]
    while len(plan) < search.max_depth:
        edge = _next_edge(search, edge)
        if not bool((edge >= 0).any()):
            break
        plan.append(edge)
    return torch.stack(plan, 1)


def _next_edge(search: Search, edge: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """The most visited edge below each, of equals the one of most value; -1 where there is none."""
    tree = search.tree
    child = tree.child[tree.main_slot(edge.clamp_min(0))]
    # Clamped so that rows without a child can be looked up; `going` discards what they find.
    row = (child - tree.trees).clamp_min(0)
    visits, q = tree.below(tree.visits)[row], tree.below(tree.q)[row]
    if search.halt_threshold < math.inf:  # a plan does not go where the model may not be trusted
        uncertainty = tree.below(tree.edge_uncertainty())[row]
        visits = visits * (uncertainty <= search.halt_threshold)
    # A way that was closed later, since what follows it breaks a constraint, is none.
    visits = visits * (tree.below(tree.child)[row] != MASKED) if tree.outcomes == 1 else visits
    most = visits.amax(1, keepdim=True)
    best = q.masked_fill(visits != most, -torch.inf).argmax(1)
    going = (edge >= 0) & (child >= tree.trees) & (most.squeeze(1) > 0)
    return torch.where(going, tree.first_edge(child) + best, -1)
