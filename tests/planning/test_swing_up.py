"""Swinging a pendulum up with its true model, against dynamic programming on a grid."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.planning.base import Budget, Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from mbrl.planning.shooting.shooting import ShootingPlanner
from tests.planning.worlds import FormulaLeaf, make_problem, steady

STEPS, STARTS = 100, 64
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
ANGLES, SPEEDS, TORQUES = 201, 201, 21


def pendulum(
    angle: NDArray[np.float64], speed: NDArray[np.float64], torque: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Gymnasium's Pendulum-v1: next angle in [-pi, pi), next speed, reward."""
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -MAX_SPEED, MAX_SPEED)
    return (angle + 0.05 * speed + math.pi) % (2 * math.pi) - math.pi, speed, reward


def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    angle, speed, torque = obs[:, 0], obs[:, 1], MAX_TORQUE * action[:, 0]
    reward = -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())
    speed = (speed + (15.0 * angle.sin() + 3.0 * torque) * 0.05).clamp(-MAX_SPEED, MAX_SPEED)
    angle = torch.remainder(angle + 0.05 * speed + math.pi, 2 * math.pi) - math.pi
    return torch.stack((angle, speed), 1), reward, *steady(reward)


class Grid:
    """Backward induction over `STEPS` steps with linear interpolation; angles wrap around."""

    def __init__(self) -> None:
        self.angles = np.arange(ANGLES) * 2 * math.pi / ANGLES - math.pi
        self.speeds = np.linspace(-MAX_SPEED, MAX_SPEED, SPEEDS)
        self.torques = np.linspace(-MAX_TORQUE, MAX_TORQUE, TORQUES)
        cells = np.meshgrid(self.angles, self.speeds, self.torques, indexing="ij")
        angle, speed, reward = pendulum(*cells)
        corners, shares = self.corners(angle, speed)
        value = np.zeros((ANGLES, SPEEDS), dtype=np.float32)
        corners = [c.astype(np.int32) for c in corners]
        shares, reward = [s.astype(np.float32) for s in shares], reward.astype(np.float32)
        self.values = [value]
        for _ in range(STEPS):
            flat = self.values[-1].ravel()
            q = reward + sum(share * flat[corner] for corner, share in zip(corners, shares, strict=True))
            self.values.append(q.max(-1))
        self.values.reverse()  # values[t] of the states at step t

    def corners(
        self, angle: NDArray[np.float64], speed: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]]]:
        x = (angle + math.pi) * ANGLES / (2 * math.pi)
        y = (speed + MAX_SPEED) * (SPEEDS - 1) / (2 * MAX_SPEED)
        left, low = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64).clip(0, SPEEDS - 2)
        fx, fy = x - left, y - low
        left, right = left % ANGLES, (left + 1) % ANGLES
        corners = [
            left * SPEEDS + low,
            left * SPEEDS + low + 1,
            right * SPEEDS + low,
            right * SPEEDS + low + 1,
        ]
        return corners, [(1 - fx) * (1 - fy), (1 - fx) * fy, fx * (1 - fy), fx * fy]

    def act(self, step: int, angle: NDArray[np.float64], speed: NDArray[np.float64]) -> NDArray[np.float64]:
        """The torque that is best against the interpolated values of the next step."""
        next_angle, next_speed, reward = pendulum(angle[:, None], speed[:, None], self.torques)
        corners, shares = self.corners(next_angle, next_speed)
        flat = self.values[step + 1].ravel()
        q = reward + sum(share * flat[corner] for corner, share in zip(corners, shares, strict=True))
        return self.torques[q.argmax(1)]

    def value(self, obs: Tensor) -> Tensor:
        """Of all steps to go, interpolated."""
        corners, shares = self.corners(*obs.numpy().T)
        flat = self.values[0].ravel()
        total = sum(share * flat[corner] for corner, share in zip(corners, shares, strict=True))
        return torch.as_tensor(total).to(obs.dtype)


def starts() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return rng.uniform(-math.pi, math.pi, STARTS), rng.uniform(-1, 1, STARTS)


def grid_return(grid: Grid) -> float:
    angle, speed = starts()
    total = np.zeros(STARTS)
    for step in range(STEPS):
        angle, speed, reward = pendulum(angle, speed, grid.act(step, angle, speed))
        total += reward
    return float(total.mean())


def planned_return(planner: ShootingPlanner) -> float:
    obs = torch.from_numpy(np.stack(starts(), 1))
    total, hints = torch.zeros(STARTS).double(), None
    for step in range(STEPS):
        noise = RowNoise.draw(STARTS, torch.Generator().manual_seed(step))
        budget = Budget(sims=sum(planner.sizes()))
        result = planner.plan(obs, budget=budget, noise=noise, hints=hints)
        obs, reward, *_ = formula(obs, result.action, torch.zeros(STARTS))
        total += reward
        elites = None if result.elites is None else result.elites[:, :, 1:]
        hints = Hints(warm=result.plan[:, 1:], elites=elites)
    return float(total.mean())


@pytest.mark.slow
def test_plans_swing_up_as_well_as_dynamic_programming():
    grid = Grid()
    reference = grid_return(grid)
    problem = make_problem(formula, obs_dim=2, discount=1.0, leaf=FormulaLeaf([grid.value]))
    icem = ICEM(problem, ICEMConfig(horizon=3, population=96, noise_exponent=1.0))
    mppi = MPPI(problem, MPPIConfig(horizon=3))
    for planner in (icem, mppi):
        assert planned_return(planner) >= 1.05 * reference
