"""Why this action: steps and parts by hand."""

import json

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget, Hints
from mbrl.planning.explain.itinerary import explain_edges, explain_result
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.learned import CriticLeaf, LearnedStep, PolicyPrior
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics, ends_beyond
from tests.planning.one_step import OneStep, OneStepConfig

BOX = ActionBox(SPACE)


class _Fixed:
    def __call__(self, obs, action, posterior):
        del action, posterior
        return torch.full((len(obs),), 0.5)


def problem(model: LinearModel, termination=None) -> PlanningProblem:
    prior = PolicyPrior(LinearPolicy(), BOX)
    step = LearnedStep(model, termination or NeverTerminates(), BOX, doubt=_Fixed())
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    return PlanningProblem(step, prior, leaf, 1, 0.9, pessimism=Pessimism(penalty_coef=2.0))


def test_edges_follow_the_mean_and_name_who_objects():
    model = LinearModel((0.0, 0.2), (0.0, 1.0))
    edges = explain_edges(problem(model), torch.tensor([[1.0]]), torch.tensor([[0.5], [-0.5]]))
    first, second = edges
    targets = [-1.0 - 0.9 * 1.16 * 1.4**2, -1.0 + 1.0 - 0.9 * 1.16 * 1.6**2]
    assert first.reward == pytest.approx(-0.5)
    assert first.penalty == pytest.approx(1.0)
    assert first.value == pytest.approx(sum(targets) / 2, rel=1e-5)
    assert first.spread == pytest.approx(abs(targets[0] - targets[1]) / 2, rel=1e-4)
    assert first.objector == min(range(2), key=targets.__getitem__)
    assert second.reward == pytest.approx(-(1.5**2) + 0.5)  # from the mean of 1.4 and 1.6


def test_edges_stop_where_most_members_end():
    edges = explain_edges(
        problem(LinearModel((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), ends_beyond(1.3)),
        torch.tensor([[1.0]]),
        torch.tensor([[0.0], [1.0], [0.0]]),
    )
    assert [edge.ended for edge in edges] == [0.0, 1.0]


def test_a_result_is_strict_json_with_the_heaviest_candidate_first():
    planner = OneStep(problem(LinearModel()), OneStepConfig(), None)
    obs = torch.tensor([[0.3], [1.0]])
    result = planner.plan(
        obs,
        budget=Budget(sims=3),
        noise=RowNoise(torch.tensor([1, 2])),
        hints=Hints(candidates=torch.tensor([[[0.0]], [[0.9]]])),
    )
    found = json.loads(json.dumps(explain_result(planner.problem, obs, result, row=1), allow_nan=False))
    assert found["observation"] == [1.0]
    assert found["candidates"][0]["weight"] == 1.0
    assert found["candidates"][0]["action"] == found["action"]
    assert {entry["source"] for entry in found["candidates"]} == {"policy", "dataset"}
    parts = found["reward_part"] - found["penalty_part"] + found["bootstrap_part"]
    assert found["value"] == pytest.approx(parts, rel=1e-5)
    assert len(found["edges"]) == len(found["plan"]) == 1
    assert found["edges"][0]["objector"] is None
