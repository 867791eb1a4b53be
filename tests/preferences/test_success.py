"""Success classifiers: which steps labels are about, what is fitted to them, and what is refused."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.preferences.calibration import chance_error
from mbrl.preferences.ensemble_fit import fit_reward
from mbrl.preferences.reward_model import RewardEnsemble, RewardSpec
from mbrl.preferences.segments import log_steps
from mbrl.preferences.success.fit import SuccessConfig, SuccessFit, recalibrate, split_episodes
from mbrl.preferences.success.judge import find_leaks, judge_steps, rank_area
from mbrl.preferences.success.labels import SuccessLabel, SuccessLabels, read_labels, write_labels
from mbrl.preferences.success.steps import LabelledSteps, steps_of_column, steps_of_labels
from mbrl.testing.samples import SPACE, make_dataset, make_normaliser

LOG = make_dataset()  # 12 episodes of 30 steps
SMALL = SuccessConfig(members=3, hidden=(16,), max_updates=40, look_interval=10, batch_size=16)
WEIGHTS = np.array([1.0, -0.5, 0.25])


def labels(*told: SuccessLabel) -> SuccessLabels:
    return SuccessLabels(LOG.content_hash, told)


def with_column(values: list[np.ndarray], name: str = "next.success") -> Dataset:
    episodes = tuple(
        dataclasses.replace(e, infos={name: v}) for e, v in zip(LOG.episodes, values, strict=True)
    )
    return dataclasses.replace(LOG, episodes=episodes)


def linear_steps() -> LabelledSteps:
    """Every step succeeds where a weighted sum of its state is positive."""
    return steps_of_column(
        with_column([e.observations[:-1] @ WEIGHTS > 0 for e in LOG.episodes]), "next.success"
    )


def make_fit(steps: LabelledSteps, config: SuccessConfig = SMALL) -> SuccessFit:
    return SuccessFit(steps, config, SPACE, make_normaliser(), RngStreams(0))


def test_a_label_of_an_episode_is_about_its_last_steps() -> None:
    told = labels(SuccessLabel(1, "success"), SuccessLabel(3, "failure"), SuccessLabel(5, "skip"))
    steps = steps_of_labels(LOG, told, last_steps=2)
    assert steps.rows.tolist() == [58, 59, 118, 119]
    assert steps.target.tolist() == [1, 1, 0, 0]
    assert steps.episode.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(steps.inputs()[0][1], LOG.episodes[1].observations[29])
    np.testing.assert_array_equal(steps.inputs()[1][1], LOG.episodes[1].actions[29])
    whole = steps_of_labels(LOG, told, last_steps=2, earlier="failure")
    assert whole.rows.tolist() == [*range(30, 60), *range(90, 120)]
    assert whole.target.sum() == 2


def test_stretches_and_contradictions_by_hand() -> None:
    told = labels(
        SuccessLabel(0, "success", 3, 2), SuccessLabel(0, "failure", 4, 2), SuccessLabel(0, "success", 4, 1)
    )
    steps = steps_of_labels(LOG, told)
    assert steps.rows.tolist() == [3, 4, 5]
    assert steps.target.tolist() == pytest.approx([1, 2 / 3, 0])


def test_a_column_labels_steps_by_what_they_led_to() -> None:
    flags = [np.arange(30) % 7 == 0 for _ in LOG.episodes]
    by_step = steps_of_column(with_column(flags), "next.success")
    by_observation = steps_of_column(
        with_column([np.concatenate([[True], f]) for f in flags]), "next.success"
    )
    assert not by_step.of_episodes
    assert torch.equal(by_step.target, torch.tensor(np.concatenate(flags)).float())
    assert torch.equal(by_observation.target, by_step.target)


def test_a_column_that_is_constant_in_every_episode_is_a_label_of_episodes() -> None:
    log = with_column([np.full(30, k % 2) for k in range(12)], "success")
    found = steps_of_column(log, "success")
    assert found.of_episodes
    assert found.rows.tolist() == [30 * k + 29 for k in range(12)]
    assert found.target.tolist() == [0.0, 1.0] * 6


def test_columns_that_are_no_flags_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"no column 'sucess'\. Did you mean 'success'"):
        steps_of_column(with_column([np.zeros(30)] * 12, "success"), "sucess")
    with pytest.raises(DataError, match=r"episode 0, field next.success, row 4: flag '0.5'"):
        steps_of_column(with_column([np.where(np.arange(30) == 4, 0.5, 0.0)] * 12), "next.success")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_labels_survive_a_file(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    told = labels(SuccessLabel(0, "success", 3, 2, "anna", 1.5), SuccessLabel(1, "skip"))
    again = read_labels(write_labels(told, tmp_path / f"labels{suffix}"))
    assert again == told
    assert again.digest() == told.digest()
    assert again.counts() == {"success": 1, "failure": 0, "skip": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "good"}, "field label, row 2"),
        ({"start": 3}, "field length, row 2: start and length are given together"),
        ({"episode": -1}, "field episode, row 2"),
        ({"dataset": "ab" * 16}, "field dataset, row 2: .* another log"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    row = {"dataset": LOG.content_hash, "episode": 0, "label": "success"}
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | change)}\n")
    with pytest.raises(DataError, match=message):
        read_labels(path)


def test_labels_of_another_log_or_of_no_step_are_refused() -> None:
    with pytest.raises(DataError, match="are about the log"):
        steps_of_labels(make_dataset(seed=4), labels(SuccessLabel(0, "success")))
    with pytest.raises(DataError, match="field episode, row 1: there is no episode 12"):
        steps_of_labels(LOG, labels(SuccessLabel(12, "success")))
    with pytest.raises(DataError, match="field length, row 1: steps 20 to 39"):
        steps_of_labels(LOG, labels(SuccessLabel(0, "success", 20, 20)))
    with pytest.raises(DataError, match="none of 1 labels"):
        steps_of_labels(LOG, labels(SuccessLabel(0, "skip")))


def test_labels_of_one_class_are_refused_with_what_to_do() -> None:
    every = [SuccessLabel(k, "success") for k in range(12)]
    with pytest.raises(DataError, match=r"all 12 labelled steps are success.*earlier=failure"):
        make_fit(steps_of_labels(LOG, labels(*every)))
    with pytest.raises(DataError, match="failure was labelled in 1 episode alone"):
        make_fit(steps_of_labels(LOG, labels(*every[1:], SuccessLabel(0, "failure"))))
    make_fit(steps_of_labels(LOG, labels(*every), earlier="failure"))


def test_an_episode_is_learned_from_or_judges_and_both_sides_have_both_classes() -> None:
    told = [SuccessLabel(k, "success" if k < 3 else "failure") for k in range(12)]
    steps = steps_of_labels(LOG, labels(*told), last_steps=4)
    for seed in range(10):
        train, held = split_episodes(steps, 0.2, torch.Generator().manual_seed(seed))
        assert not set(steps.episode[train].tolist()) & set(steps.episode[held].tolist())
        assert sorted([*train.tolist(), *held.tolist()]) == list(range(48))
        for side in (train, held):
            assert set(steps.target[side].tolist()) == {0.0, 1.0}
        assert len(torch.unique(steps.episode[held])) == 3


def test_members_learn_from_both_classes_and_stop_by_episodes_that_they_never_saw() -> None:
    told = [SuccessLabel(k, "success" if k < 3 else "failure") for k in range(12)]
    fit = make_fit(steps_of_labels(LOG, labels(*told), last_steps=4))
    for member in range(3):
        drawn = fit._draws[member]
        assert set(fit.train.target[drawn].tolist()) == {0.0, 1.0}
        assert set(fit.train.episode[drawn].tolist()).isdisjoint(
            fit.train.episode[fit._left_out[member]].tolist()
        )


def test_the_loss_of_a_batch_is_the_logistic_one() -> None:
    fit = make_fit(linear_steps())
    model = fit.start().model
    found = fit.losses(model, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for member in range(3):
        index = fit._draws[member][torch.randint(len(fit._draws[member]), (16,), generator=generator)]
        chosen = fit.train.take(index)
        x, y = model.raw(*chosen.inputs())[member].double(), chosen.target.double()
        p = 1 / (1 + torch.exp(-x))
        by_hand = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
        torch.testing.assert_close(found[member].double(), by_hand, atol=1e-6, rtol=0)


def test_a_linear_rule_is_found_and_calibrated() -> None:
    """Success is drawn from `sigmoid(3 w s)`: the logits must be 3 w s, not only point there."""
    rng, log = np.random.default_rng(0), make_dataset(count=300)
    truth = [3.0 * e.observations[:-1] @ WEIGHTS for e in log.episodes]
    drawn = [rng.random(30) < 1 / (1 + np.exp(-x)) for x in truth]
    episodes = tuple(
        dataclasses.replace(e, infos={"ok": v}) for e, v in zip(log.episodes, drawn, strict=True)
    )
    steps = steps_of_column(dataclasses.replace(log, episodes=episodes), "ok")
    config = SuccessConfig(members=2, hidden=(), max_updates=400, learning_rate=3e-2, unit="log_odds")
    fit = make_fit(steps, config)
    model = fit_reward(fit)
    found = model.reward(*log_steps(log)).numpy()
    x = np.concatenate(truth)
    assert np.corrcoef(found, x)[0, 1] > 0.99
    assert np.polyfit(x, found, 1) == pytest.approx([1.0, 0.0], abs=0.1)
    report = judge_steps(model, fit.holdout, share=float(fit.train.target.mean()))
    assert report.calibration_error < report.calibration_chance
    assert report.log_loss < report.log_loss_of_share
    assert report.episodes == 60


def test_recalibration_by_hand() -> None:
    """Of many groups targets are hardly drawn in, and `sigmoid(2 x + 1)` is found from x."""
    x = np.linspace(-3, 3, 2001)
    slope, shift = recalibrate(x, 1 / (1 + np.exp(-2 * x - 1)), groups=np.arange(2001))
    assert (slope, shift) == pytest.approx((2.0, 1.0), rel=0.02)
    # Where x tells nothing, what is left is the share of drawn-in targets: 3 groups of success, 1 of failure.
    _, shift = recalibrate(np.zeros(8), np.repeat([1.0, 1, 1, 0], 2), groups=np.repeat([0, 1, 2, 3], 2))
    mean = (3 * 4 / 5 + 1 / 3) / 4
    assert shift == pytest.approx(math.log(mean / (1 - mean)), abs=1e-4)
    # Labels that x tells perfectly are no certainty.
    slope, shift = recalibrate(np.array([-1.0, 1.0]), np.array([0.0, 1.0]), groups=np.array([0, 1]))
    assert (slope, shift) == pytest.approx((math.log(2), 0.0), abs=1e-4)
    # A member that tells the opposite keeps a positive factor.
    assert recalibrate(x, 1 / (1 + np.exp(x)), groups=np.arange(2001))[0] == pytest.approx(1e-2)


def test_probabilities_are_bounded_from_below_over_members() -> None:
    model = fit_reward(make_fit(linear_steps()))
    obs, action = (part[:9] for part in log_steps(LOG))
    odds = (model.raw(obs, action) - model.offset[:, None]) / model.scale[:, None]
    p = 1 / (1 + torch.exp(-odds))
    torch.testing.assert_close(model.members(obs, action), p)
    low = model.reward(obs, action, pessimism=1.5)
    torch.testing.assert_close(low, p.mean(0) - 1.5 * p.std(0, correction=0))


@pytest.mark.parametrize("reads", ["states", "steps"])
def test_a_reward_of_states_does_not_see_the_action(reads: str) -> None:
    spec = RewardSpec(SPACE, 2, (8,), reads=reads)  # pyright: ignore[reportArgumentType]
    model = RewardEnsemble(spec, make_normaliser(), torch.Generator().manual_seed(0))
    obs, action = (part[:9] for part in log_steps(LOG))
    other = action.flip(0)
    assert torch.equal(model.raw(obs, action), model.raw(obs, other)) == (reads == "states")
    both = [part.expand(2, *part.shape) for part in (obs, action)]
    torch.testing.assert_close(model.member_raw(*both), model.raw(obs, action))


def test_a_killed_fit_goes_on_to_the_same_bits() -> None:
    steps = linear_steps()
    whole = make_fit(steps)
    model = fit_reward(whole, whole.start())
    fit = make_fit(steps)
    state = fit.start()
    while state.updates < 17:
        fit.update(state)
    again, resumed = make_fit(steps), make_fit(steps).start()
    resumed.load_state_dict(state.state_dict())
    other = fit_reward(again, resumed)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_area_under_the_curve_by_hand() -> None:
    """Of 2 x 3 pairs of a success and a failure, 4 are in order and 1 is even."""
    score, target = np.array([0.9, 0.4, 0.4, 0.2, 0.5]), np.array([1.0, 1, 0, 0, 0])
    assert rank_area(score, target) == pytest.approx((3 + 1 + 0.5) / 6)
    assert rank_area(np.append(score, 9.0), np.append(target, 0.5)) == pytest.approx(4.5 / 6)


def test_a_channel_that_is_the_label_is_found() -> None:
    steps = linear_steps()
    assert find_leaks(LOG, steps, reads_actions=True) == []
    action = steps.action.clone()
    action[:, 1] = -steps.target
    leaking = dataclasses.replace(steps, action=action)
    assert find_leaks(LOG, leaking, reads_actions=True) == [LOG.act_names[1]]
    assert find_leaks(LOG, leaking, reads_actions=False) == []


def test_steps_of_one_episode_come_true_together() -> None:
    """20 episodes of 50 steps are no 1,000 cases: what chance explains is that of 20."""
    sure = np.full(1000, 0.8)
    together = chance_error(sure, groups=np.repeat(np.arange(20), 50))
    assert together > 2 * chance_error(sure)
    assert together == pytest.approx(chance_error(np.full(20, 0.8)), abs=0.03)
