"""Doubly robust: a fitted value as control variate of the ratios (Jiang & Li 2016, eq. 10)."""

import numpy as np
import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import estimate_by_corrected_values
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.importance import with_tail_share
from mbrl.off_policy.estimators.means import mean_estimate, require_values
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, exp_weights, final_ess, weight_blocks


def doubly_robust(arrays: OPEArrays, *, transform: WeightTransform = PLAIN) -> Estimate:
    """`mean_i sum_{t=0..T} g^t [w_t (r_t - Q_t) + w_{t-1} V_t]`.

    It ends with the value of the last state: 0 after a terminal, `V(s_T)` after a time-out.

    Args:
        arrays: padded log with Q and V of the evaluated policy, fitted without the episode they are used on.
        transform: changes of the weights.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "dr")
    values = dr_values(arrays, transform)
    estimate = mean_estimate("dr", arrays, values, family="hybrid", n_eff=final_ess(arrays, transform))
    return with_tail_share(estimate, arrays, transform)


def dr_values(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Array:
    """`[n]`, the summand of each episode; their mean is the estimate before any scale."""
    values, discounts = np.zeros(len(arrays)), arrays.discounts
    last = np.ones(len(arrays))
    for block in weight_blocks(arrays, transform):
        rows, weight = block.rows, exp_weights(block.log_weight)
        # g^t w_t (r_t - Q_t): what the logged step returned beyond the value, which is 0 in the mean where Q
        # is right;
        values += (weight * (arrays.reward[:, rows] - arrays.action_value[:, rows])) @ discounts[rows]
        # g^t w_{t-1} V_t: what it is held against.
        values += (exp_weights(block.previous_log_weight) * arrays.value[:, rows]) @ discounts[rows]
        last = weight[:, -1]
    # The term of t = T, where nothing is left but the value of the last state, g^T w_{T-1} V_T.
    return values + last * arrays.value[:, -1] * discounts[-1]


@register_estimator("dr", family="hybrid")
def estimate_dr(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Doubly robust: fitted values, corrected by ratios."""

    def compute(arrays: OPEArrays) -> Estimate:
        return doubly_robust(arrays, transform=context.settings.weights)

    return estimate_by_corrected_values(context, compute, generator=generator)
