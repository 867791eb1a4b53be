"""Known answers: discriminators on a two-point distribution, the dual of occupancies on a small task."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from mbrl.ops.imitation import (
    airl_logit,
    discrimination_loss,
    interpolate,
    occupancy_dual_loss,
    occupancy_error,
    occupancy_weights,
    shaped_reward,
    unit_gradient_penalty,
)

EXPERT, POLICY = (8, 2), (3, 7)
"""How often each of two actions is taken in ten steps."""


def best_logits(make_logit) -> torch.Tensor:
    """The free numbers, one for each action, at which the discriminator tells expert and policy best."""
    free = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    rows = [torch.repeat_interleave(torch.arange(2), torch.tensor(counts)) for counts in (EXPERT, POLICY)]
    solver = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        solver.zero_grad()
        loss = discrimination_loss(*(make_logit(free[part], part) for part in rows))
        loss.backward()
        return loss

    solver.step(closure)
    return free.detach()


def test_gails_best_logit_is_the_log_ratio_of_the_densities():
    found = best_logits(lambda free, _: free)
    assert found.tolist() == pytest.approx([math.log(0.8 / 0.3), math.log(0.2 / 0.7)], abs=1e-6)


def test_airls_best_reward_is_the_log_density_of_the_expert_whatever_the_policy():
    log_prob = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    found = best_logits(lambda free, rows: airl_logit(free, log_prob[rows]))
    assert found.tolist() == pytest.approx([math.log(0.8), math.log(0.2)], abs=1e-6)


def test_the_loss_is_the_cross_entropy_of_both_sides_alike():
    expert, other = torch.tensor([0.0, 2.0]), torch.tensor([-1.0])
    by_hand = -(math.log(0.5) + math.log(1 / (1 + math.exp(-2)))) / 2 - math.log(1 - 1 / (1 + math.exp(1)))
    assert float(discrimination_loss(expert, other)) == pytest.approx(by_hand)
    assert float(discrimination_loss(torch.tensor([500.0]), torch.tensor([-500.0]))) == 0.0


def test_a_potential_adds_its_difference_and_nothing_behind_an_end():
    found = shaped_reward(
        torch.tensor([1.0, 1.0]),
        torch.tensor([2.0, 2.0]),
        torch.tensor([4.0, math.nan]),
        torch.tensor([False, True]),
        discount=0.5,
    )
    assert found.tolist() == [1 + 0.5 * 4 - 2, 1 - 2]


def test_the_penalty_wants_gradients_of_length_1():
    assert float(unit_gradient_penalty(torch.tensor([[0.6, 0.8], [0.0, -1.0]]))) == pytest.approx(0.0)
    assert float(unit_gradient_penalty(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))) == pytest.approx((16 + 1) / 2)
    first, second = torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 0.0]])
    assert interpolate(first, second, torch.tensor([0.25])).tolist() == [[1.0, 1.5]]


# A task of three states and two actions, each of which leads to one state, and a log that has seen all of it.
# Moves are certain: a sampled error is then the expected one, of which the dual is a convex function.
DISCOUNT = 0.8
SUCCESSOR = np.array([[1, 2], [0, 2], [0, 1]])
START = np.array([0.6, 0.4, 0.0])
LOGGED = np.array([[0.25, 0.15], [0.2, 0.1], [0.1, 0.2]])
REWARD = np.array([[0.0, 0.3], [-0.4, 0.1], [0.5, 1.2]])


def primal(divergence: str) -> np.ndarray:
    """`max_d E_d R - D_f(d || d_O)` over the task's occupancies, by a solver that knows no dual."""

    def loss(flat):
        d = flat.reshape(3, 2)
        ratio = d / LOGGED
        cost = 0.5 * (ratio - 1) ** 2 if divergence == "chi2" else ratio * np.log(ratio)
        return (LOGGED * cost - d * REWARD).sum()

    def flow(flat):
        d = flat.reshape(3, 2)
        arrived = np.bincount(SUCCESSOR.ravel(), weights=d.ravel(), minlength=3)
        return d.sum(1) - (1 - DISCOUNT) * START - DISCOUNT * arrived

    found = optimize.minimize(
        loss,
        LOGGED.ravel(),
        method="SLSQP",
        bounds=[(1e-9, None)] * 6,
        constraints={"type": "eq", "fun": flow},
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    assert np.abs(flow(found.x)).max() < 1e-9
    return found.x.reshape(3, 2)


@pytest.mark.parametrize("divergence", ["chi2", "kl"])
def test_at_the_least_of_the_dual_the_weights_are_the_best_occupancy_over_that_of_the_log(divergence):
    """Rows in the log's exact proportions: means over them are expectations."""
    counts = np.rint(20 * LOGGED).astype(int)
    assert (counts == 20 * LOGGED).all()
    state, action = (torch.tensor(part) for part in np.argwhere(counts > 0).repeat(counts.ravel(), 0).T)
    successor, reward = torch.tensor(SUCCESSOR)[state, action], torch.tensor(REWARD)[state, action]
    starts, ended = torch.tensor([0, 0, 0, 1, 1]), torch.zeros(20, dtype=torch.bool)
    value = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([value], max_iter=1000, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def errors():
        return occupancy_error(reward, value[state], value[successor], ended, discount=DISCOUNT)

    def closure():
        solver.zero_grad()
        loss = occupancy_dual_loss(value[starts], errors(), discount=DISCOUNT, divergence=divergence)
        loss.backward()
        return loss

    solver.step(closure)
    weight = occupancy_weights(errors().detach(), divergence=divergence)
    found = torch.zeros(3, 2, dtype=torch.float64).index_put((state, action), weight, accumulate=True) / 20
    assert found.flatten().tolist() == pytest.approx(primal(divergence).ravel().tolist(), abs=2e-4)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)


def test_no_error_is_learned_behind_an_end():
    found = occupancy_error(
        torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([math.nan]), torch.tensor([True]), discount=0.9
    )
    assert found.tolist() == [-1.0]
