"""Doubly robust estimates that give up unbiasedness where weights are large, where it surely pays.

A candidate changes the weights; it costs bias and saves variance. The candidate with the least bound of the
mean squared error is taken, whole weights being one of them:

    bound(c) = se(c)^2 + (sum_i |x_i - x_i(c)| / max(n, sum_i w_i))^2

x_i is the doubly robust value of an episode with whole weights, x_i(c) that with the candidate's. The second
term takes all that was changed for bias of one sign, as Wang et al. (2017) do with the range of the rewards
in the place of residuals. A signed mean would not do: where one weight is absurd, its error and the bias of
leaving it out are the same number. Divided by weights, the term is a mean under the evaluated policy, and one
absurd weight cannot make it absurd. The interval is the candidate's own, stretched to the root of the bound.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.doubly_robust import doubly_robust, dr_values
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, exp_weights, final_block, weight_blocks

_LOG_LIMITS: Final = (-27.0, 27.0)  # a `WeightTransform` takes numbers up to 1e12


def tuned_doubly_robust(
    arrays: OPEArrays, name: str, candidates: Sequence[WeightTransform], *, base: WeightTransform = PLAIN
) -> Estimate:
    """The doubly robust estimate of the candidate with the least bound of the mean squared error.

    Args:
        arrays: padded log with Q and V of the evaluated policy.
        name: of the estimate.
        candidates: changes of the weights; `base` is one besides.
        base: weights that count as whole, against which a candidate's bias is measured.

    Returns:
        The estimate; `details["weights"]` holds the candidate, `details["bias_bound"]` what it may cost, in
        units of the estimand.

    Raises:
        EstimandError: the log holds no values.
    """
    whole = doubly_robust(arrays, transform=base)
    if (
        whole.per_episode is None or len(arrays) < 2
    ):  # weights beyond any number: there is nothing to hold a candidate against
        return dataclasses.replace(whole, name=name)
    # The weights average 1 over all logs; where they average more, absurd ones were drawn.
    mass = max(1.0, float(exp_weights(final_block(arrays, base).log_weight[:, -1]).mean()))
    values, scale, root = dr_values(arrays, base), arrays.estimand.scale, math.sqrt(len(arrays))
    bound, bias, chosen = whole.se, 0.0, base
    for candidate in candidates:
        changed = dr_values(arrays, candidate)
        given_up = scale * float(np.abs(changed - values).mean()) / mass
        error = math.hypot(scale * float(changed.std(ddof=1)) / root, given_up)
        if error < bound:
            bound, bias, chosen = error, given_up, candidate
    return _with_bias(doubly_robust(arrays, transform=chosen), bias, name, chosen)


def _with_bias(estimate: Estimate, bias: float, name: str, chosen: WeightTransform) -> Estimate:
    """The candidate's estimate with the error that its bias may add."""
    error = math.hypot(estimate.se, bias)
    stretch = error / estimate.se if estimate.se > 0 else 1.0
    low, high = (estimate.point + stretch * (end - estimate.point) for end in estimate.ci95)
    method = f"{estimate.method_of_ci}, widened by a bound of its bias" if bias > 0 else estimate.method_of_ci
    return dataclasses.replace(
        estimate,
        name=name,
        se=error,
        ci95=(low, high),
        method_of_ci=method,
        details={**estimate.details, "weights": chosen, "bias_bound": bias},
    )


def weight_grid(arrays: OPEArrays, base: WeightTransform, *, power: int, margin: float, count: int) -> Array:
    """`count` numbers in equal ratios from the 5 % quantile of `w^power` to the largest, margins besides.

    Args:
        arrays: padded log.
        base: changes of the weights before the one that is looked for.
        power: of the weights.
        margin: factor by which the grid goes on at both ends.
        count: of the numbers.

    Returns:
        `[count]`, ascending; empty where fewer than two weights are positive.
    """
    parts = [block.log_weight[arrays.alive_in(block.rows)] for block in weight_blocks(arrays, base)]
    logs = power * np.concatenate(parts)
    logs = logs[np.isfinite(logs)]
    if logs.size < 2:
        return np.zeros(0)
    low, high = float(np.quantile(logs, 0.05)) - math.log(margin), float(logs.max()) + math.log(margin)
    grid = np.linspace(low, high, count, dtype=np.float64)
    return np.exp(np.clip(grid, *_LOG_LIMITS))
