"""Dynamic programming against brute force, and the promises of the three policies."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from mbrl.core.protocols import DiscretePolicy
from mbrl.core.rng import RngStreams
from mbrl.dynamics.tabular.counts import fit_table
from mbrl.dynamics.tabular.model import TabularDynamics
from mbrl.off_policy.value.exact_value import Chain
from mbrl.planning.tabular.iteration import behaviour_policy, best_policy, spibb_policy
from tests.off_policy.logs import table_log

DISCOUNT = 0.9


@pytest.fixture(scope="module")
def model() -> TabularDynamics:
    _, dataset, _, _ = table_log(n=300, steps=8)
    return fit_table(dataset, dataset, members=1, prior=1.0, rng=RngStreams(0))  # the mean is the member


def value(model: TabularDynamics, table: np.ndarray) -> np.ndarray:
    chain = Chain.of(model.table, 0, table)
    return np.linalg.solve(np.eye(len(table)) - DISCOUNT * chain.matrix(), chain.reward)


def forbidding(model: TabularDynamics, table: np.ndarray) -> TabularDynamics:
    """The model, in which a masked log never allowed what a deterministic policy does."""
    changed = dataclasses.replace(model.table, allowed=torch.from_numpy(table == 0.0))
    return TabularDynamics(changed, inputs=model.inputs, targets=model.targets)


def test_value_iteration_finds_the_best_of_all_deterministic_policies(model):
    found = best_policy(model, discount=DISCOUNT)
    assert isinstance(found, DiscretePolicy)
    every = [value(model, np.eye(3)[list(choice)]) for choice in itertools.product(range(3), repeat=4)]
    np.testing.assert_allclose(value(model, found.table.numpy()), np.max(every, 0), atol=1e-6)


def test_costs_and_choices_change_what_is_best(model):
    best = best_policy(model, discount=DISCOUNT).table.numpy()
    other = best_policy(forbidding(model, best), discount=DISCOUNT).table.numpy()
    assert not (other * best).any()
    dear = best_policy(model, discount=DISCOUNT, cost=100.0 * best).table.numpy()
    assert not (dear * best).any()


def test_the_behaviour_is_what_was_counted(model):
    visits = model.table.visits.double()
    torch.testing.assert_close(behaviour_policy(model).table, visits / visits.sum(1, keepdim=True))
    smooth = behaviour_policy(model, prior=5.0).table
    expected = (visits + 5.0 * visits.sum(0) / visits.sum()) / (visits.sum(1, keepdim=True) + 5.0)
    torch.testing.assert_close(smooth, expected)
    # Where choice 0 is never allowed, the added steps are shared by the other ones.
    first = np.zeros_like(model.table.visits.numpy())
    first[:, 0] = 1.0
    added = behaviour_policy(forbidding(model, first), prior=5.0).table
    share = visits.sum(0) * torch.tensor([0.0, 1.0, 1.0])
    torch.testing.assert_close(
        added, (visits + 5.0 * share / share.sum()) / (visits.sum(1, keepdim=True) + 5.0)
    )


def test_spibb_keeps_what_was_rare_and_never_loses_in_its_own_model(model):
    behaviour = behaviour_policy(model)
    visits = model.table.visits
    least = float(visits.median())
    found = spibb_policy(model, behaviour, least_count=least, discount=DISCOUNT)
    rare = visits < least
    torch.testing.assert_close(found.table[rare], behaviour.table[rare])
    assert (value(model, found.table.numpy()) >= value(model, behaviour.table.numpy()) - 1e-8).all()
    free = spibb_policy(model, behaviour, least_count=0.0, discount=DISCOUNT)
    best = best_policy(model, discount=DISCOUNT)
    np.testing.assert_allclose(value(model, free.table.numpy()), value(model, best.table.numpy()), atol=1e-6)
    same = spibb_policy(model, behaviour, least_count=1e9, discount=DISCOUNT)
    torch.testing.assert_close(same.table, behaviour.table)


def test_draws_have_the_probabilities_of_the_table(model):
    policy = behaviour_policy(model)
    obs = model.table.codes[:1].expand(4000, -1)
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    drawn = policy.act(obs, noise)
    torch.testing.assert_close(drawn.double().mean(0), policy.table[0], atol=0.03, rtol=0.0)
    assert policy.act(obs[:1]).argmax() == policy.table[0].argmax()
