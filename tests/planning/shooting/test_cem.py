"""CEM: equal weights, the first mean, populations."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Hints
from mbrl.planning.shooting.cem import CEM, CEMConfig, equal_weights
from tests.planning.shooting.tasks import bowl, plan
from tests.planning.worlds import LinearPrior, make_problem, steady


def test_finite_scores_weigh_the_same():
    score = torch.tensor([[3.0, -1.0, -math.inf, 7.0], [-math.inf] * 4]).double()
    assert equal_weights(score).tolist() == [pytest.approx([1 / 3, 1 / 3, 0.0, 1 / 3]), [0.0] * 4]


def test_every_iteration_draws_the_population():
    assert CEM(make_problem(bowl), CEMConfig()).sizes() == (400,) * 5


def test_a_warm_plan_is_the_first_mean_and_rows_without_one_start_from_the_policy():
    problem = make_problem(bowl, prior=LinearPrior(torch.zeros(1, 1), bias=-0.6))
    obs, warm = torch.zeros(2, 1).double(), torch.full((2, 2, 1), 0.8).double()
    hints = Hints(warm=warm, has_warm=torch.tensor([True, False]))
    planner = CEM(problem, CEMConfig(horizon=4, iterations=1, momentum=0.0, std_start=1e-6, particles=1))
    result = plan(planner, obs, hints=hints)
    assert result.plan[0, :, 0].tolist() == pytest.approx([0.8, 0.8, -0.6, -0.6], abs=1e-4)
    assert result.plan[1, :, 0].tolist() == pytest.approx([-0.6] * 4, abs=1e-4)
    zero = CEM(problem, planner.config.model_copy(update={"start": "zero", "policy_plans": 1}))
    cold = plan(zero, obs).plan
    assert float(cold.abs().max()) < 0.1


def test_mean_and_deviation_are_those_of_the_elites():
    """One iteration of equal weights: the mean of the elites is followed."""

    def flat(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = action[:, 0].clamp_max(0.2)
        return obs, reward, *steady(reward)

    config = CEMConfig(horizon=1, iterations=1, population=400, elites=40, particles=1, outcome="mean")
    result = plan(CEM(make_problem(flat), config), torch.zeros(1, 1).double())
    elites = result.candidates[0, 1:, 0]
    assert len(elites) == 40
    assert float(elites.min()) >= 0.2  # more than 40 of 400 draws of deviation 0.5 lie beyond
    assert float(result.action) == pytest.approx(float(elites.mean()))
