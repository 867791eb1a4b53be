"""Doubly robust with optimistic shrinkage of the weights (Su, Dimakopoulou, Krishnamurthy & Dudik 2020)."""

from typing import Final

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import estimate_by_corrected_values
from mbrl.off_policy.estimators.bandit.tuned import tuned_doubly_robust, weight_grid
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform

_CANDIDATES: Final = 30
_MARGIN: Final = 100.0  # of w^2: from weights that hardly count to weights that hardly shrink


def shrunk_doubly_robust(arrays: OPEArrays, *, weights: WeightTransform = PLAIN) -> Estimate:
    """`mean_i [V + w' (r - Q)]` with `w' = lambda w / (w^2 + lambda)`, and its sum over steps.

    `w'` minimises a bound of the mean squared error for a given lambda; it is at most `sqrt(lambda) / 2`.

    Args:
        arrays: padded log with Q and V of the evaluated policy.
        weights: changes of the weights; `shrinkage` is lambda, None for the one with the least bound of the
            error.

    Raises:
        EstimandError: the log holds no values.
    """
    if weights.shrinkage is not None:
        return tuned_doubly_robust(arrays, "dros", [], base=weights)
    grid = weight_grid(arrays, weights, power=2, margin=_MARGIN, count=_CANDIDATES)
    candidates = [weights.model_copy(update={"shrinkage": float(value)}) for value in grid]
    return tuned_doubly_robust(arrays, "dros", candidates, base=weights)


@register_estimator("dros", family="hybrid")
def estimate_dros(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Doubly robust with shrunken weights, by as much as the log chooses."""

    def compute(arrays: OPEArrays) -> Estimate:
        return shrunk_doubly_robust(arrays, weights=context.settings.weights)

    return estimate_by_corrected_values(context, compute, generator=generator)
