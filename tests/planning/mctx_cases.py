"""Cases on which our trees must equal those of mctx 0.0.71, and our side of the comparison.

`python -m tests.planning.mctx_cases` (with mctx and jax installed) writes the golden trees anew.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl.planning.explain.search_tree import export_nodes
from mbrl.planning.problem.problem import Edge
from mbrl.planning.tree.gumbel import GumbelConfig, GumbelStrategy
from mbrl.planning.tree.proposals import RootSet, mask_logits
from mbrl.planning.tree.puct import PUCTConfig, PUCTStrategy
from mbrl.planning.tree.search import Copies, Search, instantiate_trees
from mbrl.planning.tree.tree import Leaf

GOLDEN = Path(__file__).parent / "golden" / "mctx.json"
STATES, ROWS = 12, 4


@dataclasses.dataclass(frozen=True)
class Case:
    algorithm: str
    sims: int
    actions: int
    max_depth: int | None

    @property
    def name(self) -> str:
        return f"{self.algorithm}-n{self.sims}-a{self.actions}-d{self.max_depth}"


CASES = [
    Case(*parts) for parts in itertools.product(("gumbel", "puct"), (1, 2, 7, 32, 100), (2, 4, 9), (None, 3))
]


@dataclasses.dataclass(frozen=True)
class Tables:
    """A random task with distinct reals, a few discounts of 0, and a mask for each of four roots."""

    following: np.ndarray  # [s, a]
    reward: np.ndarray
    discount: np.ndarray
    logits: np.ndarray
    value: np.ndarray  # [s]
    start: np.ndarray  # [row]
    invalid: np.ndarray  # [row, a]


def make_tables(actions: int) -> Tables:
    rng = np.random.default_rng(actions)
    shape = (STATES, actions)
    discount = 0.5 + 0.5 * rng.random(shape)
    discount[rng.random(shape) < 0.1] = 0.0
    invalid = np.zeros((ROWS, actions), dtype=bool)
    invalid[1, 0] = invalid[2, -1] = True
    invalid[3, :: max(2, actions // 2)] = True
    return Tables(
        following=rng.integers(STATES, size=shape),
        reward=4.0 * rng.random(shape) - 2.0,
        discount=discount,
        logits=3.0 * rng.random(shape),
        value=6.0 * rng.random(STATES) - 3.0,
        start=np.arange(ROWS),
        invalid=invalid,
    )


class TableEvaluation:
    """Expands edges by tables; states are indices."""

    def __init__(self, tables: Tables, dtype: torch.dtype = torch.float64) -> None:
        self.following = torch.from_numpy(tables.following)
        self.reward, self.discount, self.logits, self.value = (
            torch.from_numpy(part).to(dtype)
            for part in (tables.reward, tables.discount, tables.logits, tables.value)
        )
        self.calls = 0

    def __call__(self, observation: Tensor, action: Tensor, rows: Any) -> Leaf:
        self.calls += 1
        state, index = observation[:, 0].long(), action.argmax(-1)
        following = self.following[state, index]
        zero = torch.zeros_like(self.reward[state, index])
        edge = Edge(self.reward[state, index], zero, self.discount[state, index], zero, zero.bool())
        return Leaf(
            following[:, None].to(zero.dtype), edge, zero, self.value[following], self.logits[following], None
        )


def make_search(
    case: Case, tables: Tables, *, dtype: torch.dtype = torch.float64, is_exact: bool = True
) -> Search:
    """Trees of the four roots."""
    start = torch.from_numpy(tables.start)
    valid = ~torch.from_numpy(tables.invalid)
    logits = torch.from_numpy(tables.logits).to(dtype)[start]
    if case.algorithm == "puct":
        logits = logits.softmax(-1).log()
    value = torch.from_numpy(tables.value).to(dtype)[start]
    rows = len(start)
    root = RootSet(
        observation=start[:, None].to(dtype),
        value=value,
        value_spread=torch.zeros_like(value),
        actions=torch.eye(case.actions, dtype=dtype).expand(rows, -1, -1),
        logits=mask_logits(logits, valid),
        valid=valid,
        provenance=torch.zeros(rows, case.actions, dtype=torch.long),
        policy_slot=logits.argmax(-1),
    )
    tree = instantiate_trees(
        root,
        Copies(),
        is_stored=False,
        inner_width=case.actions,
        capacity=rows * case.sims,
        is_end_final=not is_exact,
    )
    return Search(
        root=root,
        evaluate=TableEvaluation(tables, dtype),
        tree=tree,
        copies=Copies(),
        lcb_coef=0.0,
        max_depth=case.max_depth or case.sims,
    )


def run_ours(case: Case, gumbel: Tensor | None, *, tables: Tables | None = None, exact: str = "mctx",
             dtype: torch.dtype = torch.float64) -> dict[str, Any]:  # fmt: skip
    """Trees, visits, weights and (Gumbel only) actions of our search."""
    search = make_search(case, tables or make_tables(case.actions), dtype=dtype, is_exact=exact == "mctx")
    rows = len(search.root.value)
    if case.algorithm == "gumbel":
        assert gumbel is not None
        strategy = GumbelStrategy(GumbelConfig(exact=exact, compare_policy=False), value_scale=1e-6)
        choice = strategy.search(search, gumbel.to(dtype), sims=case.sims)
        weights, action = choice.weights, choice.slot.tolist()
    else:
        strategy = PUCTStrategy(PUCTConfig(least_spread=0.0), value_scale=1.0, is_end_final=False)
        ties = torch.zeros(rows, case.actions, dtype=dtype)
        strategy.search(search, search.root.logits.softmax(-1), sims=case.sims, ties=ties)
        visits = search.stats().visits
        weights, action = visits / visits.sum(-1, keepdim=True), None
    return {
        "nodes": [[[n["parent"], n["action"], n["visits"], n["value"], n["raw_value"], n["node"]]
                   for n in export_nodes(search, row)] for row in range(rows)],
        "visits": search.stats().visits.long().tolist(),
        "q": search.stats().mean.tolist(),
        "weights": weights.tolist(),
        "action": action,
    }  # fmt: skip


def run_mctx(case: Case) -> dict[str, Any]:
    """The same of mctx; needs the extra `conformance`."""
    import jax
    import jax.numpy as jnp
    import mctx

    jax.config.update("jax_enable_x64", True)
    tables = make_tables(case.actions)
    following, reward, discount, logits, value = (
        jnp.asarray(part)
        for part in (tables.following, tables.reward, tables.discount, tables.logits, tables.value)
    )

    def recurrent(_params: Any, _key: Any, action: Any, state: Any) -> Any:
        after = following[state, action]
        out = mctx.RecurrentFnOutput(
            reward=reward[state, action],
            discount=discount[state, action],
            prior_logits=logits[after],
            value=value[after],
        )
        return out, after

    start = jnp.asarray(tables.start)
    arguments: dict[str, Any] = {
        "params": (),
        "rng_key": jax.random.PRNGKey(case.sims),
        "root": mctx.RootFnOutput(prior_logits=logits[start], value=value[start], embedding=start),
        "recurrent_fn": recurrent,
        "num_simulations": case.sims,
        "invalid_actions": jnp.asarray(tables.invalid, dtype=jnp.float64),
        "max_depth": case.max_depth,
    }
    if case.algorithm == "gumbel":
        out = mctx.gumbel_muzero_policy(**arguments)
    else:
        out = mctx.muzero_policy(**arguments, dirichlet_fraction=0.0, temperature=0.0)
    tree = out.search_tree
    _check_redundant(tree)
    made = np.asarray(tree.node_visits) > 0
    nodes = [
        [
            [
                int(tree.parents[row, node]),
                int(tree.action_from_parent[row, node]),
                int(tree.node_visits[row, node]),
                float(tree.node_values[row, node]),
            ]
            for node in range(made.shape[1])
            if made[row, node]
        ]
        for row in range(ROWS)
    ]
    summary = tree.summary()
    return {
        "name": case.name,
        "gumbel": np.asarray(tree.extra_data.root_gumbel).tolist() if case.algorithm == "gumbel" else None,
        "nodes": nodes,
        "indices": [np.nonzero(made[row])[0].tolist() for row in range(ROWS)] if not made.all() else None,
        "weights": np.asarray(out.action_weights).tolist(),
        "action": np.asarray(out.action).tolist() if case.algorithm == "gumbel" else None,
        "q": np.asarray(summary.qvalues).tolist(),
    }


def _check_redundant(tree: Any) -> None:
    """What the golden file leaves out follows from what it holds."""
    children, visits = np.asarray(tree.children_index), np.asarray(tree.children_visits)
    for row, parent, action in zip(*np.nonzero(children >= 0), strict=True):
        child = children[row, parent, action]
        assert tree.parents[row, child] == parent
        assert tree.action_from_parent[row, child] == action
        assert visits[row, parent, action] == tree.node_visits[row, child]
        assert tree.children_values[row, parent, action] == tree.node_values[row, child]
    assert (visits[children < 0] == 0).all()


def shorten(value: Any) -> Any:
    """Twelve digits are more than the comparison needs."""
    if isinstance(value, list):
        return [shorten(part) for part in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


if __name__ == "__main__":
    grown = [{key: shorten(value) for key, value in run_mctx(case).items()} for case in CASES]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in grown) + "\n]\n")
