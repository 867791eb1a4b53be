"""Whether uncertainty measures rank the true errors, on all held-out rows and far from the training data."""

import numpy as np
from numpy.typing import NDArray

from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Transitions
from mbrl.dynamics.arrays import normalise, step_inputs, thin
from mbrl.dynamics.assessment.measures import MeasuredRows
from mbrl.dynamics.assessment.one_step import HeldOutSteps
from mbrl.dynamics.assessment.resampling import episode_weights, rank_correlation
from mbrl.dynamics.fitted_model import FittedModel
from mbrl.dynamics.report import RankCorrelation
from mbrl.ops.neighbours import neighbour_distance

_NEIGHBOURS = 5
_NEAR_ROWS = 10_000  # training rows that distances are measured to
_FAR_SHARE = 0.1


def rank_errors(
    uncertainty: MeasuredRows,
    steps: HeldOutSteps,
    *,
    distance: NDArray[np.float64],
    episode: NDArray[np.int64],
    draws: int,
    rng: RngStreams,
) -> dict[str, RankCorrelation]:
    """Spearman's correlation of each measure with the error `sqrt(mean_d (mean_e mu_e - y)_d^2)`.

    Args:
        uncertainty: measures at the rows of `steps`.
        steps: predictions and outcomes; the reward does not enter.
        distance: `[n]`, how far each row lies from the training data; the far tenth is ranked by itself.
        episode: `[n]`, of each row; whole episodes are resampled.
        draws: resamples behind the intervals.
        rng: streams of the report.
    """
    # The last column is the reward, whose error has another unit.
    error = steps.residual()[:, :-1].square().mean(1).sqrt().numpy()
    # Far rows by themselves: policies leave the data, and a measure may rank well only near it.
    far = distance >= np.quantile(distance, 1.0 - _FAR_SHARE)
    weights, column = episode_weights(episode, draws, rng.at("resample_rows"))
    far_weights, far_column = episode_weights(episode[far], draws, rng.at("resample_far_rows"))
    correlations: dict[str, RankCorrelation] = {}
    for name, values in uncertainty.items():
        value, low, high = rank_correlation(values, error, weights=weights, column=column)
        far_value, far_low, far_high = rank_correlation(
            values[far], error[far], weights=far_weights, column=far_column
        )
        correlations[name] = RankCorrelation(
            value=value, low=low, high=high, far_value=far_value, far_low=far_low, far_high=far_high
        )
    return correlations


def distance_to_training(model: FittedModel, rows: Transitions, train: Transitions) -> NDArray[np.float64]:
    """`[n]` mean distance of (s, a) to its 5 nearest training rows, deviations of a dimension."""
    # In the model's own normalised inputs, so that near means what it means to the model.
    inputs = normalise(step_inputs(rows), model.inputs)
    near = normalise(step_inputs(thin(train, _NEAR_ROWS)), model.inputs)
    return neighbour_distance(inputs, near, count=_NEIGHBOURS).double().numpy()
