import numpy as np
import pytest
import torch
from scipy import stats

from mbrl.off_policy.log.behaviour_heads import CategoricalHead, MixtureHead, expected_calibration_error


def test_the_calibration_error_of_probabilities_is_the_gap_in_each_bin():
    confidence = np.array([0.65, 0.65, 0.65, 0.65, 1.0, 0.95])
    is_hit = np.array([True, True, False, False, True, False])
    # 0.65 in bin 9: |2 - 2.6|; 1.0 and 0.95 in bin 14: |1 - 1.95|
    assert expected_calibration_error(confidence, is_hit) == pytest.approx((0.6 + 0.95) / 6)
    assert expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0.0


def test_a_uniform_transform_has_the_distance_of_kolmogorov():
    u = (np.arange(100) + 0.5) / 100
    head = MixtureHead(1, 1)
    assert head.calibration_error(u[:, None]) == pytest.approx(0.005)
    assert head.calibration_error(np.stack([u, u**2], 1)) == pytest.approx(
        stats.kstest(u**2, "uniform").statistic
    )


def test_one_component_is_a_gaussian():
    head = MixtureHead(2, 1)
    out = torch.tensor([[0.0, 1.0, -1.0, 0.5, 0.0]])  # one logit, two means, two log-deviations
    found = head.log_prob(out, torch.tensor([[0.3, 0.2]]))
    expected = stats.norm.logpdf([0.3, 0.2], [1.0, -1.0], np.exp([0.5, 0.0])).sum()
    assert head.size == 5
    assert float(found) == pytest.approx(expected, rel=1e-5)
    transformed = head.transform(out, torch.tensor([[0.3, 0.2]]))
    assert transformed[0].tolist() == pytest.approx(
        stats.norm.cdf([0.3, 0.2], [1.0, -1.0], np.exp([0.5, 0.0])), rel=1e-5
    )


def test_logits_give_the_probability_of_what_was_done():
    head = CategoricalHead(3)
    out = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]))
    done = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert head.log_prob(out, done).exp().tolist() == pytest.approx([0.3, 0.6], rel=1e-5)
    assert head.transform(out, done).flatten().tolist() == pytest.approx([0.5, 0.0, 0.6, 1.0], rel=1e-5)
