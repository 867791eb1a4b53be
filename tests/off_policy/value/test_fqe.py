import dataclasses
import io
import warnings

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.policies import action_probabilities
from mbrl.off_policy.value.fqe import FQEConfig, FQEFit
from tests.off_policy.logs import DISCOUNTED as ESTIMAND
from tests.off_policy.logs import QUICK, TablePolicy, empirical, fit, generator, table_log
from tests.off_policy.logs import TABULAR as TABLE
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy, scalar_task
from tests.off_policy.tabular import dataset_of, episodes_of, random_mdp, random_policy, simulate
from tests.run.toy import assert_same


def scaled(dataset: Dataset, factor: float) -> Dataset:
    episodes = [dataclasses.replace(e, rewards=np.float32(factor) * e.rewards) for e in dataset.episodes]
    return dataclasses.replace(dataset, episodes=tuple(episodes))


@pytest.mark.parametrize(
    "estimand", [Estimand(0.8), pytest.param(Estimand(1.0, horizon=4), marks=pytest.mark.slow)]
)
def test_a_table_finds_the_value_of_the_empirical_model(estimand):
    mdp, dataset, policy, evaluated = table_log()
    truth = empirical(dataset, mdp).value(evaluated, estimand)
    result = fit(dataset, policy, estimand, TABLE)
    if estimand.horizon is None:
        assert result.estimate().point == pytest.approx(truth, rel=0.03)
        greedy = empirical(dataset, mdp).value(np.eye(3)[evaluated.argmax(1)], estimand)
        assert abs(greedy - truth) > 0.1 * abs(truth)  # a peer evaluates this one instead
    else:
        wide = TABLE.model_copy(update={"hidden": (48,), "learning_rate": 6e-3})
        assert fit(dataset, policy, estimand, wide).estimate().point == pytest.approx(truth, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("std", [0.0, 0.3])
def test_continuous_actions_reach_the_closed_form(std):
    task, gain = scalar_task(), np.array([[0.9]])
    dataset = task.simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 200, 20, 0)
    kind = NoisyLinearPolicy if std else LinearPolicy
    policy = kind(torch.tensor(gain, dtype=torch.float32), 8.0, std)
    config = FQEConfig(hidden=(32, 32), updates=500, learning_rate=3e-3, polyak_tau=0.05)
    estimate = fit(dataset, policy, Estimand(0.8), config).estimate()
    truth = task.value(gain, std, 0.8)
    assert abs(task.value(np.array([[0.4]]), 0.4, 0.8) - truth) > 0.5  # the behaviour's is another
    assert estimate.point == pytest.approx(truth, abs=0.15)


def test_scaled_rewards_scale_the_result_exactly():
    """A Huber loss, as peers have it, would not."""
    _, dataset, policy, _ = table_log(n=30)
    first, second = fit(dataset, policy), fit(scaled(dataset, 64.0), policy)
    np.testing.assert_allclose(second.initial, 64.0 * first.initial, rtol=1e-12)
    with pytest.warns(UserWarning, match="Huber"):
        huber = fit(dataset, policy, config=QUICK.model_copy(update={"loss": "huber"})).estimate()
    assert not huber.valid
    assert "huber" in huber.flags


@pytest.mark.parametrize("estimand", [Estimand(0.9), Estimand(1.0, horizon=6)])
def test_a_constant_reward_is_worth_its_sum(estimand):
    """Peers clamp targets inside the range that rewards permit, or shift rewards where episodes end."""
    mdp = random_mdp(0, end=0.0)
    behaviour = random_policy(1, mdp)
    log = simulate(mdp, behaviour, 20, 6, np.random.default_rng(0))
    log = dataclasses.replace(log, reward=np.full_like(log.reward, -2.0))
    dataset = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    policy = TablePolicy(torch.tensor(behaviour, dtype=torch.float32))
    # the mean is taken out, so what is left to learn is a function that is zero
    config = TABLE.model_copy(update={"updates": 400, "batch_size": 32})
    result = fit(dataset, policy, estimand, config)
    assert result.estimate().point == pytest.approx(-2 * estimand.weight_sum, rel=2e-3)


def test_what_lies_beyond_a_terminal_is_never_read():
    _, dataset, policy, _ = table_log(n=30)
    changed: list[Episode] = []
    for episode in dataset.episodes:
        observations = episode.observations.copy()
        if episode.terminated:
            observations[-1] = [0.0, 0.0, 0.0, 1.0]
        changed.append(dataclasses.replace(episode, observations=observations))
    first = fit(dataset, policy)
    second = fit(dataclasses.replace(dataset, episodes=tuple(changed)), policy)
    assert any(e.terminated for e in dataset.episodes)
    np.testing.assert_array_equal(first.initial, second.initial)


@pytest.mark.slow
def test_a_time_out_is_bootstrapped():
    """With a reward on the last step only, a policy worth more than one step must value what comes after."""
    mdp = random_mdp(0, end=0.0)
    behaviour = random_policy(1, mdp)
    log = simulate(mdp, behaviour, 100, 2, np.random.default_rng(0))
    log = dataclasses.replace(log, reward=1.0 + 0.01 * log.reward)
    dataset = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    policy = TablePolicy(torch.tensor(behaviour, dtype=torch.float32))
    quick = TABLE.model_copy(update={"updates": 300})
    assert fit(dataset, policy, Estimand(0.9), quick).estimate().point > 9.0  # two steps are worth 1.9


def test_members_are_fitted_apart():
    _, dataset, policy, _ = table_log(n=30)
    result = fit(dataset, policy)
    obs = torch.eye(4)
    before = result.values.value(obs, policy.probs(obs))
    with torch.no_grad():
        result.values.net.flat[1] += 1.0
    moved = (result.values.value(obs, policy.probs(obs)) != before).any(1)
    assert moved.tolist() == [False, True, False, False, False]
    assert np.ptp(result.initial.mean(1)) > 0  # initial weights and resamples differ


@pytest.mark.slow
def test_thin_data_widens_the_spread():
    config = TABLE.model_copy(update={"bootstrap": True, "updates": 250})
    _, dataset, policy, _ = table_log(n=400)
    thin = dataset.select(range(12))
    wide, narrow = (fit(d, policy, config=config).estimate().details["epistemic_se"] for d in (thin, dataset))
    assert wide > 2 * narrow


def test_bad_input_is_refused():
    _, dataset, policy, _ = table_log(n=5)
    with pytest.raises(DataError, match="two episodes"):
        fit(dataset.select([0]), policy)
    with pytest.raises(DataError, match="2 dimensions"):
        fit(dataset, TablePolicy(torch.eye(4)[:, :2]))
    with pytest.raises(DataError, match="no probabilities"):
        action_probabilities(TablePolicy(torch.full((4, 3), 0.5)), torch.eye(4))


def test_warnings_are_not_raised_by_a_plain_fit():
    _, dataset, policy, _ = table_log(n=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(dataset, policy)


@pytest.mark.parametrize("estimand", [Estimand(0.8), Estimand(1.0, horizon=4)])
def test_a_stored_fit_continues_to_the_same_bits(estimand):
    task = scalar_task()
    policy = NoisyLinearPolicy(torch.tensor([[0.5]]), 8.0, 0.3)  # its actions are drawn anew in each update
    dataset = task.simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 6, 5, 0)
    config = FQEConfig(hidden=(8,), updates=90, batch_size=8)

    def make() -> FQEFit:
        return FQEFit(dataset, policy, estimand=estimand, config=config, rng=RngStreams(3))

    whole_fit = make()
    whole = whole_fit.init()
    for _ in range(90):
        whole_fit.update(whole)
    first_fit = make()
    first = first_fit.init()
    for _ in range(77):  # in the middle of a block of draws, and of the last fifth
        first_fit.update(first)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second_fit = make()
    second = second_fit.init()
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(13):
        second_fit.update(second)
    assert_same(second.state_dict(), whole.state_dict())
    np.testing.assert_array_equal(second_fit.result(second).initial, whole_fit.result(whole).initial)
    assert second_fit.result(second).clip_share == whole_fit.result(whole).clip_share


def test_a_fit_in_pieces_is_the_fit_at_once():
    _, dataset, policy, _ = table_log(n=10)
    seed = int(torch.randint(2**62, (), generator=generator()))
    pieces = FQEFit(dataset, policy, estimand=ESTIMAND, config=QUICK, rng=RngStreams(seed))
    state = pieces.init()
    for _ in range(QUICK.updates):
        pieces.update(state)
    np.testing.assert_array_equal(pieces.result(state).initial, fit(dataset, policy).initial)
