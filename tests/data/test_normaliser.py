import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.data.normaliser import fit_moments


@given(st.integers(0, 1000), st.sampled_from([1, 2, 65536, 65537]))
def test_equals_numpy_in_float64(seed: int, count: int):
    values = np.random.default_rng(seed).normal(3.0, 2.0, (count, 2)).astype(np.float32)
    mean, std = fit_moments(values)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(0), rtol=1e-9)
    expected = values.astype(np.float64).std(0)
    np.testing.assert_allclose(std, expected if count > 1 else 1.0, rtol=1e-9)


def test_large_offset_keeps_its_digits():
    """A float32 sum of a million values near 1000 would lose the deviation of 0.01."""
    values = (1000.0 + 0.01 * np.resize([-1.0, 1.0], 1_000_000)).astype(np.float32)
    mean, std = fit_moments(values)
    assert float(mean) == pytest.approx(1000.0, abs=1e-6)
    assert float(std) == pytest.approx(0.01, rel=2e-3)  # rounding of the inputs themselves


def test_constant_dimensions_have_unit_scale():
    values = np.array([[5.3, 0.0, 1e-6], [5.3, 0.0, 2e-6]], dtype=np.float32)
    mean, std = fit_moments(values)
    assert std[:2].tolist() == [1.0, 1.0]
    assert std[2] == pytest.approx(5e-7, rel=1e-4)
    assert mean[0] == np.float32(5.3)
    assert fit_moments(values, floor=1e-5)[1].tolist() == [1.0, 1.0, 1.0]


def test_noise_below_the_resolution_of_float32_is_constant():
    values = np.array([[1.0e6], [1.0e6 + 0.0625]], dtype=np.float32)
    assert fit_moments(values)[1].tolist() == [1.0]


def test_no_rows():
    with pytest.raises(ValueError, match="empty"):
        fit_moments(np.zeros((0, 3)))
