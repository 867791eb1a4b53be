"""Coloured noise: actions that change slowly explore further (Pinneri et al. 2020)."""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

_MAX_EXPONENT: Final = 4.0
"""Steepest spectrum that is believed, and the bound of `ICEMConfig.noise_exponent`: noise hardly changes."""

_STILL: Final = 1e-12
"""Power, of float64 actions of size 1, that is rounding: a sequence with no more than it does not move."""


def colour_filter(horizon: int, exponent: float, *, dtype: torch.dtype) -> Float[Tensor, "h h"]:
    """The matrix F with `x = F z`, z white: a power spectrum `f^-exponent` at unit variance in every step.

    F is circulant: the inverse transform of `f^(-exponent / 2)`, where frequency 0 takes the value of the
    lowest one, so that the mean over the horizon varies, too (Timmer & Koenig 1995).

    Args:
        horizon: h, steps.
        exponent: of the spectrum; 0 is white and gives the identity.
        dtype: of the result.
    """
    # 1. The amplitude f^(-exponent / 2) of every frequency, as a kernel over time.
    frequency = np.fft.rfftfreq(horizon)
    frequency[0] = frequency[1] if horizon > 1 else 1.0
    kernel = np.fft.irfft(frequency ** (-exponent / 2.0), n=horizon)
    # 2. Unit variance: each x_t is a sum of white draws with these weights.
    kernel = kernel / np.linalg.norm(kernel)
    # 3. Every step sees the kernel from its own place.
    step = np.arange(horizon)
    return torch.from_numpy(kernel[(step[:, None] - step) % horizon]).to(dtype)


def spectral_exponent(sequences: NDArray[np.floating]) -> float:
    """Exponent of logged actions' spectrum: minus the slope of log power on log frequency, in [0, 4].

    Logarithms are averaged over sequences, so that the scale of a sequence does not matter (Geweke &
    Porter-Hudak 1983).

    Args:
        sequences: `[n, t]`, one dimension of an action over time; t >= 4. Constant ones are left out.
    """
    # 1. Periodograms, without the mean.
    power = np.square(np.abs(np.fft.rfft(sequences.astype(np.float64))))[:, 1:]
    largest = power.max(1, keepdims=True)
    moves = largest[:, 0] > _STILL * sequences.shape[1]
    if not moves.any():
        return 0.0
    # 2. The line through log power over log frequency, by least squares.
    level = np.log(power[moves].clip(_STILL * largest[moves])).mean(0)
    octave = np.log(np.fft.rfftfreq(sequences.shape[1])[1:])
    octave -= octave.mean()
    slope = octave @ level / (octave @ octave)
    return float(np.clip(-slope, 0.0, _MAX_EXPONENT))
