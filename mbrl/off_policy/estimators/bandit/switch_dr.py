"""Switch-DR: fitted values alone where a weight is too large (Wang, Agarwal & Dudik 2017, eq. 8)."""

from typing import Final

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import estimate_by_corrected_values
from mbrl.off_policy.estimators.bandit.tuned import tuned_doubly_robust, weight_grid
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform

_CANDIDATES: Final = 21
_MARGIN: Final = 1.0


def switch_doubly_robust(arrays: OPEArrays, *, weights: WeightTransform = PLAIN) -> Estimate:
    """`mean_i [V + w 1(w <= tau) (r - Q)]`, and its sum over steps with cumulative weights.

    Args:
        arrays: padded log with Q and V of the evaluated policy.
        weights: changes of the weights; `switch` is tau, None for the one with the least bound of the error.

    Raises:
        EstimandError: the log holds no values.
    """
    if weights.switch is not None:
        return tuned_doubly_robust(arrays, "switch_dr", [], base=weights)
    grid = weight_grid(arrays, weights, power=1, margin=_MARGIN, count=_CANDIDATES)
    candidates = [weights.model_copy(update={"switch": float(tau)}) for tau in grid]
    return tuned_doubly_robust(arrays, "switch_dr", candidates, base=weights)


@register_estimator("switch_dr", family="hybrid")
def estimate_switch_dr(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Doubly robust, with values alone where a weight exceeds a threshold that the log chooses."""

    def compute(arrays: OPEArrays) -> Estimate:
        return switch_doubly_robust(arrays, weights=context.settings.weights)

    return estimate_by_corrected_values(context, compute, generator=generator)
