"""Quantiles of uncertainty measures over logged rows: units of penalties, and where rollouts are cut."""

from typing import Final, TypeAlias

import numpy as np

from mbrl.dynamics.assessment.measures import MeasuredRows

Thresholds: TypeAlias = dict[str, dict[float, float]]
"""For each measure its quantiles by probability, in its own units."""

UNIT_QUANTILE: Final = 0.95
"""The quantile that makes a measure unit-free; it is always among the thresholds."""

FEW_ROWS: Final = 2_000
"""Below this number of held-out rows, quantiles are those of training rows besides."""

FAR_QUANTILE: Final = 0.99
"""Beyond this probability, quantiles are those of training rows besides: held-out rows alone are too few."""


def fit_thresholds(
    held_out: MeasuredRows, train: MeasuredRows, *, quantiles: tuple[float, ...]
) -> Thresholds:
    """Quantiles over held-out rows; over training rows too where these are few, or far out is asked for.

    Args:
        held_out: measures at held-out rows.
        train: the same measures at training rows, as if these had been held out; infinite or NaN where a
            measure cannot say.
        quantiles: probabilities, in (0, 1]; `UNIT_QUANTILE` is added.
    """
    thresholds: Thresholds = {}
    for name, values in held_out.items():
        everything = np.concatenate((values, train[name][np.isfinite(train[name])]))
        base = values if len(values) >= FEW_ROWS else everything
        thresholds[name] = {
            q: float(np.quantile(base if q <= FAR_QUANTILE else everything, q))
            for q in sorted({UNIT_QUANTILE, *quantiles})
        }
    return thresholds
