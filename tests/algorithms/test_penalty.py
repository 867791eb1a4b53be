import dataclasses
import math

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.uncertainty.measures import MEASURES, StepContext
from tests.algorithms.toy import (
    HandModel,
    ens_std,
    hand_dynamics,
    imagined_rows,
    make_imagination,
    make_training,
    raw_ens_std,
    refresh,
    with_trusted_horizon,
)
from tests.run.toy import SPACE, transitions

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


# --- raw units ---

NO_CUT = {"truncation_quantile": None}


def test_raw_penalties_are_in_the_units_of_the_observations_and_use_no_scale_of_the_fit(toy):
    rows = imagined_rows(toy, penalty={"coef": 7.0, "units": "raw"}, rollout=NO_CUT)
    torch.testing.assert_close(rows.reward, rows.observation[:, 0] - 7.0 * raw_ens_std(rows.action))


def test_raw_penalties_leave_the_cut_where_the_data_put_it(toy):
    """Quantiles are stored in normalised units: 0.1 of `ens_std`, whatever the penalty is measured in."""
    training = make_training(toy, real_ratio=0, penalty={"units": "raw"}, rollout={"starts": 500})
    metrics = refresh(training)
    rows = training.source.state_dict()["1"]["rows"]
    beyond = ens_std(rows[:, 3:5]) > 0.1
    assert 0 < float(metrics["rollout/flagged_rate"]) == pytest.approx(float(beyond.double().mean()))


class NoisyModel(HandModel):
    """Members predict deviations 0.1, 0.5, 0.2 of one dimension, and none elsewhere, of changes of 0.1."""

    def predict(self, obs, action):
        posterior = super().predict(obs, action)
        variance = torch.zeros_like(posterior.variance)
        variance[..., 0] = torch.tensor([0.01, 0.25, 0.04])[:, None]
        return dataclasses.replace(
            posterior, variance=variance, delta_scale=torch.full((3,), 0.1), reward_scale=torch.tensor(7.0)
        )


def test_the_raw_penalty_of_mopo_is_the_largest_predicted_deviation_over_all_members(toy):
    """`lambda max_e ||sigma_e||` (Yu et al. 2020, section 4.3): 0.5 here; 5.0 in units of the changes."""
    noisy = dataclasses.replace(toy, model=NoisyModel(), thresholds={"max_aleatoric": {0.95: 4.0, 1.0: 5.0}})
    rollout = {**NO_CUT, "horizon": 1, "starts": 400}
    published = {"measure": "max_aleatoric", "coef": 3.0, "units": "raw"}
    metrics = refresh(make_training(noisy, real_ratio=0, penalty=published, rollout=rollout))
    assert float(metrics["rollout/uncertainty"]) == pytest.approx(0.5)
    assert float(metrics["rollout/penalty"]) == pytest.approx(1.5)
    free = refresh(
        make_training(noisy, real_ratio=0, penalty={**published, "units": "unit_free"}, rollout=rollout)
    )
    assert float(free["rollout/uncertainty"]) == pytest.approx(5.0 / 4.0)


# --- measures of others ---


def action_size(posterior, context=None):
    """Registered from outside of the package: no fit has stored its quantiles."""
    return context.action.abs().sum(-1)


def test_a_measure_from_outside_takes_its_unit_and_threshold_from_logged_rows(toy, monkeypatch):
    MEASURES.names()
    monkeypatch.setattr(MEASURES, "_table", dict(MEASURES._table))
    MEASURES.register("action_size")(action_size)
    size = transitions().action.abs().sum(-1).double()
    unit, threshold = (float(torch.quantile(size, q)) for q in (0.95, 0.99))
    imagination = make_imagination(toy, measure="action_size")
    assert imagination.threshold == pytest.approx(threshold / unit)
    action = torch.tensor([[0.5, -0.25]])
    assert float(read(imagination, action)) == pytest.approx(0.75 / unit)


def test_an_own_measure_without_stored_quantiles_is_refused(toy):
    with pytest.raises(ConfigError, match="stored no quantiles of the measure 'bellman'"):
        make_imagination(toy, measure="bellman")
