"""Reward models: what they recover, what they dispute, and that a killed fit goes on to the same bits."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.preferences.calibration import calibration_error, chance_error, judge_pairs, member_probabilities
from mbrl.preferences.ensemble_fit import fit_reward
from mbrl.preferences.fit import RewardConfig, RewardFit, segment_sums, split_pairs
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment
from mbrl.preferences.queries import choose_pairs
from mbrl.preferences.reward_model import ModelReward, RewardEnsemble, RewardSpec
from mbrl.preferences.segments import SegmentPairs, log_steps
from mbrl.preferences.synthetic import answer_pairs, draw_pairs
from mbrl.testing.samples import SPACE, make_dataset, make_episodes, make_normaliser

LOG = make_dataset()
WEIGHTS = np.array([1.0, -0.5, 0.25]), np.array([0.4, -0.2])
SMALL = RewardConfig(members=3, hidden=(16,), max_updates=40, look_interval=10, batch_size=8)


def linear_rewards() -> list[np.ndarray]:
    return [e.observations[:-1] @ WEIGHTS[0] + e.actions @ WEIGHTS[1] for e in LOG.episodes]


def answered(count: int, length: int = 5) -> SegmentPairs:
    pairs = draw_pairs(LOG, count=count, length=length)
    return SegmentPairs.of(LOG, answer_pairs(LOG, pairs, rewards=linear_rewards()))


def make_fit(pairs: SegmentPairs, config: RewardConfig = SMALL) -> RewardFit:
    return RewardFit(pairs, config, SPACE, make_normaliser(), RngStreams(0))


def test_pairs_are_steps_of_the_log_padded_to_the_longest() -> None:
    answers = (
        Preference(Segment(2, 3, 4), Segment(1, 0, 2), "left"),
        Preference(Segment(0, 0, 1), Segment(3, 29, 1), "skip"),
    )
    pairs = SegmentPairs.of(LOG, PreferenceSet(LOG.content_hash, answers))
    assert len(pairs) == 1
    batch = pairs.batch(torch.tensor([0]))
    assert batch.observation.shape == (1, 2, 4, 3)
    np.testing.assert_array_equal(batch.observation[0, 0], LOG.episodes[2].observations[3:7])
    np.testing.assert_array_equal(batch.action[0, 1, :2], LOG.episodes[1].actions[:2])
    assert batch.valid.tolist() == [[[True] * 4, [True, True, False, False]]]
    with pytest.raises(DataError, match="none of 1 pairs was answered"):
        SegmentPairs.of(LOG, PreferenceSet(LOG.content_hash, answers[1:]))


def test_sums_leave_the_padding_out() -> None:
    answers = (Preference(Segment(2, 3, 4), Segment(1, 0, 2), "left"),)
    pairs = SegmentPairs.of(LOG, PreferenceSet(LOG.content_hash, answers))
    model = RewardEnsemble(RewardSpec(SPACE, 2, (8,)), make_normaliser(), torch.Generator().manual_seed(0))
    episode = LOG.episodes[1]
    raw = model.raw(torch.tensor(episode.observations[:2]), torch.tensor(episode.actions[:2]))
    torch.testing.assert_close(segment_sums(model, pairs)[:, 0, 1], raw.sum(1).detach())


def test_a_linear_reward_is_recovered_up_to_scale() -> None:
    """Without a hidden layer members are linear: their weights must point where the reward's do."""
    config = RewardConfig(members=2, hidden=(), max_updates=200, learning_rate=3e-2, patience=50)
    fit = make_fit(answered(400), config)
    model = fit_reward(fit)
    rewards = model.reward(*log_steps(LOG)).numpy()
    assert np.corrcoef(rewards, np.concatenate(linear_rewards()))[0, 1] > 0.995
    assert abs(rewards.mean()) < 1e-4
    members = model.members(*log_steps(LOG))
    torch.testing.assert_close(members.std(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)
    report = judge_pairs(model, fit.holdout)
    assert report.pairs == 80
    assert report.accuracy is not None
    assert report.accuracy > 0.9


def test_pessimism_takes_deviations_over_members_off() -> None:
    model = fit_reward(make_fit(answered(20)))
    obs, action = (part[:7] for part in log_steps(LOG))
    found = model.members(obs, action)
    low = ModelReward(model, pessimism=2.0, offset=1.0)(obs, action, obs)
    torch.testing.assert_close(low, found.mean(0) - 2 * found.std(0, correction=0) + 1)
    two = fit_reward(make_fit(answered(20), SMALL.model_copy(update={"members": 2})))
    torch.testing.assert_close(
        two.reward(obs, action, pessimism=1.0), two.members(obs, action).amin(0), atol=1e-5, rtol=0
    )


def test_a_killed_fit_goes_on_to_the_same_bits() -> None:
    pairs = answered(24)
    whole = make_fit(pairs)
    reference = whole.start()
    model = fit_reward(whole, reference)
    for cut in (3, 10, 27):
        fit = make_fit(pairs)
        state = fit.start()
        while state.updates < cut:
            fit.update(state)
        again, resumed = make_fit(pairs), make_fit(pairs).start()
        resumed.load_state_dict(state.state_dict())
        other = fit_reward(again, resumed)
        assert resumed.history == reference.history
        for name, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_members_stop_by_pairs_that_they_never_saw() -> None:
    fit = make_fit(answered(40))
    for member in range(3):
        seen = set(fit._draws[member].tolist())
        left_out = set(fit._left_out[member].nonzero()[:, 0].tolist())
        assert seen | left_out == set(range(len(fit.train)))
        assert not seen & left_out


def test_the_same_two_segments_stay_on_one_side_of_the_split() -> None:
    a, b = Segment(0, 0, 5), Segment(1, 0, 5)
    others = [Preference(Segment(2, k, 5), Segment(3, k, 5), "left") for k in range(8)]
    answers = [Preference(a, b, "left"), Preference(b, a, "left"), Preference(a, b, "right"), *others]
    pairs = SegmentPairs.of(LOG, PreferenceSet(LOG.content_hash, tuple(answers)))
    for seed in range(10):
        train, holdout = split_pairs(pairs, 0.3, torch.Generator().manual_seed(seed))
        assert sorted([*train.tolist(), *holdout.tolist()]) == list(range(11))
        assert len({0, 1, 2} & set(holdout.tolist())) in {0, 3}


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="3 pairs were answered"):
        make_fit(answered(3))


def test_the_calibration_error_by_hand() -> None:
    sure, correct = np.array([0.6, 0.6, 0.9, 0.9]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(sure, correct, bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert chance_error(np.full(10_000, 0.8)) < 0.02
    assert chance_error(np.full(10, 0.8)) > 0.2


def test_the_most_disputed_pairs_are_asked_first_and_none_twice() -> None:
    model = fit_reward(make_fit(answered(20)))
    known = [Preference(a, b, "left") for a, b in draw_pairs(LOG, count=30, length=5)]
    chosen = choose_pairs(LOG, count=5, length=5, model=model, known=known)
    pairs = SegmentPairs.of_answers(LOG, [Preference(a, b, "equal") for a, b in chosen])
    spread = member_probabilities(model, pairs).std(0, correction=0)
    assert spread.diff().le(0).all()
    assert not {frozenset(p) for p in chosen} & {frozenset((k.left, k.right)) for k in known}
    random = choose_pairs(LOG, count=200, length=5, query="random")
    others = SegmentPairs.of_answers(LOG, [Preference(a, b, "equal") for a, b in random])
    assert spread.mean() > member_probabilities(model, others).std(0, correction=0).mean()


def test_rewards_of_the_log_are_not_read() -> None:
    hidden = Dataset(
        tuple(_without_rewards(e) for e in make_episodes()),
        SPACE,
        DatasetInfo(name="toy", derived_from=LOG.content_hash),
    )
    pairs = draw_pairs(LOG, count=20, length=5)
    answers = answer_pairs(LOG, pairs)
    first, second = (fit_reward(make_fit(SegmentPairs.of(log, answers))) for log in (LOG, hidden))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def _without_rewards(episode: object) -> object:
    steps = len(episode)  # pyright: ignore
    return dataclasses.replace(episode, rewards=np.full(steps, math.nan, np.float32), has_rewards=False)  # pyright: ignore
