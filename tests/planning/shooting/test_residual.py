"""Residual plans: 0 is the policy, actions come back as they were, unstable dynamics are tamed."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Budget, Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from mbrl.planning.shooting.initial_plans import PolicyDraws, make_initial_plans
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from mbrl.planning.shooting.particles import draw_particles
from mbrl.planning.shooting.residual import ResidualStep, add_residual, residual_problem, to_actions
from mbrl.planning.shooting.rollout import Tally, score_plans
from tests.planning.shooting.tasks import one_of_each, plan
from tests.planning.worlds import LQR, LinearPrior, make_problem, steady

PRIOR = LinearPrior(torch.tensor([[-0.5]]).double(), std=0.2)


def _drift(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Members drift apart; the policy answers to where it is."""
    next_obs = obs + action + torch.where(member == 0, 0.1, -0.3)[:, None]
    return next_obs, -next_obs[:, 0].square(), *steady(obs[:, 0])


def test_a_residual_is_added_to_the_clipped_mode_and_clipped():
    obs = torch.tensor([[1.0], [4.0], [-1.0]]).double()
    residual = torch.tensor([[0.2], [0.5], [0.9]]).double()
    assert add_residual(PRIOR, obs, residual)[:, 0].tolist() == pytest.approx([-0.3, -0.5, 1.0])
    problem = make_problem(_drift, members=2, prior=PRIOR)
    plain = problem.step(obs, add_residual(PRIOR, obs, residual), member=torch.tensor([0, 1, 0]))
    wrapped = ResidualStep(problem.step, PRIOR)(obs, residual, member=torch.tensor([0, 1, 0]))
    assert torch.equal(plain.next_observation, wrapped.next_observation)
    assert wrapped.uncertainty.shape == (3,)
    assert ResidualStep(problem.step, PRIOR).ensemble_size == 2


def test_no_residual_is_the_policy_in_closed_loop_in_every_particle():
    problem = make_problem(_drift, members=2, prior=PRIOR)
    obs = torch.tensor([[0.7], [-0.2]]).double()
    for planner in one_of_each(problem, plans="residuals", iterations=1, execute="best"):
        result = plan(planner, obs)
        assert bool((result.delta_lcb >= 0.0).all())  # the policy itself is among the plans
    particles = draw_particles(
        problem, RowNoise(torch.arange(2)), horizon=4, transition="ts_inf", count=2, outcome="mean"
    )
    tally = Tally.empty(torch.device("cpu"))
    zero = torch.zeros(2, 1, 4, 1).double()
    still = score_plans(residual_problem(problem), obs, zero, particles, tally=tally)
    noise = RowNoise(torch.arange(2))
    initial = make_initial_plans(
        problem, obs, particles, hints=Hints(), draws=PolicyDraws(0), noise=noise, tally=tally, residuals=True
    )
    assert torch.allclose(still.figures, initial.policy.figures)
    assert torch.equal(initial.plans, zero)


def test_given_actions_become_residuals_and_come_back_as_actions():
    problem = make_problem(_drift, members=2, prior=PRIOR)
    obs = torch.tensor([[0.7], [-0.2]]).double()
    noise = RowNoise(torch.arange(2))
    particles = draw_particles(problem, noise, horizon=3, transition="ts_inf", count=2, outcome="mean")
    tally = Tally.empty(torch.device("cpu"))
    warm = torch.tensor([[[0.4], [-0.9], [0.3]], [[0.1], [0.2], [-0.6]]]).double()
    initial = make_initial_plans(
        problem, obs, particles, hints=Hints(warm=warm), draws=PolicyDraws(0), noise=noise, tally=tally,
        residuals=True,
    )  # fmt: skip
    first = initial.warm[:, 0, 0]
    assert first.tolist() == pytest.approx([0.4 + 0.5 * 0.7, 0.1 - 0.5 * 0.2])
    assert not torch.allclose(initial.warm, warm)
    back = to_actions(problem, obs, initial.warm[:, None], particles, tally=tally)
    assert torch.allclose(back[:, 0], warm)


def test_results_are_actions():
    """A policy of 0.5 is pulled to the best action, 0.9: the plan, the candidates and the elites say 0.9."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return obs, -(action[:, 0] - 0.9).square(), *steady(obs[:, 0])

    problem = make_problem(formula, prior=LinearPrior(torch.zeros(1, 1).double(), bias=0.5))
    for planner in one_of_each(problem, plans="residuals", horizon=3, iterations=6):
        result = plan(planner, torch.zeros(2, 1).double())
        assert bool(((result.plan - 0.9).abs() < 0.1).all())
        assert bool(((result.candidates[:, 1, 0] - 0.9).abs() < 0.1).all())
        if result.elites is not None:
            assert bool(((result.elites - 0.9).abs() < 0.2).all())


def test_a_batch_is_its_rows_and_memory_is_carried_on():
    problem = make_problem(_drift, members=2, prior=PRIOR)
    obs = torch.linspace(-1, 1, 4)[:, None].double()
    planner = ICEM(problem, ICEMConfig(plans="residuals", horizon=4))
    noise, budget = RowNoise(torch.arange(4)), Budget(sims=60)
    first = planner.plan(obs, budget=budget, noise=noise)
    assert first.elites is not None
    hints = Hints(warm=first.plan[:, 1:], elites=first.elites[:, :, 1:])
    together = planner.plan(obs, budget=budget, noise=noise, hints=hints)
    for row in range(4):
        rows = slice(row, row + 1)
        alone = planner.plan(
            obs[rows], budget=budget, noise=noise.rows(rows),
            hints=Hints(warm=first.plan[rows, 1:], elites=first.elites[rows, :, 1:]),
        )  # fmt: skip
        assert torch.allclose(alone.plan[0], together.plan[row])
        assert torch.allclose(alone.value_lcb[0], together.value_lcb[row])


def _error(radius: float, **settings: object) -> float:
    """Median relative error over four random tasks of two actions; the policy has 0.8 of the gain."""
    errors: list[Tensor] = []
    for seed in range(4):
        lqr = LQR.random(4, 2, seed=seed, radius=radius)
        problem = dataclasses.replace(lqr.problem(), prior=LinearPrior(-0.8 * lqr.k, std=0.3))
        obs = lqr.states(8, seed=seed)
        optimal = -obs @ lqr.k.T
        result = plan(MPPI(problem, MPPIConfig.model_validate(settings)), obs)
        errors.append((result.action - optimal).norm(dim=1) / optimal.norm(dim=1))
    return float(torch.cat(errors).median())


def test_the_preset_solves_lqr_in_the_default_number_of_plans():
    planner = MPPI(make_problem(_drift, members=2), MPPIConfig(preset="residual"))
    assert sum(planner.sizes()) == sum(MPPI(make_problem(_drift), MPPIConfig()).sizes()) == 736
    for radius in (0.9, 1.1):
        assert _error(radius, preset="residual") < 0.03
    assert _error(1.1, preset="residual", plans="actions") > 1.5 * _error(1.1, preset="residual")
