import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.ope.value.bvft import bvft, pairwise_losses, rank_fits
from mbrl.ope.value.fqe import FQEConfig, fit_fqe
from tests.ope.lqg import LinearPolicy, scalar_task


def chain(rng: np.random.Generator, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a task with two states, noisy rewards and g = 1/2: reward 1 + noise in state 1, 0 in state 0.

    The next state is uniform, so V = (v0, v0 + 1) with v0 = (v0 + 1/2) / 2: v0 = 1/2.
    """
    state, following = rng.integers(0, 2, n), rng.integers(0, 2, n)
    return state, state + 3 * rng.normal(size=n), following


def test_the_consistent_function_is_ranked_first_where_its_squared_bellman_error_is_the_larger():
    state, reward, following = chain(np.random.default_rng(0))
    true, flat = np.array([0.5, 1.5]), np.array([1.0, 1.0])  # the flat one has the right mean
    tables = [flat, true]
    q = np.stack([table[state] for table in tables])
    # the target of `flat` is taken with less noise, so that its plain Bellman error looks better
    target = np.stack([state + 0.5 * flat[following], reward + 0.5 * true[following]])
    error = np.square(q - target).mean(1)
    assert error[0] < error[1]
    found = bvft(q, target)
    assert found.best == 1
    assert (found.losses[:, 1] < found.losses[:, 0]).all()


def test_groups_and_their_means_worked_by_hand():
    q = np.array([[0.0, 0.0, 10.0, 10.0], [0.0, 10.0, 0.0, 10.0]])
    target = np.array([[1.0, 3.0, 9.0, 15.0], [2.0, 8.0, 4.0, 8.0]])
    losses = pairwise_losses(q, target, cut=0.5)
    # against itself: groups {0, 1} and {2, 3} of Q_0 have the means 2 and 12
    assert losses[0, 0] == pytest.approx(np.sqrt((4 + 4 + 4 + 4) / 4))
    # against the other: every row is a group of its own
    assert losses[0, 1] == pytest.approx(np.sqrt((1 + 9 + 1 + 25) / 4))
    assert losses[1, 1] == pytest.approx(np.sqrt((9 + 4 + 9 + 4) / 4))
    assert bvft(q, target, cuts=[0.5]).losses[0].tolist() == losses.max(1).tolist()


def test_ranks_do_not_depend_on_the_unit_of_rewards():
    state, reward, following = chain(np.random.default_rng(1), 500)
    tables = [np.array([0.5, 1.5]), np.array([0.0, 2.0]), np.array([1.0, 1.0])]
    q = np.stack([table[state] for table in tables])
    target = np.stack([reward + 0.5 * table[following] for table in tables])
    assert bvft(7 * q, 7 * target).ranks.tolist() == bvft(q, target).ranks.tolist()
    assert bvft(7 * q, 7 * target).losses == pytest.approx(7 * bvft(q, target).losses)


def test_values_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        bvft(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="finite"):
        bvft(np.full((1, 2), np.nan), np.zeros((1, 2)))


@pytest.mark.parametrize("estimand", [Estimand(0.8), Estimand(0.8, horizon=6)])
def test_a_fit_is_ranked_before_the_same_fit_that_stopped_early(estimand: Estimand):
    policy = LinearPolicy(torch.tensor([[0.4]]), 8.0)
    dataset = scalar_task().simulate(dataclasses.replace(policy, std=0.5), 40, 8, 0)
    config = FQEConfig(hidden=(16,), updates=300, learning_rate=1e-2, polyak_tau=0.05, batch_size=64)
    fit = fit_fqe(
        dataset, policy, estimand=estimand, config=config, generator=torch.Generator().manual_seed(0)
    )
    early = fit_fqe(
        dataset,
        policy,
        estimand=estimand,
        config=config.model_copy(update={"updates": 3}),
        generator=torch.Generator().manual_seed(0),
    )
    found = rank_fits([early, fit], dataset, generator=torch.Generator().manual_seed(1))
    assert found.best == 1
    assert found.losses[0, 1] < found.losses[0, 0]  # the finest groups
