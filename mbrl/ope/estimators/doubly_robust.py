"""Doubly robust estimators: a fitted value as control variate of the ratios.

DR: Jiang & Li 2016, eq. 10. WDR: Thomas & Brunskill 2016, section 5. Both end with the value of the last
state: 0 after a terminal, `V(s_T)` after a time-out.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mbrl.core.estimates import Estimate
from mbrl.ope.estimators.importance import (
    exp_weights,
    final_ess,
    mean_estimate,
    require_values,
    self_normalised_estimate,
    with_tail_share,
)
from mbrl.ope.log.layout import Array, OPEArrays
from mbrl.ope.log.weights import PLAIN, WeightTransform, weight_blocks
from mbrl.ope.statistics.bounds import Bootstrap
from mbrl.ope.statistics.self_normalised import Term, Terms


def doubly_robust(arrays: OPEArrays, *, transform: WeightTransform = PLAIN) -> Estimate:
    """`mean_i sum_{t=0..T} g^t [w_t (r_t - Q_t) + w_{t-1} V_t]`.

    Args:
        arrays: padded log with Q and V of the evaluated policy, fitted without the episode they are used on.
        transform: changes of the weights.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "dr")
    values, discounts = np.zeros(len(arrays)), arrays.discounts
    last = np.ones(len(arrays))
    for block in weight_blocks(arrays, transform):
        rows, weight = block.rows, exp_weights(block.log_weight)
        values += (weight * (arrays.reward[:, rows] - arrays.action_value[:, rows])) @ discounts[rows]
        values += (exp_weights(block.previous_log_weight) * arrays.value[:, rows]) @ discounts[rows]
        last = weight[:, -1]
    values += last * arrays.value[:, -1] * discounts[-1]
    estimate = mean_estimate("dr", arrays, values, family="hybrid", n_eff=final_ess(arrays, transform))
    return with_tail_share(estimate, arrays, transform)


def backward_doubly_robust(arrays: OPEArrays) -> Array:
    """`[n]` values by `z_t = V_t + rho_t (r_t + g z_{t+1} - Q_t)`, `z_T` the value of the last state.

    The same numbers as `doubly_robust` takes the mean of, in the form of the paper.
    """
    z = arrays.value[:, -1].copy()
    ratio = np.exp(arrays.log_ratio)
    for t in range(arrays.steps - 1, -1, -1):
        target = arrays.reward[:, t] + arrays.estimand.discount * z - arrays.action_value[:, t]
        z = arrays.value[:, t] + ratio[:, t] * target
    return z


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
    return with_tail_share(dataclasses.replace(estimate, family="hybrid"), arrays, transform)


def wdr_terms(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Terms:
    """Columns of WDR: a correction and a value for each step, and the value of the last state."""

    def stream() -> Iterator[Term]:
        discounts, block = arrays.discounts, None
        for block in weight_blocks(arrays, transform):
            rows = block.rows
            yield Term(block.share, arrays.reward[:, rows] - arrays.action_value[:, rows], discounts[rows])
            yield Term(block.previous_share, arrays.value[:, rows], discounts[rows])
        if block is not None:
            yield Term(block.share[:, -1:], arrays.value[:, -1:], discounts[-1:])

    return stream
