import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError, EstimandError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.marginal_ratio import MarginalRatio, MWLConfig, marginal_ratio
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.off_policy.value.fqe import FQEConfig
from tests.off_policy.logs import (
    TablePolicy,
    ask,
    context_of,
    empirical,
    generator,
    half_table_log,
    linear,
    lqg_log,
    unlogged,
)
from tests.off_policy.lqg import LinearPolicy, scalar_task
from tests.off_policy.tabular import dataset_of, episodes_of, occupancy, random_mdp, random_policy, simulate

TABLE = MWLConfig(kernel="delta", ridge=0.0)
ESTIMAND = Estimand(0.8)
SHORT = FQEConfig(hidden=(4,), updates=2, batch_size=8)


def ratio(dataset: Dataset, policy, estimand=ESTIMAND, config=TABLE, seed: int = 0) -> MarginalRatio:
    return marginal_ratio(dataset, policy, estimand=estimand, config=config, generator=generator(seed))


def estimate(dataset: Dataset, policy, estimand=ESTIMAND, config=MWLConfig(), seed: int = 0):  # noqa: B008
    return by_ratios("mwl", dataset, policy, estimand, config, seed)


def by_ratios(name: str, dataset: Dataset, policy, estimand, config: MWLConfig, seed: int = 0) -> Estimate:
    """The answer of a registered estimator; its values are few and short."""
    return ask(context_of(policy, dataset, estimand, SHORT, mwl=config), name, seed)


@pytest.mark.parametrize("discount", [0.5, 0.8, 0.97])
def test_a_table_gives_the_linear_solve(discount):
    """Peers collapse the double sum of the loss to a scalar."""
    mdp, dataset, policy, table = half_table_log()
    model, estimand = empirical(dataset, mdp), Estimand(discount)
    found = ratio(dataset, policy, estimand)
    assert found.value == pytest.approx(model.value(table, estimand), rel=1e-9)
    assert found.mass == pytest.approx(1.0, rel=1e-9)  # with the mass of the absorbing state
    assert found.imbalance < 1e-9
    rows = dataset.transitions()
    state, action = rows.observation.argmax(1), rows.action.argmax(1)
    visits = occupancy(model.transition, model.start, table, discount=discount)
    counts = np.zeros_like(visits)
    np.add.at(counts, (state, action), 1 / len(dataset))
    np.testing.assert_allclose(found.weight, (visits / counts)[state, action], rtol=1e-8, atol=1e-9)
    assert any(rows.terminated)
    assert any(rows.truncated)


def test_visits_of_a_table_are_the_discounted_sums_of_its_state_distributions():
    mdp, table = random_mdp(0), random_policy(2, random_mdp(0))
    visits, state, total = np.zeros((4, 3)), mdp.start, 0.0
    for t in range(400):
        visits += 0.9**t * state[:, None] * table
        state = np.einsum("s,sa,sat->t", state, table, mdp.transition[:, :, :-1])
    found = occupancy(mdp.transition, mdp.start, table, discount=0.9)
    np.testing.assert_allclose(found, visits, rtol=1e-10)
    total = (found * mdp.reward).sum()
    assert total == pytest.approx(mdp.value(table, Estimand(0.9)), rel=1e-10)


def test_a_horizon_makes_the_step_a_part_of_the_state():
    """Exactly backward induction on the counts of each step, at a discount of 1 too."""
    _, dataset, policy, table = half_table_log(n=2000, steps=6)
    rows, horizon = dataset.transitions(), 4
    state, action = rows.observation.argmax(1), rows.action.argmax(1)
    following = np.where(rows.terminated, 4, rows.next_observation.argmax(1))
    for discount in (1.0, 0.7):
        value = np.zeros(5)
        for t in range(horizon - 1, -1, -1):
            here = rows.step == t
            q = np.zeros((4, 3))
            for s in range(4):
                for a in range(3):
                    those = here & (state == s) & (action == a)
                    q[s, a] = (rows.reward[those] + discount * value[following[those]]).mean(dtype=np.float64)
            value = np.append((table * q).sum(1), 0.0)
        truth = np.mean([value[e.observations[0].argmax()] for e in dataset.episodes])
        found = ratio(dataset, policy, Estimand(discount, horizon=horizon))
        assert found.value == pytest.approx(truth, rel=1e-8)
        assert found.mass == pytest.approx(1.0, rel=1e-8)


def test_weights_that_may_depend_on_the_successor_would_be_biased():
    """A free weight for each row matches all moments and still does not give the value."""
    mdp, dataset, policy, table = half_table_log(n=2000)
    rows, n = dataset.transitions(), len(dataset)
    one_hot = np.einsum("ns,na->nsa", rows.observation, rows.action).reshape(-1, 12)
    after = np.einsum("ns,na->nsa", rows.next_observation, rows.next_observation @ table).reshape(-1, 12)
    phi = one_hot - 0.8 * np.where(rows.terminated, 0.0, 1.0)[:, None] * after
    first = np.stack([e.observations[0] for e in dataset.episodes])
    start = np.einsum("ns,na->nsa", first, first @ table).reshape(-1, 12).mean(0)
    free = phi @ np.linalg.solve(phi.T @ phi / n, start)
    np.testing.assert_allclose(phi.T @ free / n, start, atol=1e-10)
    truth = empirical(dataset, mdp).value(table, ESTIMAND)
    assert abs((free * rows.reward).sum() / n - truth) > 0.1 * abs(truth)
    assert ratio(dataset, policy).value == pytest.approx(truth, rel=1e-8)


def test_without_the_mass_of_ended_episodes_the_normaliser_would_be_wrong():
    mdp, dataset, policy, table = half_table_log()
    found, rows = ratio(dataset, policy), dataset.transitions()
    truth = empirical(dataset, mdp).value(table, ESTIMAND)
    naive = ESTIMAND.weight_sum * (found.weight @ rows.reward) / found.weight.sum()
    assert abs(naive - truth) > 0.2 * abs(truth)
    assert (found.weight @ rows.reward) / len(dataset) == pytest.approx(truth, rel=1e-8)


def test_an_endless_sum_of_a_proper_task_is_not_normalised():
    mdp, dataset, policy, table = half_table_log()
    estimand = Estimand(1.0, is_proper=True)
    found = ratio(dataset, policy, estimand)
    assert found.value == pytest.approx(empirical(dataset, mdp).value(table, estimand), rel=1e-8)
    assert np.isnan(found.mass)


@pytest.mark.parametrize(("gain", "std"), [(0.4, 0.4), (0.9, 0.0), (0.1, 0.0), (0.9, 0.3)])
def test_it_reaches_the_closed_form_with_continuous_actions(gain, std):
    """A peer returns the behaviour's value whatever the policy."""
    task, dataset = scalar_task(), lqg_log(100, 50)
    policy = linear(gain, std) if std else LinearPolicy(torch.tensor([[gain]]), 8.0)
    truth = task.value(np.array([[gain]]), std, 0.9)
    found = estimate(unlogged(dataset), policy, Estimand(0.9))  # it does not ask who acted
    assert abs(found.point - truth) < 3 * found.se < 0.25 * abs(truth)
    assert "unbalanced" not in found.flags
    behaviour = task.value(np.array([[0.4]]), 0.4, 0.9)
    if gain != 0.4:
        assert abs(found.point - truth) < 0.3 * abs(behaviour - truth)


def test_the_behaviour_itself_gets_flat_weights_of_all_episodes():
    mdp = random_mdp(0, end=0.0)
    table = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.125, 0.75], [0.25, 0.25, 0.5]])
    log = simulate(mdp, table, 500, 40, np.random.default_rng(0))
    dataset = dataset_of(episodes_of(log, mdp, table), mdp)
    found = ratio(dataset, TablePolicy(torch.tensor(table, dtype=torch.float32)), Estimand(0.99))
    assert found.n_eff > 490
    assert found.weight.std() < 0.1 * found.weight.mean()


def test_a_policy_far_from_the_log_is_kept_out_of_verdicts():
    found = estimate(lqg_log(40), LinearPolicy(torch.tensor([[5.0]]), 8.0))
    assert not found.valid
    assert "unbalanced" in found.flags
    few = estimate(lqg_log(20), linear(0.4, 0.4))
    assert "low_ess" in few.flags


def test_rewards_and_order_change_nothing_that_they_should_not():
    _, dataset, policy, _ = half_table_log(n=60)
    first = estimate(dataset, policy)
    larger = [dataclasses.replace(e, rewards=np.float32(4) * e.rewards) for e in dataset.episodes]
    scaled = estimate(dataclasses.replace(dataset, episodes=tuple(larger)), policy)
    assert scaled.point == pytest.approx(4 * first.point, rel=1e-10)
    assert scaled.se == pytest.approx(4 * first.se, rel=1e-8)
    shuffled = estimate(dataset.select(np.random.default_rng(0).permutation(60)), policy)
    assert shuffled.point == pytest.approx(first.point, rel=1e-6)
    assert shuffled.se == pytest.approx(first.se, rel=1e-5)
    assert first.per_episode is not None
    assert first.per_episode.mean() == pytest.approx(first.point, rel=1e-10)
    assert first.se == pytest.approx(first.per_episode.std(ddof=1) / np.sqrt(60), rel=1e-10)
    normal = estimate(dataset, policy, Estimand(0.8, normalised=True))
    assert normal.point == pytest.approx(0.2 * first.point, rel=1e-10)


def test_units_of_states_and_actions_do_not_matter():
    dataset, policy = lqg_log(30), LinearPolicy(torch.tensor([[0.5]]), 8.0)
    metres = [dataclasses.replace(e, observations=np.float32(64) * e.observations) for e in dataset.episodes]
    other = LinearPolicy(torch.tensor([[0.5 / 64]]), 8.0)
    found = estimate(dataclasses.replace(dataset, episodes=tuple(metres)), other)
    assert found.point == pytest.approx(estimate(dataset, policy).point, rel=1e-5)


def test_what_lies_beyond_a_terminal_is_never_read():
    _, dataset, policy, _ = half_table_log(n=60)
    changed = []
    for episode in dataset.episodes:
        observations = episode.observations.copy()
        if episode.terminated:
            observations[-1] = [0.0, 0.0, 0.0, 1.0]
        changed.append(dataclasses.replace(episode, observations=observations))
    assert any(e.terminated for e in dataset.episodes)
    found = ratio(dataclasses.replace(dataset, episodes=tuple(changed)), policy)
    assert found.value == ratio(dataset, policy).value


def test_a_long_log_is_thinned_without_bias():
    _, dataset, policy, _ = half_table_log(n=3000)
    whole = ratio(dataset, policy)
    thin = ratio(dataset, policy, config=TABLE.model_copy(update={"max_rows": 4000}))
    assert len(thin.rows) == len(thin.weight) == 4000
    assert thin.value == pytest.approx(whole.value, rel=0.1)
    assert thin.mass == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_intervals_cover():
    mdp = random_mdp(2)
    behaviour, evaluated = random_policy(12, mdp), random_policy(22, mdp)
    policy = TablePolicy(torch.tensor(evaluated, dtype=torch.float32))
    truth, rng, hits = mdp.value(evaluated, ESTIMAND), np.random.default_rng(0), 0
    for _ in range(60):
        log = simulate(mdp, behaviour, 150, 8, rng)
        found = estimate(dataset_of(episodes_of(log, mdp, behaviour), mdp), policy, config=TABLE)
        hits += found.ci95[0] <= truth <= found.ci95[1]
    assert 52 <= hits <= 60
    assert found.se < 0.2 * abs(truth)


def test_what_the_log_never_tried_shows_in_the_mass():
    """All moments of what was tried are matched; that the visits do not add up is all that tells."""
    _, dataset, policy, _ = half_table_log(n=200)
    kept = [e for e in dataset.episodes if not (e.actions.argmax(1) == 2).any()]
    found = estimate(dataclasses.replace(dataset, episodes=tuple(kept)), policy, config=TABLE)
    assert found.details["imbalance"] < 1e-9
    assert found.details["mass"] < 0.9
    assert "unbalanced" in found.flags


def test_a_deterministic_mode_and_a_horizon_beyond_a_time_out():
    dataset = lqg_log(40, 5)
    mode = DeterministicMode(linear(0.4, 0.4))
    assert by_ratios("mwl", dataset, mode, Estimand(1.0, horizon=5), MWLConfig()).family == "ratio"
    with pytest.raises(EstimandError, match="beyond step 5 of 6"):
        by_ratios("mwl", dataset, linear(0.4, 0.4), Estimand(1.0, horizon=6), MWLConfig())


def test_one_episode_gives_a_ratio_and_no_estimate():
    assert np.isfinite(ratio(lqg_log(1, 60), linear(0.4, 0.4), config=MWLConfig()).value)
    with pytest.raises(DataError, match="two episodes"):
        estimate(lqg_log(1, 60), linear(0.4, 0.4))


def test_a_table_needs_a_landmark_for_each_of_its_entries():
    _, dataset, policy, _ = half_table_log(n=60)
    with pytest.raises(DataError, match="12 different"):
        ratio(dataset, policy, config=TABLE.model_copy(update={"landmarks": 11}))
