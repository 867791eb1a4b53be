"""Initial plans: what the policy does and is worth, and where other plans come from."""

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import SOURCES, Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.shooting.initial_plans import PolicyDraws, make_initial_plans
from mbrl.planning.shooting.mppi import MPPI, MBOPConfig, MPPIConfig
from mbrl.planning.shooting.particles import draw_particles
from mbrl.planning.shooting.rollout import Tally
from tests.planning.shooting.tasks import bowl, one_of_each, plan
from tests.planning.worlds import LinearPrior, World, make_problem, steady


def test_injected_actions_are_candidates_of_the_dataset():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = ((action[:, 0] - 0.3).abs() < 1e-6).double()
        return obs, reward, *steady(reward)

    for planner in one_of_each(make_problem(formula), horizon=1, iterations=1, execute="best"):
        hints = Hints(candidates=torch.tensor([[[0.3], [0.5]]]).double())
        result = plan(planner, torch.zeros(1, 1).double(), hints=hints)
        assert float(result.action) == pytest.approx(0.3)
        assert SOURCES[int(result.provenance[0, 1])] == "dataset"


def test_policy_plans_are_draws_of_the_policy_in_closed_loop():
    """Where every action but the policy's own is worthless, only its draws survive."""
    prior = LinearPrior(torch.tensor([[0.5]]).double(), std=0.01)

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = -((action - 0.5 * obs).abs()[:, 0] > 0.05).double()
        return obs - 0.5, reward, *steady(reward)

    problem = make_problem(formula, prior=prior, discount=1.0)
    config = MPPIConfig(horizon=4, std_start=0.5, std_min=0.5, start="zero", elites=16, execute="best")
    result = plan(MPPI(problem, config), torch.tensor([[1.5]]).double())
    sources = [
        SOURCES[int(k)] for k, w in zip(result.provenance[0], result.weights[0], strict=True) if w > 0.02
    ]
    assert set(sources) == {"policy"}
    assert float(result.value) == 0.0
    assert (result.plan[0, :, 0] - torch.tensor([0.75, 0.5, 0.25, 0.0])).abs().max() < 0.05


def test_a_perturbed_policy_mixes_with_the_warm_plan():
    """`a = (1 - mix) (pi(s) + std eps) + mix a_warm` (MBOP)."""
    prior = LinearPrior(torch.zeros(1, 1), bias=0.5)
    problem = make_problem(bowl, prior=prior)
    config = MBOPConfig(
        horizon=3, population=2000, policy_plans=2000, elites=2000, policy_std=0.1, policy_mix=0.4
    )
    hints = Hints(warm=torch.full((2, 3, 1), -0.5).double(), has_warm=torch.tensor([True, False]))
    assert isinstance(problem.step, World)
    plan(MPPI(problem, config), torch.zeros(2, 1).double(), hints=hints)
    drawn = problem.step.actions[0].view(-1, 2)[-1999:]
    assert drawn.mean(0).tolist() == pytest.approx([0.6 * 0.5 + 0.4 * -0.5, 0.5], abs=0.01)
    assert drawn.std(0).tolist() == pytest.approx([0.06, 0.1], rel=0.1)


def test_delta_compares_with_the_policy_in_closed_loop():
    """The policy steers away what noise does; a plan that is followed blindly cannot."""
    prior = LinearPrior(torch.tensor([[-0.9]]).double())

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        drift = torch.where(member == 0, 0.3, -0.3)[:, None]
        next_obs = 0.9 * obs + action + drift
        return next_obs, -obs[:, 0].square(), *steady(obs[:, 0])

    problem = make_problem(formula, members=2, prior=prior, discount=1.0)
    result = plan(MPPI(problem, MPPIConfig(horizon=3)), torch.zeros(1, 1).double())
    closed = -(0.0 + 0.3**2 + 0.3**2)
    assert float(result.delta_lcb) == pytest.approx(float(result.value_lcb) - closed)
    assert float(result.delta_lcb) < 0.0


def test_a_short_warm_plan_is_continued_by_the_policy_in_the_members_in_turn():
    """`s' = s + a + e` in member e, the policy acts `-s`; given is one step of 0.5."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        next_obs = obs + action + 0.1 * member[:, None]
        return next_obs, obs[:, 0], *steady(obs[:, 0])

    prior = LinearPrior(torch.tensor([[-1.0]]).double(), std=0.0)
    problem = make_problem(formula, members=2, prior=prior, discount=1.0)
    noise = RowNoise(torch.arange(1))
    particles = draw_particles(problem, noise, horizon=3, transition="ts_inf", count=2, outcome="mean")
    initial = make_initial_plans(
        problem,
        torch.zeros(1, 1).double(),
        particles,
        hints=Hints(
            warm=torch.full((1, 1, 1), 0.5).double(), candidates=torch.full((1, 1, 1), -0.2).double()
        ),
        draws=PolicyDraws(1),
        noise=noise,
        tally=Tally.empty(torch.device("cpu")),
    )
    # The policy in member 0; then rows in members in turn: the warm plan, the candidate, the draw.
    assert initial.plans[0, :, :, 0].tolist() == [
        pytest.approx([0.0, 0.0, 0.0]),
        pytest.approx([0.5, -0.5, 0.0]),
        pytest.approx([-0.2, 0.1, -0.1]),
        pytest.approx([0.0, 0.0, 0.0]),
    ]
    assert [SOURCES[k] for k in initial.source[0].tolist()] == ["policy", "warm", "dataset", "policy"]
    assert torch.equal(initial.warm, initial.plans[:, 1])
    # In closed loop: states 0, 0, 0 in member 0, and 0, 0.1, 0.1 in member 1.
    assert float(initial.policy.value) == pytest.approx((0.0 + 0.2) / 2)
