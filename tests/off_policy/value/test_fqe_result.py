import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.off_policy.value.fqe import fit_fqe
from mbrl.off_policy.value.fqe_result import drift_of, policy_choices
from tests.off_policy.logs import DISCOUNTED as ESTIMAND
from tests.off_policy.logs import QUICK, fit, generator, linear, table_log


def test_a_fit_that_still_moves_is_flagged_and_kept_out_of_verdicts():
    _, dataset, policy, _ = table_log(n=30)
    result = fit(dataset, policy, config=QUICK.model_copy(update={"learning_rate": 0.1}))
    estimate = dataclasses.replace(result, drift=0.05).estimate()
    assert not estimate.valid
    assert "not_converged" in estimate.flags
    settled = dataclasses.replace(result, drift=0.019, clip_share=0.0)
    long_enough = settled.config.model_copy(update={"updates": settled.least_updates})
    assert dataclasses.replace(settled, config=long_enough).estimate().valid


def test_standing_still_before_values_could_cross_the_horizon_proves_nothing():
    """At a discount of 0.9 rewards count for 10 steps, and targets need 1 / tau = 200 updates for each."""
    _, dataset, policy, _ = table_log(n=30)
    result = fit(dataset, policy, Estimand(0.9))
    settled = dataclasses.replace(result, drift=0.0, clip_share=0.0)
    assert settled.least_updates == 2000
    short = dataclasses.replace(settled, config=QUICK.model_copy(update={"updates": 1999})).estimate()
    assert not short.valid
    assert "too_few_updates" in short.flags
    assert "2000" in (short.why_not or "")
    assert dataclasses.replace(settled, config=QUICK.model_copy(update={"updates": 2000})).estimate().valid
    assert "targets_clipped" in dataclasses.replace(result, clip_share=0.02).estimate().flags


def test_values_on_the_log_are_aligned_with_steps_and_states():
    _, dataset, policy, _ = table_log(n=5)
    result = fit(dataset, policy)
    q, v = result.mean_on_log(*result.members_on_log(dataset, generator=generator()), dataset)
    rows = dataset.transitions()
    assert q.shape == (len(rows),)
    assert v.shape == (len(rows) + 5,)
    table = result.values.action_value(torch.tensor(rows.observation), torch.tensor(rows.action))
    np.testing.assert_allclose(q, table.mean(0).numpy(), rtol=1e-12)
    starts = np.cumsum(dataset.episode_lengths + 1) - dataset.episode_lengths - 1
    np.testing.assert_allclose(v[starts], result.initial.mean(0), rtol=1e-6)


def test_a_clock_counts_down_over_an_episode():
    _, dataset, policy, _ = table_log(n=5, steps=6)
    result = fit(dataset, policy, Estimand(1.0, horizon=3))
    _, v = result.mean_on_log(*result.members_on_log(dataset, generator=generator()), dataset)
    first = dataset.episodes[0]
    if len(first) >= 3:
        assert v[3] == 0.0  # no step is to go
    obs = torch.tensor(first.observations[1:2])
    by_hand = result.values.value(obs, policy.probs(obs), torch.tensor([2]))
    assert v[1] == pytest.approx(float(by_hand.mean()), rel=1e-5)


def test_values_across_folds_come_from_members_that_have_not_seen_the_episode():
    _, dataset, policy, _ = table_log(n=12)
    fold = np.arange(12) % 2
    result = fit_fqe(dataset, policy, estimand=ESTIMAND, config=QUICK, generator=generator(), fold=fold)
    q, v = result.mean_on_log(*result.members_on_log(dataset, generator=generator()), dataset)
    rows = dataset.transitions()
    table = result.values.action_value(torch.tensor(rows.observation), torch.tensor(rows.action)).numpy()
    by_hand = np.where(fold[rows.episode] == 0, table[[0, 2, 4]].mean(0), table[[1, 3]].mean(0))
    np.testing.assert_allclose(q, by_hand, rtol=1e-12)
    with torch.no_grad():  # members 1 and 3 speak of odd episodes alone
        result.values.net.flat[[1, 3]] += 1.0
    _, moved = result.mean_on_log(*result.members_on_log(dataset, generator=generator()), dataset)
    state_fold = np.repeat(fold, dataset.episode_lengths + 1)
    assert np.array_equal(moved != v, state_fold == 1)
    with pytest.raises(ValueError, match="12 episodes"):
        result.mean_on_log(q, v, dataset.select(range(3)))
    with pytest.raises(ValueError, match="6 folds"):
        fit_fqe(
            dataset,
            policy,
            estimand=ESTIMAND,
            config=QUICK,
            generator=generator(),
            fold=np.arange(12) % 6,
        )


def test_the_drift_is_that_of_the_last_fifth_in_units_of_the_estimate_or_of_the_returns():
    """Ten looks, of which the last two count: 4 and 5, mean 4.5; the returns spread by less."""
    _, dataset, _, _ = table_log(n=30)
    history = np.array([100.0, 0, 0, 0, 0, 0, 0, 0, 4.0, 5.0])
    assert drift_of(history, dataset, Estimand(0.8)) == pytest.approx(1.0 / 4.5)
    returns = [e.rewards.astype(np.float64) @ 0.8 ** np.arange(len(e)) for e in dataset.episodes]
    small = drift_of(history / 1e3, dataset, Estimand(0.8))
    assert small == pytest.approx(1e-3 / np.std(returns))


def test_choices_are_probabilities_or_draws():
    _, _, policy, _ = table_log(n=2)
    probabilities = policy_choices(policy, torch.eye(4), QUICK, generator())
    torch.testing.assert_close(probabilities, policy.table)
    draws = policy_choices(linear(0.5, 0.3), torch.ones(6, 1), QUICK, generator())
    assert draws.shape == (QUICK.action_samples, 6, 1)
    assert len(torch.unique(draws)) == QUICK.action_samples * 6
