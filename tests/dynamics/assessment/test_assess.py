import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.data.splits import Split
from mbrl.dynamics.assessment.assess import assess
from mbrl.dynamics.assessment.calibration import calibrate
from mbrl.dynamics.config import AssessmentConfig
from mbrl.dynamics.report import TrainingReport
from mbrl.dynamics.termination import NeverTerminates
from tests.dynamics.systems import linear_ensemble, make_dataset

CONFIG = AssessmentConfig(horizon=8, segments=40, particles=50, bootstrap_draws=50)
TRAINING = TrainingReport(
    train_rows=1,
    holdout_rows=1,
    train_episodes=1,
    holdout_episodes=1,
    is_split_by_block=False,
    updates=(1,),
    member_errors=((0.0,),),
    member_best=(0.0,),
    elites=(0,),
)


def size_of_state(obs, action, episode, generator):
    del obs, action, episode, generator
    return {"size": lambda posterior, obs, action, outcome, episode: obs.square().sum(-1)}


def make_assessment(model, *, is_reward_exact=True):
    dataset = make_dataset(episodes=40, noise=0.05)
    if is_reward_exact:  # that of the model, s_0 + a
        rewards = [e.observations[:-1, 0] + e.actions[:, 0] for e in dataset.episodes]
        episodes = [dataclasses.replace(e, rewards=r) for e, r in zip(dataset.episodes, rewards, strict=True)]
        dataset = dataclasses.replace(dataset, episodes=tuple(episodes))
    split = Split(dataset.select(range(20)), dataset.select(range(20, 40)), is_by_block=False)
    rng = RngStreams(0)
    calibration = calibrate(model, split, config=CONFIG, kind="interval", rng=rng)
    return split, assess(
        model.with_temperature(calibration.temperature),
        NeverTerminates(),
        split,
        training=TRAINING,
        calibration=calibration.report,
        outliers=None,
        config=CONFIG,
        measures=size_of_state,
        rng=rng,
    )


def test_an_exact_model_is_trusted_and_nothing_that_was_given_changes():
    model = linear_ensemble(noise=0.05)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split, found = make_assessment(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = found.report
    assert report.training is TRAINING
    assert report.trusted_horizon == 8
    assert report.one_step.rmse == pytest.approx(
        [0.05, 0.05], rel=0.05
    )  # the noise, which nobody can predict
    rows = split.holdout.transitions()
    size = np.square(rows.observation.astype(float)).sum(1)
    both = np.concatenate((size, np.square(split.train.transitions().observation.astype(float)).sum(1)))
    assert found.thresholds["size"][0.9] == pytest.approx(np.quantile(both, 0.9), rel=1e-5)
    assert [text for text in report.warnings if "horizon" in text] == []


def test_a_wrong_reward_limits_the_horizon_of_a_model_that_is_exact_otherwise():
    _, found = make_assessment(linear_ensemble(noise=0.05), is_reward_exact=False)
    assert found.report.open_loop.observation_horizon == 8
    assert found.report.trusted_horizon == found.report.open_loop.reward_horizon < 8
    assert any(
        "Observations are trusted for 8 steps, the reward for" in text for text in found.report.warnings
    )


def test_a_wrong_model_is_warned_of():
    _, found = make_assessment(linear_ensemble(offsets=(2.0,), noise=0.05))
    assert found.report.trusted_horizon == 0
    assert any("trusted horizon is 0" in text for text in found.report.warnings)
