import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.data.normaliser import fit_moments, measure_moments


@given(st.integers(0, 1000), st.sampled_from([1, 2, 65536, 65537]))
def test_equals_numpy_in_float64(seed: int, count: int):
    values = np.random.default_rng(seed).normal(3.0, 2.0, (count, 2)).astype(np.float32)
    mean, std = fit_moments(values)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(0), rtol=1e-9)
    expected = values.astype(np.float64).std(0)
    np.testing.assert_allclose(std, expected if count > 1 else np.maximum(1.0, np.abs(mean)), rtol=1e-9)


def test_large_offset_keeps_its_digits():
    """A float32 sum of a million values near 1000 would lose the deviation of 0.01."""
    values = (1000.0 + 0.01 * np.resize([-1.0, 1.0], 1_000_000)).astype(np.float32)
    mean, std = fit_moments(values)
    assert float(mean) == pytest.approx(1000.0, abs=1e-6)
    assert float(std) == pytest.approx(0.01, rel=2e-3)  # rounding of the inputs themselves


def test_the_scale_of_a_constant_dimension_is_its_size_and_at_least_1():
    values = np.array([[5.5, 0.0, 1e-6, -0.5], [5.5, 0.0, 2e-6, -0.5]], dtype=np.float32)
    mean, scale = fit_moments(values)
    assert scale[[0, 1, 3]].tolist() == [5.5, 1.0, 1.0]
    assert scale[2] == pytest.approx(5e-7, rel=1e-4)  # small is not constant
    assert mean[0] == 5.5
    assert fit_moments(values, floor=1e-5)[1].tolist() == [5.5, 1.0, 1.0, 1.0]
    moments = measure_moments(values)
    assert moments.is_constant.tolist() == [True, True, False, True]
    assert moments.std[0] == 0.0


def test_noise_below_the_resolution_of_float32_is_constant():
    values = np.array([[1.0e6], [1.0e6 + 0.0625]], dtype=np.float32)
    assert fit_moments(values)[1].tolist() == [1e6 + 0.03125]


def test_a_sensor_at_rest_is_no_signal_and_a_shift_of_it_is_small():
    """0.5 with noise of 1e-6: a shift of 0.01 was 10,000 standard deviations."""
    values = (0.5 + 1e-6 * np.random.default_rng(0).normal(size=(5000, 1))).astype(np.float32)
    mean, scale = fit_moments(values)
    assert measure_moments(values).is_constant.tolist() == [True]
    assert float((np.abs(values - mean) / scale).max()) < 1e-5
    assert float((0.51 - mean[0]) / scale[0]) < 0.02


def test_a_signal_on_a_large_offset_stays_one():
    """Easting in metres, pressure in pascal: 2e-5 and 2e-4 of the size."""
    noise = np.random.default_rng(0).normal(size=(5000, 2))
    values = (np.array([5e5, 1e5]) + np.array([10.0, 20.0]) * noise).astype(np.float32)
    assert fit_moments(values)[1] == pytest.approx([10.0, 20.0], rel=0.05)


def test_no_rows():
    with pytest.raises(ValueError, match="empty"):
        fit_moments(np.zeros((0, 3)))
