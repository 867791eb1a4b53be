"""Weighted doubly robust: the doubly robust estimate with normalised ratios (Thomas & Brunskill 2016, 5)."""

import dataclasses
from collections.abc import Iterator

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import estimate_by_corrected_values
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.importance import with_tail_share
from mbrl.off_policy.estimators.means import require_values, self_normalised_estimate
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, weight_blocks
from mbrl.off_policy.statistics.bounds import Bootstrap
from mbrl.off_policy.statistics.self_normalised import Term, Terms


def weighted_doubly_robust(
    arrays: OPEArrays, *, transform: WeightTransform = PLAIN, bootstrap: Bootstrap | None = None
) -> Estimate:
    """`sum_{t=0..T} g^t sum_i [share_t (r_t - Q_t) + share_{t-1} V_t]`.

    Args:
        arrays: padded log with Q and V of the evaluated policy.
        transform: changes of the weights.
        bootstrap: of the interval; see `importance_sampling`.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "wdr")
    estimate = self_normalised_estimate("wdr", arrays, wdr_terms(arrays, transform), transform, bootstrap)
    # How much of it stands on the values of cut states, which no ratio corrects.
    return with_tail_share(dataclasses.replace(estimate, family="hybrid"), arrays, transform)


def wdr_terms(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Terms:
    """Columns of WDR: a correction and a value for each step, and the value of the last state."""

    def stream() -> Iterator[Term]:
        discounts, block = arrays.discounts, None
        for block in weight_blocks(arrays, transform):
            rows = block.rows
            # g^t sum_i share_t (r_t - Q_t), the correction of a step, and g^t sum_i share_{t-1} V_t.
            yield Term(block.share, arrays.reward[:, rows] - arrays.action_value[:, rows], discounts[rows])
            yield Term(block.previous_share, arrays.value[:, rows], discounts[rows])
        # At t = T the shares stay those of the last step, and V_T is what a time-out left over.
        if block is not None:
            yield Term(block.share[:, -1:], arrays.value[:, -1:], discounts[-1:])

    return stream


@register_estimator("wdr", family="hybrid")
def estimate_wdr(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Weighted doubly robust: fitted values, corrected by normalised ratios."""

    def compute(arrays: OPEArrays) -> Estimate:
        return weighted_doubly_robust(arrays, transform=context.settings.weights)

    return estimate_by_corrected_values(context, compute, generator=generator)
