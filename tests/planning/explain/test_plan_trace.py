"""The trace of a plan: steps and parts by hand."""

import json

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget, Hints
from mbrl.planning.explain.plan_trace import describe_plan, trace_plan
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics, ends_beyond
from tests.planning.one_step import OneStep, OneStepConfig

BOX = ActionBox(SPACE)


class _Fixed:
    def __call__(self, obs, action, posterior):
        del action, posterior
        return torch.full((len(obs),), 0.5)


def problem(model: LinearModel, termination=None) -> PlanningProblem:
    prior = PolicyPrior(LinearPolicy(), BOX)
    step = LearnedStep(model, termination or NeverTerminates(), BOX, uncertainty=_Fixed())
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    return PlanningProblem(step, prior, leaf, 1, 0.9, pessimism=Pessimism(penalty_coef=2.0))


def test_steps_follow_the_mean_and_name_the_member_with_the_least_value():
    model = LinearModel((0.0, 0.2), (0.0, 1.0))
    steps = trace_plan(problem(model), torch.tensor([[1.0]]), torch.tensor([[0.5], [-0.5]]))
    first, second = steps
    targets = [-1.0 - 0.9 * 1.16 * 1.4**2, -1.0 + 1.0 - 0.9 * 1.16 * 1.6**2]
    assert first.reward == pytest.approx(-0.5)
    assert first.penalty == pytest.approx(1.0)
    assert first.value == pytest.approx(sum(targets) / 2, rel=1e-5)
    assert first.spread == pytest.approx(abs(targets[0] - targets[1]) / 2, rel=1e-4)
    assert first.min_member == min(range(2), key=targets.__getitem__)
    assert second.reward == pytest.approx(-(1.5**2) + 0.5)  # from the mean of 1.4 and 1.6


def test_steps_stop_where_most_members_end():
    steps = trace_plan(
        problem(LinearModel((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), ends_beyond(1.3)),
        torch.tensor([[1.0]]),
        torch.tensor([[0.0], [1.0], [0.0]]),
    )
    assert [step.ended for step in steps] == [0.0, 1.0]


def test_a_result_is_strict_json_with_the_heaviest_candidate_first():
    planner = OneStep(problem(LinearModel()), OneStepConfig(), None)
    obs = torch.tensor([[0.3], [1.0]])
    result = planner.plan(
        obs,
        budget=Budget(sims=3),
        noise=RowNoise(torch.tensor([1, 2])),
        hints=Hints(candidates=torch.tensor([[[0.0]], [[0.9]]])),
    )
    described = json.loads(json.dumps(describe_plan(planner.problem, obs, result, row=1), allow_nan=False))
    assert described["observation"] == [1.0]
    assert described["candidates"][0]["weight"] == 1.0
    assert described["candidates"][0]["action"] == described["action"]
    assert {entry["source"] for entry in described["candidates"]} == {"policy", "dataset"}
    parts = described["reward_part"] - described["penalty_part"] + described["bootstrap_part"]
    assert described["value"] == pytest.approx(parts, rel=1e-5)
    assert len(described["plan_trace"]) == len(described["plan"]) == 1
    assert described["plan_trace"][0]["min_member"] is None
