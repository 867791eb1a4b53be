"""A tree search's own trees: candidates with their Q, the plan edge by edge, nodes as plain values or DOT."""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.planning.base import SOURCES, PlanResult
from mbrl.planning.tree.search import Search
from mbrl.planning.tree.summary import member_values, plan_edges
from mbrl.planning.tree.tree import DISCOUNT, MIXED, PENALTY, REWARD, UNCERTAINTY, VISITS


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateNote:
    """A root action and what speaks for it.

    Attributes:
        action: scaled, or one-hot.
        source: one of `SOURCES`.
        weight: of the improved policy.
        visits: simulations.
        q: mean over members; NaN if never visited.
        q_lcb: less `lcb_coef` deviations.
        min_q: least Q of a member.
        min_member: the member with it, -1 if none was asked.
        is_chosen: whether the plan begins with it.
    """

    action: list[float]
    source: str
    weight: float
    visits: int
    q: float
    q_lcb: float
    min_q: float
    min_member: int
    is_chosen: bool


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeNote:
    """A step of the plan in the tree of one member.

    Attributes:
        action: scaled, or one-hot.
        reward: raw.
        penalty: for its uncertainty.
        mixed: the critic's share under a soft horizon.
        discount: of what follows.
        uncertainty: reward units.
        visits: of the edge.
        value: mean of what came back through the node behind it; V there before anything did.
        is_end: whether the model ends there.
        nearest: row of the logged states closest to the state behind it, if any were given, else -1.
        distance: to it, in deviations of the logged states.
    """

    action: list[float]
    reward: float
    penalty: float
    mixed: float
    discount: float
    uncertainty: float
    visits: int
    value: float
    is_end: bool
    nearest: int = -1
    distance: float = math.nan


class TreeExplanation(NamedTuple):
    """Candidates in order of weight, and the plan edge by edge."""

    candidates: list[CandidateNote]
    plan: list[EdgeNote]
    member: int  # whose tree the plan's edges are from


def explain_tree(
    result: PlanResult, row: int, *, logged: Float[Tensor, "n obs_dim"] | None = None
) -> TreeExplanation:
    """Lists what decided one state's plan.

    Args:
        result: with its tree (`keep_tree`).
        row: which state.
        logged: `[n, obs_dim]`, states of the log, raw units; the nearest to each planned state is noted.

    Raises:
        ValueError: a plan without its tree.
    """
    search = _search_of(result)
    slot = int((result.candidates[row] - result.action[row]).abs().amax(-1).argmin())
    candidates = [_note_candidate(result, search, row, k) for k in range(result.candidates.shape[1])]
    for_plan = candidates[slot]
    candidates[slot] = dataclasses.replace(for_plan, is_chosen=True)
    candidates.sort(key=lambda note: -note.weight)
    chosen = torch.tensor(slot).expand(len(result.action))
    edges = cast(list[int], plan_edges(search, chosen)[row].tolist())
    plan = [_note_edge(search, edge, logged) for edge in edges if edge >= 0]
    copy = edges[0] // search.tree.root_width % search.copies.count
    return TreeExplanation(candidates, plan, copy % search.copies.members)


def export_tree(result: PlanResult, row: int, *, copy: int = 0) -> list[dict[str, Any]]:
    """Nodes of one tree, in order of creation, the root first.

    Args:
        result: with its tree (`keep_tree`).
        row: which state.
        copy: which of the state's trees.

    Raises:
        ValueError: a plan without its tree.
    """
    return export_nodes(_search_of(result), row, copy=copy)


def export_nodes(search: Search, row: int, *, copy: int = 0) -> list[dict[str, Any]]:
    """Nodes of one tree, in order of creation; `node` is 1 + the simulation that made it."""
    tree = search.tree
    root = row * search.copies.count + copy
    number = {root: 0}
    nodes = [_describe_node(search, root, parent=-1, action=-1, number=0)]
    for node in range(tree.trees, tree.trees + tree.size):
        parent, action = tree.origin(int(tree.parent_slot[node]))
        if parent in number:
            number[node] = int(tree.sim[node]) + 1
            nodes.append(_describe_node(search, node, parent=parent, action=action, number=number[node]))
            nodes[-1]["parent"] = number[parent]
    return nodes


def to_dot(nodes: list[dict[str, Any]]) -> str:
    """Nodes of `export_tree` as a graph for Graphviz: width by visits, ended nodes boxed."""
    total = max(1, nodes[0]["visits"])
    lines = ["digraph tree {", "  node [shape=ellipse];"]
    for node in nodes:
        shape = ", shape=box" if node["is_end"] else ""
        label = f"{node['value']:.3g}\\n{node['visits']} visits"
        lines.append(f'  {node["node"]} [label="{label}"{shape}];')
        if node["parent"] >= 0:
            width = 0.5 + 4.0 * node["visits"] / total
            penalty = f"\\n-{node['penalty']:.2g}" if node["penalty"] else ""
            text = f"{node['action']}: {node['reward']:.2g}{penalty}"
            lines.append(f'  {node["parent"]} -> {node["node"]} [label="{text}", penwidth={width:.2f}];')
    return "\n".join([*lines, "}", ""])


def _search_of(result: PlanResult) -> Search:
    if not isinstance(result.tree, Search):
        raise ValueError("the plan carries no tree; set `keep_tree` in the planner's settings")
    return result.tree


def _note_candidate(result: PlanResult, search: Search, row: int, slot: int) -> CandidateNote:
    stats = search.stats()
    visits = int(stats.visits[row, slot])
    of_members = _numbers(member_values(search)[row, :, slot])
    asked = [(value, member) for member, value in enumerate(of_members) if not math.isnan(value)]
    min_q, min_member = min(asked, default=(math.nan, -1))
    return CandidateNote(
        action=_numbers(result.candidates[row, slot]),
        source=SOURCES[int(result.provenance[row, slot])],
        weight=float(result.weights[row, slot]),
        visits=visits,
        q=float(stats.mean[row, slot]) if visits else math.nan,
        q_lcb=float(stats.q[row, slot]) if visits else math.nan,
        min_q=min_q,
        min_member=min_member,
        is_chosen=False,
    )


def _note_edge(search: Search, edge: int, logged: Tensor | None) -> EdgeNote:
    tree = search.tree
    slot = tree.main_slot(torch.tensor([edge]))
    child = int(tree.child[slot])
    parts = _numbers(tree.parts[slot].squeeze(0))
    nearest, distance = -1, math.nan
    if logged is not None:
        spread = logged.std(0, correction=0).clamp_min(torch.finfo(logged.dtype).tiny)
        apart = ((logged - tree.observation[child].to(logged.dtype)) / spread).square().sum(-1)
        nearest = int(apart.argmin())
        distance = float(apart[nearest].sqrt())
    return EdgeNote(
        action=_numbers(tree.action(torch.tensor(edge))),
        reward=parts[REWARD],
        penalty=parts[PENALTY],
        mixed=parts[MIXED],
        discount=parts[DISCOUNT],
        uncertainty=parts[UNCERTAINTY],
        visits=int(tree.visits[edge]),
        value=float(tree.value(torch.tensor(child))),
        is_end=bool(tree.is_end[child]),
        nearest=nearest,
        distance=distance,
    )


def _describe_node(search: Search, node: int, *, parent: int, action: int, number: int) -> dict[str, Any]:
    tree = search.tree
    slot = int(tree.parent_slot[node])
    parts = _numbers(tree.parts[slot]) if slot >= 0 else [0.0] * 5
    return {
        "node": number,
        "parent": parent,
        "action": action,
        "visits": int(tree.sums[node, VISITS]),
        "value": float(tree.value(torch.tensor(node))),
        "raw_value": float(tree.raw_value[node]),
        "reward": parts[REWARD],
        "penalty": parts[PENALTY],
        "mixed": parts[MIXED],
        "discount": parts[DISCOUNT],
        "uncertainty": parts[UNCERTAINTY],
        "is_end": bool(tree.is_end[node]),
        "observation": _numbers(tree.observation[node]),
    }


def _numbers(row: Tensor) -> list[float]:
    return cast(list[float], row.tolist())
