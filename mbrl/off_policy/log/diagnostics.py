"""How far ratios can be trusted: effective episodes, dominance, tails of the weights, calibration."""

import dataclasses
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.estimates import finite_or_none
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, log_sum_exp, weight_blocks

LEAST_ESS: Final = 30.0
"""Effective episodes below which a mean of weighted returns has no usable interval."""

LEAST_ESS_SHARE: Final = 0.05
USABLE_PARETO_K: Final = 0.7
"""Tail shape above which weights have no usable mean at any sample size (Vehtari et al. 2024)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RatioDiagnostics:
    """Findings about the weights of one policy on one log.

    Attributes:
        ess: `[T]`, effective number of episodes of each step, `(sum w)^2 / sum w^2`.
        max_share: `[T]`, largest share of one episode.
        live_share: `[T]`, share of the weight that lies on episodes that still run.
        mean_weight: `[T]`, mean cumulative weight; 1 in expectation if the behaviour density is right.
        mean_ratio_z: `[T]`, `(mean rho - 1) / (sd rho / sqrt(n))` over the running episodes; NaN below two.
        pareto_k: shape of the tail of the last weights; below 0.5 fine, above 0.7 unusable.
        effective_horizon: steps for which the ESS exceeds `max(30, 0.05 n)` without a break.
        weight_beyond: share of `sum_t discount^t` that lies beyond them.
        clipped_mass: share of the sum of weights that a transform removed.
        clip_bias_bound: `mean_i sum_t g^t |w_t - w'_t| |r_t|`, most that the transform can shift PDIS.
    """

    ess: Array
    max_share: Array
    live_share: Array
    mean_weight: Array
    mean_ratio_z: Array
    pareto_k: float
    effective_horizon: int
    weight_beyond: float
    clipped_mass: float
    clip_bias_bound: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        values = {name: getattr(self, name) for name in (f.name for f in dataclasses.fields(self))}
        return {
            name: [finite_or_none(float(x)) for x in value]
            if isinstance(value, np.ndarray)
            else value
            if isinstance(value, int)
            else finite_or_none(value)
            for name, value in values.items()
        }


def ratio_diagnostics(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> RatioDiagnostics:
    """Everything about the weights, in one pass.

    Args:
        arrays: padded log.
        transform: changes of the weights.
    """
    n, columns = len(arrays), np.zeros((5, arrays.steps))
    log_weight = np.zeros((n, 1))
    for block in weight_blocks(arrays, transform):
        rows = block.rows
        log_weight = block.log_weight
        alive = arrays.alive_in(rows)
        # ESS_t = (sum w)^2 / sum w^2, from the logarithms of both sums.
        total, squares = log_sum_exp(log_weight), log_sum_exp(2 * log_weight)
        with np.errstate(invalid="ignore"):
            columns[0, rows] = np.where(np.isfinite(total), np.exp(2 * total - squares), 0.0)
        # The largest share, the share of episodes that still run, the mean weight, and the test of rho.
        columns[1, rows] = block.share.max(0)
        columns[2, rows] = (block.share * alive).sum(0)
        columns[3, rows] = np.exp(np.minimum(total - math.log(n), 700.0))
        columns[4, rows] = mean_ratio_z(transform.on_ratio(arrays.log_ratio[:, rows]), alive)
    horizon = effective_horizon(columns[0], n)
    discounts = arrays.discounts[:-1]
    clipped, bound = _clipping(arrays, transform)
    return RatioDiagnostics(
        *columns,
        pareto_k=pareto_k(log_weight[:, -1]),
        effective_horizon=horizon,
        weight_beyond=float(discounts[horizon:].sum() / discounts.sum()),
        clipped_mass=clipped,
        clip_bias_bound=bound,
    )


def mean_ratio_z(log_ratio: Array, alive: NDArray[np.bool_]) -> Array:
    """`(mean rho - 1) / (sd rho / sqrt(n))` of every column over its living rows; 0 where all ratios are 1.

    Args:
        log_ratio: `[n, k]`.
        alive: `[n, k]`.
    """
    # E rho_t = 1 under the right density of who acted: a t statistic of that over the running episodes.
    ratio = np.where(alive, np.exp(np.minimum(log_ratio, 700.0)), 0.0)
    count = alive.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = ratio.sum(0) / count
        variance = (np.square(ratio - mean) * alive).sum(0) / (count - 1)
        z = (mean - 1.0) / np.sqrt(variance / count)
    z = np.where((variance == 0) & (mean == 1.0), 0.0, z)
    return np.where(count < 2, np.nan, z)


def effective_horizon(ess: Array, n: int) -> int:
    """Steps before the ESS first falls to `max(30, 0.05 n)`."""
    low = ess <= max(LEAST_ESS, LEAST_ESS_SHARE * n)
    return int(low.argmax()) if low.any() else ess.size


def pareto_k(log_weight: Array) -> float:
    """Shape of a generalised Pareto fitted to the largest `ceil(min(0.2 n, 3 sqrt n))` weights.

    Vehtari et al. 2024 (PSIS), with the estimate of Zhang & Stephens 2009 and its weak prior. -inf where the
    tail has no spread; NaN below five tail weights.
    """
    # The M largest weights beyond the next one, in units of the largest; too few of them say nothing.
    n = log_weight.size
    count = math.ceil(min(0.2 * n, 3.0 * math.sqrt(n)))
    if count < 5 or not np.isfinite(log_weight).any():
        return math.nan
    ordered = np.sort(log_weight)
    weight = np.exp(ordered[-count - 1 :] - ordered[-1])
    excess = weight[1:] - weight[0]
    excess = excess[excess > 0]
    if excess.size < 5:
        return -math.inf
    # The prior of PSIS: ten weights of shape 0.5, which tames the shape of few.
    shape = _fit_pareto(excess)
    return float((shape * excess.size + 0.5 * 10) / (excess.size + 10))


def _fit_pareto(excess: Array) -> float:
    """Profile-posterior mean of the shape (Zhang & Stephens 2009, section 4); `excess` ascends."""
    # A grid of theta = -k / sigma around the quartile's scale; for each the shape k(theta) that maximises
    # the likelihood, k = mean log(1 - theta x).
    n = excess.size
    grid = 30 + int(math.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = 1.0 / excess[-1] + (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    # Its profile log-likelihood, and theta as the mean over the grid under it.
    # Where all of a tail is one number, a shape of 0 has no likelihood, and the tail none of a Pareto.
    with np.errstate(invalid="ignore", divide="ignore"):
        likelihood = n * (np.log(-theta / shape) - shape - 1.0)
    likelihood = np.where(np.isfinite(likelihood), likelihood, -np.inf)
    if not np.isfinite(likelihood).any():
        return 0.0
    weight = np.exp(likelihood - likelihood.max())
    centre = float((weight * theta).sum() / weight.sum())
    return float(np.log1p(-centre * excess).mean())


def _clipping(arrays: OPEArrays, transform: WeightTransform) -> tuple[float, float]:
    if transform == PLAIN:
        return 0.0, 0.0
    # mean_i sum_t g^t |w_t - w'_t| |r_t| is the most that PDIS can move; the mass counts running episodes.
    kept, whole, bound = 0.0, 0.0, 0.0
    pairs = zip(weight_blocks(arrays), weight_blocks(arrays, transform), strict=True)
    for plain, changed in pairs:
        rows = plain.rows
        alive = arrays.alive_in(rows)
        before = np.exp(np.minimum(plain.log_weight, 700.0)) * alive
        after = np.exp(np.minimum(changed.log_weight, 700.0)) * alive
        kept, whole = kept + float(after.sum()), whole + float(before.sum())
        difference = np.abs(before - after) * np.abs(arrays.reward[:, rows])
        bound += float((difference @ arrays.discounts[rows]).mean())
    return (1.0 - kept / whole if whole > 0 else math.nan), bound
