import itertools

import numpy as np
import pytest
import torch

from mbrl.dynamics.particles import central_probabilities, simulate_particles

from .systems import CONTROL, MATRIX, linear_ensemble


def simulate(model, act, **settings):
    settings = {"horizon": 3, "particles": 4} | settings
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    return list(simulate_particles(model, start, act, generator=generator, **settings))


def test_particles_of_a_start_lie_together_and_share_the_members_evenly():
    steps = simulate(linear_ensemble(offsets=(0.0, 1.0, 2.0), noise=1e-6), lambda step, obs: 0 * obs[:, :1])
    expected = MATRIX @ np.array([[1.0, 0.0], [0.0, 2.0]]).T
    first = steps[0].next_obs.view(2, 4, 2).numpy()
    for start in range(2):
        off = first[start] - expected[:, start]
        assert off == pytest.approx(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), abs=1e-4)


def test_a_step_begins_where_the_last_one_ended_and_is_told_its_number():
    told = []

    def act(step, obs):
        told.append(step)
        return obs[:, :1] + step

    steps = simulate(linear_ensemble(noise=0.1), act)
    assert told == [0, 1, 2]
    for before, after in itertools.pairwise(steps):
        assert torch.equal(before.next_obs, after.obs)
    mean = steps[1].obs.double().numpy() @ MATRIX.T + steps[1].action.double().numpy() @ CONTROL.T
    assert np.abs(steps[1].next_obs.numpy() - mean).max() < 0.5
    assert steps[1].reward_mean.numpy() == pytest.approx((steps[1].obs[:, 0] + steps[1].action[:, 0]).numpy())
    assert steps[1].reward_variance.numpy() == pytest.approx(np.full(8, 0.04), rel=1e-4)


def test_outcomes_have_the_deviation_of_the_members():
    (step,) = simulate(linear_ensemble(noise=0.3), lambda _, obs: 0 * obs[:, :1], horizon=1, particles=5000)
    assert step.next_obs.view(2, 5000, 2).std(1).numpy() == pytest.approx(np.full((2, 2), 0.3), rel=0.03)


@pytest.mark.parametrize("draws", [20, 100])
def test_an_interval_holds_a_further_draw_as_often_as_it_says(draws):
    sample = torch.randn(4000, draws + 1, generator=torch.Generator().manual_seed(1))
    low, high = torch.quantile(sample[:, 1:], central_probabilities((0.05, 0.95), draws), dim=1)
    inside = (sample[:, 0] >= low) & (sample[:, 0] <= high)
    assert float(inside.double().mean()) == pytest.approx(0.9, abs=0.015)


def test_few_draws_are_all_inside():
    assert central_probabilities((0.05, 0.95), 5).tolist() == [0.0, 1.0]
