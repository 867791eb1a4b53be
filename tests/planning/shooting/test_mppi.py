"""MPPI: weights, presets, control cost, and defects known elsewhere."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Hints
from mbrl.planning.shooting.mppi import MPPI, PRESETS, MBOPConfig, MPPIConfig, exponential_weights
from tests.planning.shooting.tasks import bowl, plan
from tests.planning.worlds import World, make_problem, steady


def test_weights_subtract_the_maximum():
    """TorchRL's MPPI exponentiates raw values: 1e4 overflows."""
    score = torch.tensor([[1e4, 1e4 - 1.0, -math.inf, 1e4 - 2.0], [-math.inf] * 4]).double()
    raw = exponential_weights(score, inverse_temperature=0.5, floor=None)
    total = 1 + math.exp(-0.5) + math.exp(-1.0)
    assert raw[0].tolist() == pytest.approx([1 / total, math.exp(-0.5) / total, 0.0, math.exp(-1) / total])
    assert raw[1].tolist() == [0.0] * 4
    deviation = math.sqrt(2 / 3)
    scaled = exponential_weights(score, inverse_temperature=2.0, floor=1e-3)
    assert float(scaled[0, 1] / scaled[0, 0]) == pytest.approx(math.exp(-2.0 / deviation))
    equal = exponential_weights(torch.full((1, 3), 7.0), inverse_temperature=1.0, floor=1e-3)
    assert equal.tolist() == [pytest.approx([1 / 3] * 3)]


def test_the_deviation_acts_and_the_warm_plan_is_not_written_to():
    """mbrl-lib's MPPI overwrites scaled noise by unscaled noise, and shifts a view of its past action."""
    problem = make_problem(bowl)
    warm = torch.full((1, 5, 1), 0.2).double()
    before = warm.clone()
    spread = []
    for std in (0.01, 0.3):
        assert isinstance(problem.step, World)
        problem.step.actions.clear()
        config = MPPIConfig(std_start=std, std_min=0.001, iterations=1, policy_plans=1)
        result = plan(MPPI(problem, config), torch.zeros(1, 1).double(), hints=Hints(warm=warm))
        spread.append(float(problem.step.actions[5][2:].std()))
        result.plan.zero_()
    assert spread == pytest.approx([0.01, 0.3], rel=0.15)
    assert torch.equal(warm, before)


def test_the_deviation_does_not_collapse():
    """TorchRL's MPPI may; so the second plan would find nothing new."""
    problem = make_problem(bowl)
    config = MPPIConfig(iterations=12, std_min=0.05, policy_plans=1)
    plan(MPPI(problem, config), torch.zeros(1, 1).double())
    assert isinstance(problem.step, World)
    last = problem.step.actions[-6]  # the first draw of the last iteration's last step
    assert float(last.std()) == pytest.approx(0.05, rel=0.2)


def test_the_control_cost_prefers_plans_near_zero():
    """`-cost mean (a - mean) / std^2`: with equal returns the weighted mean moves against the mean."""

    def flat(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return obs, torch.zeros_like(obs[:, 0]), *steady(obs[:, 0])

    config = MPPIConfig(horizon=1, iterations=1, policy_plans=1, std_start=0.1, elites=256, standardise=False)
    hints = Hints(warm=torch.full((1, 1, 1), 0.5).double())
    moved = []
    for cost in (0.0, 0.05):
        planner = MPPI(make_problem(flat), config.model_copy(update={"control_cost": cost}))
        moved.append(float(plan(planner, torch.zeros(1, 1).double(), hints=hints).action))
    assert moved[0] == pytest.approx(0.5, abs=0.02)
    assert moved[1] - moved[0] == pytest.approx(-0.05 * 0.5, rel=0.15)  # the exponential tilt of a Gaussian


def test_presets_are_complete_and_yield_to_what_is_given():
    for name, values in PRESETS.items():
        config = MPPIConfig.model_validate({"preset": name, "horizon": 2})
        assert config.model_dump() == {**MPPIConfig().model_dump(), **values, "preset": name, "horizon": 2}
        assert MPPIConfig.model_validate(config.model_dump()) == config
    assert MBOPConfig().population == 100
    assert MBOPConfig(preset="mbop-acme").policy_std == 0.8
