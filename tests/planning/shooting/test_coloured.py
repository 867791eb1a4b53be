"""Coloured noise has the spectrum that it says, and the exponent is found again."""

import numpy as np
import pytest
import torch

from mbrl.planning.noise import RowNoise
from mbrl.planning.shooting.coloured import colour_filter, spectral_exponent


def _white(rows: int, horizon: int) -> torch.Tensor:
    return RowNoise(torch.arange(rows)).normal("white", (horizon,)).double()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_the_spectrum_falls_with_the_exponent_at_unit_variance(exponent: float):
    draws = _white(4000, 128) @ colour_filter(128, exponent, dtype=torch.float64).T
    scales = np.geomspace(0.01, 100, 4000)[:, None]
    assert spectral_exponent(scales * draws.numpy()) == pytest.approx(exponent, abs=0.02)
    variance = draws.square().mean(0)
    assert variance.tolist() == pytest.approx([1.0] * 128, abs=0.15)


@pytest.mark.parametrize("horizon", [1, 2, 3, 12])
def test_every_step_has_unit_variance_exactly(horizon: int):
    matrix = colour_filter(horizon, 2.0, dtype=torch.float64)
    assert torch.diagonal(matrix @ matrix.T).tolist() == pytest.approx([1.0] * horizon)


def test_exponent_0_is_white():
    torch.testing.assert_close(
        colour_filter(7, 0.0, dtype=torch.float64), torch.eye(7).double(), atol=1e-12, rtol=0
    )


def test_power_of_each_frequency():
    """The transform of the filter's first column is `f^(-exponent / 2)`, up to a factor; f_0 is f_1."""
    kernel = colour_filter(8, 3.0, dtype=torch.float64)[:, 0].numpy()
    power = np.abs(np.fft.rfft(kernel)) ** 2
    assert (power / power[1]).tolist() == pytest.approx([1.0, 1.0, 2.0**-3, 3.0**-3, 4.0**-3])


def test_exponents_stay_in_range_and_constants_are_left_out():
    walk = np.cumsum(np.cumsum(np.cumsum(_white(50, 64).numpy(), 1), 1), 1)
    assert spectral_exponent(np.concatenate((walk, np.zeros((5, 64))))) <= 4.0
    assert spectral_exponent(np.diff(_white(50, 64).numpy(), axis=1)) == 0.0
    assert spectral_exponent(np.ones((3, 64))) == 0.0
