"""The gain in the model's opinion, by hand and by brute force."""

import json
import math

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget
from mbrl.planning.certificate import bound_gain, certify
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics
from tests.planning.one_step import OneStep, OneStepConfig


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_mean_and_the_share_are_those_of_the_states():
    certificate = bound_gain(
        torch.tensor([1.0, -1.0, 3.0, 5.0]), torch.tensor([4, 4, 9, 9]), generator=generator()
    )
    assert (certificate.mean, certificate.improved, certificate.states, certificate.episodes) == (
        2.0,
        0.75,
        4,
        2,
    )
    assert (certificate.quantiles[0], certificate.quantiles[50], certificate.quantiles[-1]) == (
        -1.0,
        2.0,
        5.0,
    )


def test_the_bound_is_over_episodes_and_not_over_states():
    # Two episodes with means 0 and 4: resampled means are 0, 2, 2, 4, so the 5 % quantile is 0.
    certificate = bound_gain(
        torch.cat([torch.zeros(1000), torch.full((1000,), 4.0)]),
        torch.arange(2).repeat_interleave(1000),
        generator=generator(),
    )
    assert certificate.mean == 2.0
    assert certificate.low == 0.0
    assert math.isnan(bound_gain(torch.ones(5), torch.zeros(5).long(), generator=generator()).low)


def test_the_bound_of_many_episodes_is_the_normal_one():
    gains = torch.randn(400, generator=generator())
    certificate = bound_gain(gains, torch.arange(400), generator=generator())
    expected = float(gains.mean()) - 1.645 * float(gains.std()) / 20
    assert certificate.low == pytest.approx(expected, abs=0.02)


def test_a_planner_that_considers_the_mode_never_loses_in_its_own_opinion():
    box, policy = ActionBox(SPACE), LinearPolicy()
    prior = PolicyPrior(policy, box)
    leaf = CriticLeaf(QuadraticCritics(), prior, box)
    problem = PlanningProblem(LearnedStep(LinearModel(), NeverTerminates(), box), prior, leaf, 1, 0.9)
    obs = torch.linspace(-2, 2, 60)[:, None]
    certificate = certify(
        OneStep(problem, OneStepConfig(spread=5.0), None), obs, torch.arange(60) // 6,
        budget=Budget(sims=9), generator=generator(),
    )  # fmt: skip
    assert certificate is not None
    assert 0.0 < certificate.low <= certificate.mean
    nothing = certify(
        OneStep(problem, OneStepConfig(), None), obs, torch.arange(60) // 6, budget=Budget(sims=1),
        generator=generator(),
    )  # fmt: skip
    assert nothing is not None
    assert (nothing.mean, nothing.improved) == (0.0, 0.0)
    plain = json.loads(json.dumps(certificate.to_json(), allow_nan=False))
    assert plain["is_model_dependent"]
