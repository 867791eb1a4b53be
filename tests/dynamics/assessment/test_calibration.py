import math

import numpy as np
import pytest
import scipy.stats
import torch

from mbrl.core.rng import RngStreams
from mbrl.data.splits import Split, halves
from mbrl.dynamics.assessment.calibration import (
    LEVELS,
    believed_temperature,
    calibrate,
    coverage_at,
    fit_temperature,
    measure_calibration,
    probability_transform,
)
from mbrl.dynamics.assessment.one_step import HeldOutSteps, predict_held_out
from mbrl.dynamics.config import AssessmentConfig
from tests.dynamics.systems import linear_ensemble, make_dataset

KINDS = ["interval", "likelihood"]


def heteroscedastic(rows=6000, *, scale=1.0, seed=0, members=3):
    """Exact members for `y ~ N(0, sigma(x)^2)`; their deviations multiplied by `scale`."""
    rng = np.random.default_rng(seed)
    sigma = np.exp(rng.uniform(-1, 1, (rows, 2)))
    target = torch.tensor(sigma * rng.standard_normal((rows, 2)))
    std = torch.tensor(scale * sigma).expand(members, rows, 2)
    return HeldOutSteps(torch.zeros(members, rows, 2, dtype=torch.float64), std, target)


def coverage(steps, level=0.9):
    return coverage_at(probability_transform(steps), level)


def test_exact_members_are_calibrated():
    result = measure_calibration(heteroscedastic())
    assert np.abs(result.coverage - np.array(LEVELS)[:, None]).max() < 0.025
    assert result.ece.max() < 0.02
    assert result.histogram.sum(0).tolist() == [6000, 6000]
    assert result.ks.max() < 0.03


def test_transform_agrees_with_scipy_and_a_mixture_is_its_average():
    mean = torch.tensor([[[0.0]], [[2.0]]], dtype=torch.float64)
    std = torch.tensor([[[1.0]], [[0.5]]], dtype=torch.float64)
    pit = probability_transform(HeldOutSteps(mean, std, torch.tensor([[1.5]], dtype=torch.float64)))
    expected = 0.5 * (scipy.stats.norm.cdf(1.5) + scipy.stats.norm.cdf(1.5, 2.0, 0.5))
    assert float(pit) == pytest.approx(expected, abs=1e-12)


def test_ks_and_nll_agree_with_scipy():
    steps = heteroscedastic(500, scale=0.7)
    pit = probability_transform(steps)[:, 0].numpy()
    result = measure_calibration(steps)
    assert result.ks[0] == pytest.approx(scipy.stats.kstest(pit, "uniform").statistic, abs=1e-12)
    density = scipy.stats.norm.logpdf(steps.target[:, 0], 0.0, steps.std[0, :, 0])
    assert result.nll[0] == pytest.approx(-density.mean(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_halved_deviations_are_doubled_and_coverage_is_restored(kind):
    temperature = fit_temperature(heteroscedastic(scale=0.5, seed=1), kind)
    assert temperature.tolist() == pytest.approx([2.0, 2.0], rel=0.04)
    other = heteroscedastic(scale=0.5, seed=2)
    assert coverage(other).max() < 0.65
    restored = coverage(other.scaled(temperature))
    assert 0.88 <= restored.min() <= restored.max() <= 0.92


def test_only_the_interval_survives_a_heavy_tail():
    def heavy(seed):
        steps = heteroscedastic(seed=seed)
        target = steps.target.clone()
        target[::100] *= 40.0  # one row in a hundred is far out
        return HeldOutSteps(steps.mean, steps.std, target)

    by_interval, by_likelihood = (fit_temperature(heavy(1), kind) for kind in KINDS)
    assert 0.88 <= coverage(heavy(2).scaled(by_interval)).min() <= 0.92
    assert coverage(heavy(2).scaled(by_likelihood)).min() > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_two_points_fitted_by_one_gaussian_stay_flagged(kind):
    signs = torch.tensor(np.random.default_rng(0).choice([-1.0, 1.0], (4000, 1)))
    steps = HeldOutSteps(torch.zeros(2, 4000, 1).double(), torch.ones(2, 4000, 1).double(), signs)
    result = measure_calibration(steps.scaled(fit_temperature(steps, kind)))
    assert result.ece[0] > 0.05
    assert (result.histogram > 0).sum() == 2


def test_members_that_dispute_more_than_they_err_keep_a_deviation():
    rng = np.random.default_rng(0)
    target = torch.tensor(0.1 * rng.standard_normal((3000, 1)))
    offsets = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)[:, None, None]
    steps = HeldOutSteps(offsets.expand(5, 3000, 1), torch.full((5, 3000, 1), 0.5).double(), target)
    assert coverage(steps.scaled(torch.tensor([1e-3]).double())).item() > 0.9  # the means alone cover it
    temperature = fit_temperature(steps, "interval")
    z = ((target - offsets) / 0.5).abs().flatten()
    assert temperature.item() == pytest.approx(0.5 * np.quantile(z, 0.9) / 1.6448536, rel=0.01)


def test_no_recalibration_is_a_factor_of_one():
    assert fit_temperature(heteroscedastic(100), "none").tolist() == [1.0, 1.0]


def _episodes(scales, rows=2000):
    """Rows of episodes that each need the factor `scales[i]`, and the episode of each row."""
    parts = [heteroscedastic(rows, scale=1.0 / scale, seed=k) for k, scale in enumerate(scales)]
    steps = HeldOutSteps(
        torch.cat([part.mean for part in parts], 1),
        torch.cat([part.std for part in parts], 1),
        torch.cat([part.target for part in parts]),
    )
    return steps, np.repeat(np.arange(len(scales)), rows)


def test_narrower_only_as_far_as_episodes_agree():
    few, many = _episodes([0.5] * 2), _episodes([0.5] * 60, rows=200)
    # Two that agree: s^2 = 2 * 0.25 / 3, w = 0.09 / (0.09 + s^2 / 2); the fitted factors are all about 0.5.
    weight = 0.09 / (0.09 + 0.5 / 3 / 2)
    assert believed_temperature(*few, "interval").tolist() == pytest.approx([0.5**weight] * 2, rel=0.03)
    # 32 groups of sixty: what they agree on is nearly all believed.
    weight = 0.09 / (0.09 + 0.5 / 33 / 32)
    assert believed_temperature(*many, "interval").tolist() == pytest.approx([0.5**weight] * 2, rel=0.04)
    # Two that differ by a factor e^2 are believed less than two that agree.
    apart = _episodes([0.5 * math.e, 0.5 / math.e])
    together = fit_temperature(apart[0], "interval")
    weight = 0.09 / (0.09 + (0.5 + 2.0) / 3 / 2)
    expected = torch.where(together < 1, together**weight, together).tolist()
    assert believed_temperature(*apart, "interval").tolist() == pytest.approx(expected, rel=0.02)


def test_wider_is_believed_at_once():
    steps, unit = _episodes([2.0])
    assert torch.equal(believed_temperature(steps, unit, "interval"), fit_temperature(steps, "interval"))
    steps, unit = _episodes([1.0, 0.5])
    assert believed_temperature(steps, unit, "none").tolist() == [1.0, 1.0]


def test_calibration_returns_a_temperature_and_leaves_the_model_alone():
    dataset = make_dataset(episodes=30, noise=0.1)
    split = Split(train=dataset, holdout=dataset, is_by_block=False)
    model = linear_ensemble(noise=0.05)  # half of the true deviation
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = calibrate(model, split, config=AssessmentConfig(), kind="interval", rng=RngStreams(0))
    assert fitted.temperature[:2].tolist() == pytest.approx([2.0, 2.0], rel=0.08)
    assert fitted.report.temperature == pytest.approx(fitted.temperature.tolist(), rel=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fitted.report.rows + fitted.report.fit_rows == dataset.num_transitions
    # It is fitted on one half and reported on the other.
    first, second = halves(dataset, RngStreams(0).at("halves"))
    steps = [predict_held_out(model, half.transitions()) for half in (first, second)]
    unit = first.transitions().unit
    assert torch.equal(fitted.temperature, believed_temperature(steps[0], unit, "interval"))
    judged = measure_calibration(steps[1].scaled(fitted.temperature))
    assert fitted.report.ece == pytest.approx(judged.ece.tolist())
    assert fitted.report.ece_before == pytest.approx(measure_calibration(steps[1]).ece.tolist())
    assert fitted.report.nll_raw == pytest.approx(judged.nll.mean())  # targets of deviation 1
    assert 0 not in fitted.report.flagged
    assert fitted.report.coverage(0.9) < 1.0
    again = calibrate(
        model.with_temperature(fitted.temperature),
        split,
        config=AssessmentConfig(),
        kind="interval",
        rng=RngStreams(0),
    )
    assert torch.equal(again.temperature, fitted.temperature)  # a temperature that it had does not count
