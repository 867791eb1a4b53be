import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.marginal_steps import MarginalSteps
from mbrl.off_policy.log.landmarks import LandmarkBasis
from tests.off_policy.logs import generator, half_table_log, linear, lqg_log


def prepare(dataset, policy, estimand, *, max_rows: int = 10_000) -> MarginalSteps:
    return MarginalSteps.prepare(
        dataset, policy, estimand, max_rows=max_rows, action_samples=3, generator=generator()
    )


def test_a_terminal_carries_the_mass_of_the_endless_steps_after_it():
    _, dataset, policy, _ = half_table_log(n=20)
    rows, steps = dataset.transitions(), prepare(dataset, policy, Estimand(0.8))
    np.testing.assert_allclose(steps.payload[:, 0], rows.reward)
    np.testing.assert_allclose(steps.payload[:, 1], np.where(rows.terminated, 5.0, 1.0))  # 1 / (1 - 0.8)
    np.testing.assert_allclose(steps.going_on, np.where(rows.terminated, 0.0, 0.8))  # through time-outs
    assert steps.weight == pytest.approx(1 / 20)


def test_a_horizon_ends_every_episode_and_the_clock_is_a_part_of_the_state():
    _, dataset, policy, _ = half_table_log(n=20)
    rows, steps = dataset.transitions(), prepare(dataset, policy, Estimand(0.5, horizon=3))
    kept = rows.step < 3
    np.testing.assert_array_equal(steps.rows, np.flatnonzero(kept))
    np.testing.assert_array_equal(steps.now.state[:, -1], rows.step[kept])
    is_end = rows.terminated[kept] | (rows.step[kept] == 2)
    np.testing.assert_allclose(steps.going_on, np.where(is_end, 0.0, 0.5))
    mass = {0: 1.75, 1: 1.5, 2: 1.0}  # of an end at step t: 1 + 0.5 + ... up to the third step
    expected = np.where(rows.terminated[kept], [mass[t] for t in rows.step[kept]], 1.0)
    np.testing.assert_allclose(steps.payload[:, 1], expected)
    np.testing.assert_array_equal(steps.first[0].state[:, -1], np.zeros(20))


def test_probabilities_stand_for_finitely_many_actions_and_draws_for_others():
    _, dataset, policy, table = half_table_log(n=20)
    steps = prepare(dataset, policy, Estimand(0.8))
    after = dataset.transitions().next_observation.argmax(1)
    assert len(steps.following) == 1
    np.testing.assert_allclose(steps.following[0].action, table[after])
    assert len(prepare(lqg_log(5, 4), linear(0.4, 0.4), Estimand(0.8)).following) == 3


def test_features_are_those_of_a_step_less_what_follows():
    _, dataset, policy, _ = half_table_log(n=20)
    rows, steps = dataset.transitions(), prepare(dataset, policy, Estimand(0.8))
    basis = LandmarkBasis.fit(steps.now, count=12, shape="delta", is_discrete=True, generator=generator())
    (found,) = steps.features(basis)
    assert found.psi.sum() == len(rows)  # each row is one point of the table
    after = basis(steps.following[0])
    expected = found.psi - np.where(rows.terminated, 0.0, 0.8)[:, None] * after
    np.testing.assert_allclose(found.phi, expected)


def test_of_a_long_log_a_part_weighs_more_and_a_late_horizon_is_refused():
    _, dataset, policy, _ = half_table_log(n=50)
    steps = prepare(dataset, policy, Estimand(0.8), max_rows=40)
    assert len(steps.rows) == 40
    assert steps.weight == pytest.approx(len(dataset.transitions()) / 40 / 50)
    with pytest.raises(EstimandError, match="beyond step 8 of 20"):
        prepare(dataset, policy, Estimand(0.8, horizon=20))
