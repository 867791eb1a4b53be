"""Cuts at random change no answer; to ignore them gives a wrong one."""

import dataclasses

import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.log.censoring import (
    Censoring,
    logged_returns,
    whole_episodes,
    whole_weights,
    why_not_known,
)
from mbrl.off_policy.log.layout import OPEArrays, pad_log
from tests.off_policy.logs import select
from tests.off_policy.tabular import (
    MDP,
    Array,
    arrays_of,
    dataset_of,
    episodes_of,
    fall_mdp,
    random_mdp,
    random_policy,
    simulate,
)

STEPS = 8
ESTIMAND = Estimand(0.9, horizon=STEPS)


def chop(arrays: OPEArrays, chance: float, seed: int, values: Array | None = None) -> OPEArrays:
    """Every episode that lives is cut with the same chance before each step but its first.

    `values`, `[n, T + 1]`, are those of the states of the uncut log: the tails.
    """
    n = len(arrays)
    rng = np.random.default_rng(seed)
    age = rng.geometric(chance, n)
    is_cut = age < np.where(arrays.terminated, arrays.length, STEPS)
    length = np.where(is_cut, age, arrays.length)
    alive = np.arange(arrays.steps) < length[:, None]
    value = np.where(np.arange(arrays.steps + 1) <= length[:, None], arrays.value, 0.0)
    if values is not None:
        value[is_cut, length[is_cut]] = values[is_cut, length[is_cut]]
    return dataclasses.replace(
        arrays,
        log_ratio=np.where(alive, arrays.log_ratio, 0.0),
        reward=np.where(alive, arrays.reward, 0.0),
        action_value=np.where(alive, arrays.action_value, 0.0),
        value=value,
        length=length,
        terminated=arrays.terminated & ~is_cut,
        truncated=is_cut,
    )


def task(
    n: int, seed: int, *, end: float = 0.15, mdp: MDP | None = None
) -> tuple[MDP, Array, Array, OPEArrays]:
    """A table, who is evaluated, who acted, and its log with exact values."""
    mdp = random_mdp(3, end=end) if mdp is None else mdp
    evaluated, behaviour = random_policy(1, mdp), random_policy(2, mdp)
    log = simulate(mdp, behaviour, n, STEPS, np.random.default_rng(seed))
    q = mdp.q_finite(evaluated, ESTIMAND.discount, STEPS)
    return mdp, evaluated, behaviour, arrays_of(log, evaluated, behaviour, ESTIMAND, q)


def test_the_product_limits_of_a_small_log_are_those_by_hand():
    reward = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0], [5.0, 0.0, 0.0], [4.0, 4.0, 1.0]])
    nothing = np.zeros((4, 3))
    arrays = OPEArrays(
        nothing,
        reward,
        nothing,
        np.zeros((4, 4)),
        length=np.array([3, 2, 1, 3]),
        terminated=np.array([False, True, False, False]),
        truncated=np.array([False, False, True, False]),
        estimand=Estimand(1.0, horizon=3),
    )
    found = Censoring.of(arrays)
    # One of four is cut at age 1; of the three that go on one ends with step 1.
    assert found.at_risk.tolist() == [4, 3, 2]
    np.testing.assert_allclose(found.uncut, [1, 3 / 4, 3 / 4])
    np.testing.assert_allclose(found.living, [1, 1, 2 / 3, 2 / 3])
    # E r_0 = 11/4, E r_1 = 8/3, E r_2 = 2/3 * 4/2.
    assert logged_returns(arrays).mean() == pytest.approx(11 / 4 + 8 / 3 + 4 / 3, rel=1e-12)
    by_weights = (reward / found.uncut).sum(1)  # the same by inverse probability of censoring
    assert by_weights.mean() == pytest.approx(logged_returns(arrays).mean(), rel=1e-12)
    whole = whole_episodes(arrays)
    np.testing.assert_allclose(np.exp(whole.log_start), [4 / 3, 4 / 3, 0, 4 / 3])
    assert not whole.truncated.any()
    np.testing.assert_allclose(whole_weights(arrays), [1 / 3, 1 / 3, 0, 1 / 3])


def test_without_cuts_nothing_changes():
    arrays = task(50, 0)[-1]
    assert why_not_known(arrays) is None
    assert whole_episodes(arrays) is arrays
    assert logged_returns(arrays).tolist() == arrays.returns().tolist()
    np.testing.assert_allclose(whole_weights(arrays), 1 / 50)


def test_the_influence_values_are_those_of_the_jackknife():
    arrays = chop(task(400, 1)[-1], 0.15, 2)
    found = logged_returns(arrays)
    without = [logged_returns(select(arrays, np.delete(np.arange(400), i))).mean() for i in range(400)]
    pseudo = 400 * found.mean() - 399 * np.array(without)  # J + influence + O(1 / n)
    assert np.sqrt(np.square(found - pseudo).mean()) < 0.02 * np.std(found)


def test_cuts_at_random_leave_the_logged_mean_and_its_error_right():
    mdp, _, behaviour, _ = task(1, 0)
    truth = mdp.value(behaviour, ESTIMAND)
    z = []
    for seed in range(200):
        found = logged_returns(chop(task(300, seed)[-1], 0.1, 1000 + seed))
        z.append((found.mean() - truth) / (found.std(ddof=1) / np.sqrt(len(found))))
    assert abs(np.mean(z)) < 4 / np.sqrt(200)
    assert 0.85 < np.std(z) < 1.15
    assert 0.9 <= np.mean(np.abs(z) < 1.96) <= 0.99


ESTIMATORS = {
    "is": lambda a: importance_sampling(whole_episodes(a), kind="is"),
    "wis": lambda a: importance_sampling(whole_episodes(a), kind="wis"),
    "pdis": lambda a: importance_sampling(a, kind="pdis", tail="bootstrap"),
    "pdwis": lambda a: importance_sampling(a, kind="pdwis", tail="bootstrap"),
    "dr": doubly_robust,
    "wdr": weighted_doubly_robust,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_cuts_at_random_move_no_estimate_beyond_its_interval(name):
    mdp, evaluated, behaviour, arrays = task(4000, 7)
    estimate = ESTIMATORS[name]
    truth = mdp.value(evaluated, ESTIMAND)
    values = exact_state_values(mdp, evaluated, behaviour, 4000, 7)
    cut = chop(arrays, 0.1, 1, values)
    assert 0.25 < cut.truncated.mean() < 0.7
    whole, found = estimate(arrays), estimate(cut)
    for one in (whole, found):
        assert one.ci95[0] < truth < one.ci95[1], name
    assert whole.ci95[0] < found.point < whole.ci95[1] or found.ci95[0] < whole.point < found.ci95[1]


@pytest.mark.parametrize("name", ["pdis", "is", "dr"])
def test_estimates_of_chopped_logs_are_unbiased(name):
    """With exact tails, or by whole episodes: the mean over many logs is the value."""
    points = []
    for seed in range(300):
        mdp, evaluated, behaviour, arrays = task(100, seed)
        values = exact_state_values(mdp, evaluated, behaviour, 100, seed)
        points.append(ESTIMATORS[name](chop(arrays, 0.15, 5000 + seed, values)).point)
    z = (np.mean(points) - mdp.value(evaluated, ESTIMAND)) / (np.std(points) / np.sqrt(300))
    assert abs(z) < 4, (name, z)


def exact_state_values(mdp: MDP, evaluated: Array, behaviour: Array, n: int, seed: int) -> Array:
    """`[n, T + 1]`, `V(s_t)` with H - t steps to go at every state of the log of `task`."""
    log = simulate(mdp, behaviour, n, STEPS, np.random.default_rng(seed))
    table = (mdp.q_finite(evaluated, ESTIMAND.discount, STEPS) * evaluated).sum(-1)
    table = np.concatenate([table, np.zeros((1, mdp.states))])
    return table[np.arange(STEPS + 1), log.state]


def test_to_ignore_cuts_or_to_take_them_for_ends_is_clearly_wrong():
    """A task where survival pays: episodes that are cut are those that lived."""
    mdp = fall_mdp(0.5)
    behaviour = np.array([[0.8, 0.2]])
    estimand = Estimand(1.0, horizon=STEPS)
    log = simulate(mdp, behaviour, 2000, STEPS, np.random.default_rng(0))
    arrays = arrays_of(log, behaviour, behaviour, estimand)
    truth = mdp.value(behaviour, estimand)
    cut = chop(arrays, 0.2, 1)
    found = logged_returns(cut)
    error = found.std(ddof=1) / np.sqrt(2000)
    assert abs(found.mean() - truth) < 3 * error
    as_ends = cut.returns().mean()  # a cut as an end
    whole_only = cut.returns()[~cut.truncated].mean()  # cut episodes left out, and nothing for them
    assert truth - as_ends > 20 * error
    assert truth - whole_only > 20 * error


def test_where_all_that_lived_were_cut_nobody_can_stand_for_them():
    mdp, _, behaviour, _ = task(1, 0)
    log = simulate(mdp, behaviour, 40, STEPS, np.random.default_rng(0))
    episodes = dataset_of(episodes_of(log, mdp, behaviour), mdp).episodes
    arrays = pad_log(episodes, None, estimand=Estimand(1.0, horizon=20))
    assert why_not_known(arrays) == "no episode that lived was logged beyond step 8 of 20"
    for ask in (logged_returns, whole_episodes, whole_weights):
        with pytest.raises(ValueError, match="beyond step 8 of 20"):
            ask(arrays)
    endless = pad_log(episodes, None, estimand=Estimand(0.9))
    assert why_not_known(endless) == "time-outs cut the logged returns"
    ended = [episode for episode in episodes if episode.terminated]
    assert why_not_known(pad_log(ended, None, estimand=Estimand(1.0, horizon=20))) is None
