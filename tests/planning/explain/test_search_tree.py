"""What explanations say is what the search found."""

import json

import pytest
import torch

from mbrl.planning.base import Hints
from mbrl.planning.explain.search_tree import explain_tree, export_tree, to_dot
from mbrl.planning.problem.problem import Pessimism
from tests.planning.tasks import DOUBLE, box_problem, plan, states, table_problem


def _disagreement():
    """Member 1 thinks little of action 0."""
    reward = torch.zeros(3, 2, 2, dtype=DOUBLE)
    reward[:, 0] = torch.tensor([[3.0, 1.0], [-2.0, 1.0], [2.0, 1.0]])
    return table_problem(
        torch.ones(3, 2, 2, dtype=torch.long),
        reward,
        values=torch.zeros(2, dtype=DOUBLE),
        terminated=torch.tensor([False, True]),
        uncertainty=torch.tensor([[2.0, 0.1], [0.0, 0.0]], dtype=DOUBLE),
        pessimism=Pessimism(lcb_coef=1.0, penalty_coef=0.1),
    )


def test_the_member_with_the_least_value_is_named():
    result = plan("gumbel", _disagreement(), states(0), sims=8, keep_tree=True)
    told = explain_tree(result, 0)
    risky = next(note for note in told.candidates if note.action == [1.0, 0.0])
    safe = next(note for note in told.candidates if note.is_chosen)
    assert (risky.min_member, risky.min_q) == (1, pytest.approx(-2.2))
    assert risky.q == pytest.approx(1.0 - 0.2)
    assert risky.q_lcb == pytest.approx(
        0.8 - torch.tensor([3.0, -2.0, 2.0]).double().std(correction=0).item()
    )
    assert safe.action == [0.0, 1.0]
    assert [note.weight for note in told.candidates] == sorted(
        (n.weight for n in told.candidates), reverse=True
    )
    edge = told.plan[0]
    assert (edge.reward, edge.penalty, edge.discount, edge.is_end) == (1.0, pytest.approx(0.01), 0.0, True)


def test_the_plans_edges_add_up_to_its_first_value():
    obs = torch.tensor([[0.4, -0.2, 0.1], [0.1, 0.0, 0.3]], dtype=DOUBLE)
    logged = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    result = plan(
        "sampled_gumbel", box_problem(uncertainty_coef=1.0), obs, keep_tree=True, transition="mean", sims=64
    )
    for row in range(2):
        told = explain_tree(result, row, logged=logged)
        assert len(told.plan) == int(result.plan_length[row])
        first = told.plan[0]
        assert first.reward - first.penalty + first.mixed + first.discount * first.value == pytest.approx(
            float(result.value[row])
        )
        assert (
            torch.tensor([edge.action for edge in told.plan])
            .double()
            .allclose(result.plan[row, : len(told.plan)])
        )
        assert all(0 <= edge.nearest < 50 and edge.distance > 0 for edge in told.plan)


def test_a_tree_is_exported_whole():
    result = plan("puct", _disagreement(), states(0), sims=8, keep_tree=True, transition="mean")
    nodes = export_tree(result, 0)
    read = json.loads(json.dumps(nodes, allow_nan=False))
    assert [node["node"] for node in read[:2]] == [0, 1]
    assert len(read) == 3
    assert {(node["parent"], node["action"]) for node in read[1:]} == {(0, 0), (0, 1)}
    assert read[0]["visits"] == 9
    assert sum(node["visits"] for node in read[1:]) == 8
    assert all(node["is_end"] for node in read[1:])
    dot = to_dot(nodes)
    assert dot.startswith("digraph")
    assert dot.count("->") == 2
    assert dot.count("shape=box") == 2


def test_trees_of_other_states_and_members_are_told_apart():
    obs = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    result = plan("sampled_gumbel", box_problem(), obs, keep_tree=True)
    for row in range(3):
        for copy in range(3):
            nodes = export_tree(result, row, copy=copy)
            assert nodes[0]["observation"] == obs[row].tolist()
            assert nodes[0]["visits"] == 33
            assert len({node["node"] for node in nodes}) == len(nodes)


def test_a_plan_without_its_tree_is_refused():
    result = plan("gumbel", _disagreement(), states(0), hints=Hints())
    with pytest.raises(ValueError, match="keep_tree"):
        explain_tree(result, 0)
