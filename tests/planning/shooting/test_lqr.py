"""Trajectory optimisers against the solution of the Riccati equation."""

from typing import Any

import pytest
import torch

from mbrl.planning.base import Hints
from mbrl.planning.improvement.rollout import without_leaf
from mbrl.planning.shooting.cem import CEM, CEMConfig
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from mbrl.planning.shooting.shooting import ShootingPlanner
from tests.planning.shooting.tasks import plan
from tests.planning.worlds import LQR

SIZES = [(2, 1, 1), (2, 1, 4), (2, 1, 10), (4, 2, 1), (4, 2, 4), (6, 6, 1)]
ICEM_LARGE = {"population": 1000, "iterations": 20, "elites": 100, "shrink": 1.0, "noise_exponent": 0.5}
MPPI_LARGE = {"population": 1000, "iterations": 10, "elites": 100, "inverse_temperature": 2.0}


@pytest.mark.parametrize(("obs_dim", "act_dim", "horizon"), SIZES)
def test_the_first_action_is_that_of_riccati_at_any_horizon(obs_dim: int, act_dim: int, horizon: int):
    lqr = LQR.random(obs_dim, act_dim, seed=obs_dim)
    obs = lqr.states(3, seed=1)
    optimal = -obs @ lqr.k.T
    icem = ICEM(lqr.problem(), ICEMConfig(horizon=horizon, **ICEM_LARGE))
    mppi = MPPI(lqr.problem(), MPPIConfig(horizon=horizon, **MPPI_LARGE))
    for planner, tolerance in ((icem, 0.02), (mppi, 0.10)):
        result = plan(planner, obs)
        error = (result.action - optimal).norm(dim=1)
        assert bool((error <= tolerance * optimal.norm(dim=1) + 0.01).all())
        assert bool((result.value <= lqr.value(obs) + 1e-9).all())


@pytest.mark.parametrize("radius", [0.9, 1.1])
@pytest.mark.parametrize("act_dim", [1, 3])
def test_defaults_solve_it_within_their_budget(act_dim: int, radius: float):
    """From a policy that does nothing; without values at leaves the finite task's answer counts."""
    cem = CEMConfig(particles=1, outcome="mean")  # without noise twenty particles are one
    lqr = LQR.random(2 * act_dim, act_dim, seed=77, radius=radius)
    obs = lqr.states(2, seed=1)
    for problem, is_finite in ((lqr.problem(), False), (without_leaf(lqr.problem()), True)):
        mppi, icem = MPPI(problem, MPPIConfig()), ICEM(problem, ICEMConfig())
        planners: list[tuple[ShootingPlanner, int]] = [(mppi, 5), (icem, 4), (CEM(problem, cem), 15)]
        for planner, horizon in planners:
            gain = lqr.finite_gain(horizon) if is_finite else lqr.k
            best = -obs @ gain.T
            error = (plan(planner, obs).action - best).norm(dim=1) / best.norm(dim=1)
            assert float(error.median()) <= 0.05


def test_noise_of_the_process_does_not_move_the_action():
    """Certainty equivalence: the optimal action of a linear-quadratic task does not depend on its noise."""
    lqr = LQR.random(2, 1, seed=2)
    obs = lqr.states(2, seed=1)
    optimal = -obs @ lqr.k.T
    problem = lqr.problem(noise_std=0.02)
    small: dict[str, Any] = {"horizon": 2, "particles": 64, "outcome": "sample", "population": 200}
    icem = ICEM(problem, ICEMConfig(**ICEM_LARGE | small | {"elites": 20, "iterations": 12}))
    mppi = MPPI(problem, MPPIConfig(**MPPI_LARGE | small))
    for planner, tolerance in ((icem, 0.02), (mppi, 0.10)):
        error = (plan(planner, obs).action - optimal).norm(dim=1)
        assert bool((error <= tolerance * optimal.norm(dim=1) + 0.01).all())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ratio"), [("icem", 1.02), ("mppi", 1.10)])
def test_a_hundred_steps_cost_what_riccati_costs(name: str, ratio: float):
    lqr = LQR.random(2, 1, seed=2)
    obs = lqr.states(2, seed=3)
    icem = ICEM(lqr.problem(), ICEMConfig(horizon=3, population=96, iterations=4, elites=12))
    mppi = MPPI(lqr.problem(), MPPIConfig(horizon=3))
    planner: ShootingPlanner = icem if name == "icem" else mppi
    total, state, hints = torch.zeros(2).double(), obs, None
    for step in range(100):
        result = plan(planner, state, hints=hints, seed=step)
        state, reward, *_ = lqr.formula(state, result.action, torch.zeros(2))
        total += lqr.discount**step * reward
        rest = None if result.elites is None else result.elites[:, :, 1:]
        hints = Hints(warm=result.plan[:, 1:], elites=rest)
    assert float(total.sum() / lqr.value(obs).sum()) <= ratio
