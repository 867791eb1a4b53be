import dataclasses
import math

import pytest
import torch

from mbrl.algorithms.imagination import choose_termination, imagine, imagined_value_bounds, limit_horizon
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.errors import ConfigError
from mbrl.dynamics.termination import NeverTerminates
from mbrl.envs.specs import TaskSpec, TerminationRule
from mbrl.rollouts.box import Box
from mbrl.rollouts.config import RolloutConfig
from mbrl.uncertainty.measures import StepContext
from tests.algorithms.toy import (
    ens_std,
    hand_dynamics,
    make_context,
    make_training,
    refresh,
    with_trusted_horizon,
)
from tests.run.toy import SPACE, transitions


def make_imagination(dynamics, *, rollout=None, **penalty):
    config = RolloutConfig(**(rollout or {}))
    return imagine(
        config,
        UncertaintyRule.make(config, PenaltyConfig(**penalty), dynamics, transitions=transitions()),
        dynamics,
        termination=NeverTerminates(),
        transitions=transitions(),
    )


def task(**rule) -> TaskSpec:
    return TaskSpec(
        name="walled",
        obs_dim=SPACE.obs_dim,
        act_dim=SPACE.act_dim,
        act_low=SPACE.act_low,
        act_high=SPACE.act_high,
        termination=TerminationRule(**rule) if rule else None,
    )


# --- thresholds ---


def test_the_threshold_is_the_stored_quantile_over_the_unit_quantile(toy):
    assert make_imagination(toy).threshold == pytest.approx(0.1 / 0.05)
    assert make_imagination(toy, rollout={"truncation_quantile": 1.0}).threshold == pytest.approx(3.0)
    assert make_imagination(toy, units="raw").threshold == 0.1
    assert make_imagination(toy, rollout={"truncation_quantile": None}).threshold == math.inf


def read(imagination, action):
    obs = torch.zeros(len(action), SPACE.obs_dim)
    posterior = imagination.model.predict(obs, action)
    context = StepContext(obs=obs, action=action, reference=imagination.reference)
    return imagination.measure(posterior, context)


@pytest.mark.parametrize("largest", [0.14, 0.9])
def test_a_step_is_flagged_where_the_raw_measure_passes_the_quantile_even_beyond_the_cap(fitted, largest):
    toy = hand_dynamics(fitted, quantiles={0.95: 0.01, 1.0: largest})  # 14 and 90 units; penalties stop at 10
    imagination = make_imagination(toy, rollout={"truncation_quantile": 1.0})
    action = torch.linspace(0.0, 30.0, 400)[:, None].expand(-1, 2)
    flagged = read(imagination, action) > imagination.threshold
    assert torch.equal(flagged, ens_std(action) > largest)
    assert 0 < int(flagged.sum()) < 400


def test_where_the_data_know_no_uncertainty_any_is_flagged(fitted):
    toy = hand_dynamics(fitted, quantiles={0.95: 0.0, 0.99: 0.0})
    imagination = make_imagination(toy)
    action = torch.tensor([[0.0, 0.0], [1e-3, 0.0]])
    assert (read(imagination, action) > imagination.threshold).tolist() == [False, True]


def test_knn_measures_the_distance_to_the_training_rows(fitted):
    logged = transitions()
    imagination = make_imagination(with_trusted_horizon(fitted, 5), measure="knn", units="raw")
    reference = imagination.reference
    expected = reference.distance(logged.observation[:50] + 0.3, logged.action[:50])
    posterior = imagination.model.predict(logged.observation[:50], logged.action[:50])
    context = StepContext(logged.observation[:50] + 0.3, logged.action[:50], reference)
    torch.testing.assert_close(imagination.measure(posterior, context), expected)
    metrics = refresh(make_training(with_trusted_horizon(fitted, 5), penalty={"measure": "knn"}))
    assert float(metrics["rollout/uncertainty"]) > 0


def test_every_measure_that_a_fit_stores_can_drive_rollouts(fitted):
    trusted = with_trusted_horizon(fitted, 5)
    assert set(trusted.thresholds) >= {"ens_std", "max_aleatoric", "max_dev", "max_pair", "total_std", "knn"}
    for measure in trusted.thresholds:
        metrics = refresh(make_training(trusted, penalty={"measure": measure}))
        assert 0 < float(metrics["rollout/penalty"]) < 10 * trusted.reward_scale, measure


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("ens_sdt", r"Unknown uncertainty measure 'ens_sdt'.*ens_std"),
        ("bellman", r"no quantiles of the measure 'bellman'.*one of ens_std"),
    ],
)
def test_a_measure_without_quantiles_is_refused(toy, measure, message):
    with pytest.raises(ConfigError, match=message):
        make_imagination(toy, measure=measure)


def test_an_unknown_measure_is_no_matter_where_nothing_reads_it(toy):
    imagination = make_imagination(toy, rollout={"truncation_quantile": None}, measure="bellman", coef=0)
    assert imagination.measure is None


def test_a_quantile_that_was_not_stored_is_refused_with_the_legal_ones(toy):
    with pytest.raises(
        ConfigError, match=r"truncation_quantile=0\.9 is not among .*0\.95, 0\.99, 1\.0.*fit again"
    ):
        make_imagination(toy, rollout={"truncation_quantile": 0.9})


# --- horizon ---


@pytest.mark.parametrize(
    ("trusted", "respects", "expected"), [(2, True, 2), (9, True, 5), (2, False, 5), (0, False, 5)]
)
def test_limit_horizon(toy, trusted, respects, expected):
    rollout = RolloutConfig(horizon=5, starts=77, respect_trusted_horizon=respects)
    limited = limit_horizon(rollout, with_trusted_horizon(toy, trusted))
    assert limited == rollout.model_copy(update={"horizon": expected})


# --- termination ---


def test_the_learned_head_is_the_one_of_the_fit(fitted):
    assert choose_termination("learned", make_context(fitted), fitted) is fitted.termination


def test_never_and_the_known_rule_answer_for_themselves(fitted):
    obs = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [math.nan, 0.0, 0.0]])
    action = torch.zeros(3, 2)
    context = make_context(fitted, task=task(bounds={0: (-2.0, 2.0)}))
    assert choose_termination("never", context, fitted)(obs, action, obs).tolist() == [0, 0, 0]
    assert choose_termination("task", context, fitted)(obs, action, obs).tolist() == [0, 1, 1]


def test_a_known_rule_that_does_not_exist_is_refused(fitted):
    with pytest.raises(ConfigError, match=r"no task is known.*termination=learned"):
        choose_termination("task", make_context(fitted), fitted)
    with pytest.raises(ConfigError, match=r"the task 'walled' declares none.*termination=learned"):
        choose_termination("task", make_context(fitted, task=task()), fitted)


# --- ranges ---


def test_the_box_spans_observations_successors_and_rewards():
    logged = transitions()
    far = logged.next_observation.clone()
    far[3, 1] = 77.0
    box = Box.around(dataclasses.replace(logged, next_observation=far))
    assert float(box.obs_high[1]) == 77.0
    assert torch.equal(box.obs_low, torch.minimum(logged.observation, far).amin(0))
    assert (float(box.reward_low), float(box.reward_high)) == (
        float(logged.reward.min()),
        float(logged.reward.max()),
    )


def test_rollouts_are_clipped_to_the_box_only_on_request(toy):
    assert make_imagination(toy).box is None
    box = make_imagination(toy, rollout={"clip_to_data": True}).box
    assert torch.equal(box.obs_high, Box.around(transitions()).obs_high)


def test_without_a_way_to_halt_the_halt_reward_does_not_count(toy):
    logged = transitions()
    rollout = RolloutConfig(flagged="halt", halt_reward=-1e5, truncation_quantile=None)
    rule = UncertaintyRule.make(rollout, PenaltyConfig(coef=0.0), toy, transitions=logged)
    bounds = imagined_value_bounds(logged, rule, rollout=rollout, discount=0.9)
    assert bounds == pytest.approx((10 * float(logged.reward.min()), float(logged.reward.max())))
