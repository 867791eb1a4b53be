import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.nets.normaliser import Normaliser
from mbrl.uncertainty.held_out import held_out_measures
from tests.algorithms.toy import (
    LEARNER,
    ens_std,
    hand_dynamics,
    imagined_rows,
    make_config,
    make_context,
    make_training,
    raw_ens_std,
    refresh,
    with_trusted_horizon,
)
from tests.run.toy import SPACE, TINY_DYNAMICS, make_episodes, transitions

NO_CUT = {"truncation_quantile": None}

# --- penalties ---


@pytest.mark.parametrize("coef", [0.5, 2.0])
def test_stored_rewards_are_penalised_by_coef_times_reward_deviation_times_unit_free_uncertainty(toy, coef):
    rows = imagined_rows(toy, penalty={"coef": coef}, rollout=NO_CUT)
    unit_free = ens_std(rows.action) / 0.05
    torch.testing.assert_close(rows.reward, rows.observation[:, 0] - coef * 3.0 * unit_free)
    assert unit_free.max() > 1.5  # the draws reach beyond the data


def test_a_unit_free_uncertainty_counts_for_ten_at_most(fitted):
    toy = hand_dynamics(fitted, quantiles={0.95: 0.005})
    rows = imagined_rows(toy, penalty={"coef": 1.0}, rollout=NO_CUT)
    unit_free = ens_std(rows.action) / 0.005
    assert unit_free.min() < 10 < unit_free.max()
    expected = rows.observation[:, 0] - 3.0 * unit_free.clamp_max(10)
    torch.testing.assert_close(rows.reward, expected)


def test_the_reported_penalty_is_the_mean_over_what_was_stored(toy):
    training = make_training(toy, real_ratio=0, penalty={"coef": 2.0}, rollout={"starts": 300, "horizon": 1})
    metrics = refresh(training)
    rows = training.source.state_dict()["1"]["rows"]
    action, obs, reward = rows[:, 3:5], rows[:, 0], rows[:, -3]
    assert float(metrics["rollout/penalty"]) == pytest.approx(float((obs - reward).mean()), rel=1e-4)
    assert float(metrics["rollout/penalty"]) == pytest.approx(
        6 * float(ens_std(action).mean()) / 0.05, rel=1e-4
    )


def test_a_halted_step_earns_the_halt_reward_and_no_penalty(toy):
    rows = imagined_rows(
        toy,
        penalty={"coef": 1.0},
        rollout={"flagged": "halt", "halt_reward": -50.0, "truncation_quantile": 0.99},
    )
    halted = ens_std(rows.action) > 0.1
    assert 0 < int(halted.sum()) < len(rows)
    assert torch.equal(rows.terminated, halted)
    assert (rows.reward[halted] == -50.0).all()
    calm = rows.observation[:, 0] - 3.0 * ens_std(rows.action) / 0.05
    torch.testing.assert_close(rows.reward[~halted], calm[~halted])


def scaled_rows(obs_scale: float, reward_scale: float):
    """Imagined rows of a real fit on the toy's episodes with observation dimension 1 and rewards rescaled."""
    factor = np.array([1.0, obs_scale, 1.0], np.float32)
    episodes = tuple(
        Episode(
            e.observations * factor,
            e.actions,
            e.rewards * np.float32(reward_scale),
            terminated=e.terminated,
            truncated=e.truncated,
        )
        for e in make_episodes()
    )
    dataset = Dataset(episodes, SPACE, DatasetInfo(name="toy"))
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    dynamics = with_trusted_horizon(
        fit_dynamics(dataset, config, RngStreams(0), measures=held_out_measures), 5
    )
    normaliser = Normaliser(torch.zeros(3), torch.from_numpy(factor))
    context = RecipeContext(SPACE, normaliser, dataset.transitions().to_batch(), dynamics)
    training = RECIPES.get("mopo").build(make_config(real_ratio=0), context)
    metrics = refresh(training)
    return training.source.sample(200, RngStreams(3).at("batch")), metrics, dynamics


def test_units_of_a_dimension_and_of_the_reward_leave_the_penalty_alone():
    # Powers of two: the arithmetic is then exact, and nothing hides behind a tolerance.
    plain, plain_metrics, plain_fit = scaled_rows(1.0, 1.0)
    other, other_metrics, other_fit = scaled_rows(1024.0, 4.0)
    assert other_fit.thresholds["ens_std"] == plain_fit.thresholds["ens_std"]
    assert other_fit.reward_scale == pytest.approx(4 * plain_fit.reward_scale, rel=1e-6)
    factor = torch.tensor([1.0, 1024.0, 1.0])
    torch.testing.assert_close(other.observation / factor, plain.observation)
    torch.testing.assert_close(other.next_observation / factor, plain.next_observation)
    torch.testing.assert_close(other.reward / 4, plain.reward, rtol=1e-4, atol=1e-5)
    assert float(plain_metrics["rollout/penalty"]) > 0
    for name in ("rollout/uncertainty", "rollout/flagged_rate", "rollout/length"):
        assert float(other_metrics[name]) == pytest.approx(float(plain_metrics[name]), rel=1e-5)


# --- truncation and the trusted horizon ---


def test_rollouts_stop_where_the_uncertainty_passes_its_quantile_on_the_data(toy):
    training = make_training(toy, real_ratio=0, rollout={"horizon": 4, "starts": 500})
    metrics = refresh(training)
    rows = training.source.state_dict()["1"]["rows"]
    beyond = ens_std(rows[:, 3:5]) > 0.1
    assert float(metrics["rollout/flagged_rate"]) == pytest.approx(float(beyond.double().mean()))
    survivors = 500
    first = 0
    for _ in range(4):  # rows are stored step by step; a flagged one has no successor
        step = beyond[first : first + survivors]
        first, survivors = first + survivors, survivors - int(step.sum())
    assert first == len(rows)


@pytest.mark.parametrize(("trusted", "horizon"), [(2, 2), (4, 3), (5, 3)])
def test_the_trusted_horizon_shortens_rollouts_and_never_lengthens_them(toy, trusted, horizon):
    training = make_training(with_trusted_horizon(toy, trusted), rollout=NO_CUT)
    metrics = refresh(training)
    assert float(metrics["rollout/length"]) == horizon
    assert float(metrics["rollout/beyond_trusted_rate"]) == 0


def test_going_beyond_the_trusted_horizon_is_a_choice_and_is_reported(toy):
    rollout = {**NO_CUT, "respect_trusted_horizon": False}
    metrics = refresh(make_training(with_trusted_horizon(toy, 2), rollout=rollout))
    assert float(metrics["rollout/length"]) == 3
    assert float(metrics["rollout/beyond_trusted_rate"]) == pytest.approx(1 / 3)


def test_a_model_that_cannot_be_trusted_for_one_step_is_refused(toy):
    with pytest.raises(ConfigError, match=r"trusted horizon .* is 0.*respect_trusted_horizon=false"):
        make_training(with_trusted_horizon(toy, 0))
    make_training(with_trusted_horizon(toy, 0), rollout={"respect_trusted_horizon": False})


def test_dropping_every_step_says_so(toy):
    certain = hand_dynamics(toy, quantiles={0.95: 0.0, 0.99: 0.0})
    training = make_training(certain, rollout={"flagged": "drop"})
    with pytest.raises(ConfigError, match=r"Nothing was imagined at update 7.*flagged=keep"):
        refresh(training, step=7)


# --- the stream ---


@pytest.mark.parametrize(
    ("ratio", "batch", "real"), [(0.5, 16, 8), (0.05, 256, 13), (0.0, 16, 0), (0.3, 5, 2)]
)
def test_a_batch_holds_the_rounded_share_of_logged_rows_and_marks_the_others(toy, ratio, batch, real):
    training = make_training(toy, real_ratio=ratio, learner={**LEARNER, "batch_size": batch})
    refresh(training)
    sample = training.source.sample(training.batch_size, torch.Generator().manual_seed(0))
    assert training.batch_size == len(sample) == batch
    assert int((~sample.from_model).sum()) == real
    logged = {tuple(row.tolist()) for row in torch.cat([transitions().observation, transitions().action], -1)}
    pairs = torch.cat([sample.observation, sample.action], -1)
    for row, from_model in zip(pairs.tolist(), sample.from_model.tolist(), strict=True):
        assert (tuple(row) in logged) is not from_model


def test_real_ratio_one_needs_no_model_and_never_refreshes():
    training = make_training(None, real_ratio=1)
    assert training.refresh is None
    assert not training.source.sample(64, torch.Generator().manual_seed(0)).from_model.any()


def test_rollouts_start_from_logged_observations(toy):
    training = make_training(toy, real_ratio=0, rollout={"horizon": 1, "starts": 200})
    refresh(training)
    starts = training.source.state_dict()["1"]["rows"][:, :3]
    logged = {tuple(row) for row in transitions().observation.tolist()}
    assert all(tuple(row) in logged for row in starts.tolist())
    assert len(torch.unique(starts, dim=0)) > 100  # uniform over many, not a few


def test_the_buffer_holds_the_last_refreshes(toy):
    training = make_training(toy, retain=2, rollout=NO_CUT)
    contents = []
    for step in range(4):
        metrics = refresh(training, step)
        contents.append(training.source.state_dict()["1"]["rows"][-120:])
    rows = training.source.state_dict()["1"]["rows"]
    assert len(rows) == 2 * 40 * 3
    assert float(metrics["rollout/age"]) == 0.5
    for kept, stored in ((2, rows[:120]), (3, rows[120:])):
        alone = make_training(toy, rollout=NO_CUT)
        refresh(alone, kept)
        assert torch.equal(stored, alone.source.state_dict()["1"]["rows"])


def test_values_may_be_as_low_as_sustained_penalties_make_them(toy):
    reward = transitions().reward
    low, high = float(reward.min()), float(reward.max())
    assert high < 0
    unit = float(torch.quantile(raw_ens_std(transitions().action).double(), 0.95))
    for changes, lowest in (
        ({"penalty": {"coef": 2.0}}, low - 2.0 * 3.0 * 0.1 / 0.05),  # up to the threshold
        ({"penalty": {"coef": 2.0}, "rollout": NO_CUT}, low - 2.0 * 3.0 * 10),  # up to the cap
        ({"penalty": {"coef": 2.0, "units": "raw"}}, low - 2.0 * 10 * unit),  # ten times what the data show
        ({"penalty": {"coef": 0.0}, "rollout": NO_CUT}, low),
        ({"penalty": {"coef": 0.0}, "rollout": {"flagged": "halt"}}, low),
    ):
        bounds = make_training(toy, **changes).value_bounds
        assert bounds == pytest.approx((100 * lowest, high), rel=1e-4)
    for halt_reward in (-1e5, 1.0):  # earned once, as the last
        rollout = {"flagged": "halt", "halt_reward": halt_reward}
        bounds = make_training(toy, penalty={"coef": 0.0}, rollout=rollout).value_bounds
        assert bounds == pytest.approx((min(100 * low, halt_reward), max(high, halt_reward)), rel=1e-4)


# --- mbpo ---


def test_mbpo_computes_no_uncertainty(toy):
    training = make_training(toy, "mbpo")
    metrics = refresh(training)
    assert toy.model.full_predictions == 0
    assert float(metrics["rollout/uncertainty"]) == float(metrics["rollout/penalty"]) == 0
    refresh(make_training(toy, "mopo"))
    assert toy.model.full_predictions == 3  # one for each step


def test_mbpo_is_mopo_with_a_penalty_of_zero(fitted):
    toy = hand_dynamics(fitted, quantiles={0.95: 0.05, 0.99: 1e9})
    free = imagined_rows(toy, "mbpo")
    watched = imagined_rows(toy, "mopo", penalty={"coef": 0.0})
    assert toy.model.full_predictions == 3
    for field in dataclasses.fields(free):
        torch.testing.assert_close(getattr(free, field.name), getattr(watched, field.name), rtol=0, atol=0)


def test_setting_one_key_of_a_section_leaves_mbpo_unguarded():
    config = make_config("mbpo", rollout={"horizon": 7}, penalty={"measure": "max_dev"})
    assert config.rollout.truncation_quantile is None
    assert config.rollout.horizon == 7
    assert (config.penalty.coef, config.penalty.measure) == (0.0, "max_dev")
    asked = make_config("mbpo", rollout={"truncation_quantile": 0.9}, penalty={"coef": 2.0})
    assert (asked.rollout.truncation_quantile, asked.penalty.coef) == (0.9, 2.0)


@pytest.mark.parametrize("recipe", ["mopo", "mbpo"])
def test_what_is_missing_is_named_together_with_the_recipe(recipe):
    for context, what in (
        (make_context(None), "needs a fitted dynamics model"),
        (make_context(None, transitions=None), "name a dataset"),
    ):
        with pytest.raises(ConfigError, match=f"{recipe.upper()} .*{what}"):
            RECIPES.get(recipe).build(make_config(recipe), context)


@pytest.mark.parametrize(
    "bad",
    [
        {"real_ratio": 1.1},
        {"retain": 0},
        {"refresh_interval": 0},
        {"penalty": {"coef": -1}},
        {"penalty": {"coef": math.inf}},
        {"penalty": {"units": "metres"}},
        {"termination": "known"},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        make_config(**bad)
