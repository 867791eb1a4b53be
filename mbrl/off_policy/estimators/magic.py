"""MAGIC: the blend of partial importance sampling and a fitted value with the least estimated error.

Thomas & Brunskill 2016, section 6. The interval that the bias is measured from is the 90 % percentile
bootstrap of WDR, as widely used implementations have it; the paper leaves the bound open.
"""

import dataclasses
from typing import Annotated, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import estimate_by_corrected_values
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.means import require_values
from mbrl.off_policy.estimators.weighted_doubly_robust import wdr_terms, weighted_doubly_robust
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, weight_blocks
from mbrl.off_policy.statistics.bounds import Bootstrap, student_interval
from mbrl.off_policy.statistics.self_normalised import bootstrap_values
from mbrl.off_policy.statistics.simplex import least_error_blend


class MagicConfig(BaseModel):
    """How the blend is found.

    Attributes:
        level: of the bootstrap interval of WDR.
        resamples: of that interval.
        max_lengths: most partial returns that are blended; the shortest and the longest always are.
        seed: of the resamples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: Annotated[float, Field(gt=0, lt=1)] = 0.90
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 500
    max_lengths: Annotated[int, Field(ge=2, le=1000)] = 25
    seed: Annotated[int, Field(ge=0)] = 0


DEFAULT: Final = MagicConfig()


def magic(
    arrays: OPEArrays, *, config: MagicConfig = DEFAULT, transform: WeightTransform = PLAIN
) -> Estimate:
    """`y' h`, y the point of the simplex with the least `y' (Omega + beta beta') y`.

    `h(j)` corrects the first j + 1 steps by ratios and takes the value from there on: `h(-1)` is DM, `h(T-1)`
    is WDR. Omega is the covariance of the h(j), beta their distance from the bootstrap interval of WDR.

    Args:
        arrays: padded log with Q and V of the evaluated policy.
        config: how the blend is found.
        transform: changes of the weights.

    Returns:
        The estimate; `details` hold `lengths`, `blend` (y), `partial` (h), `bias` (beta), and `value_share`,
        the blend's share of steps that the value alone stands for.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "magic")
    wdr = weighted_doubly_robust(arrays, transform=transform)
    # Without WDR there is no interval that a bias could be measured from.
    if not np.isfinite(wdr.point):
        return dataclasses.replace(wdr, name="magic")
    n, scale = len(arrays), arrays.estimand.scale
    # 1. The partial returns h(j), and Omega, n times the covariance of their summands.
    lengths = _grid(arrays.steps, config.max_lengths)
    summands = partial_summands(arrays, lengths, transform)
    partial = summands.sum(0)
    omega = error_covariance(summands)
    # 2. beta(j) = h(j) - its nearest point in the bootstrap interval [l, u] of h(T-1), which is WDR.
    counts = Bootstrap(resamples=config.resamples, seed=config.seed).counts(n)
    draws = bootstrap_values(wdr_terms(arrays, transform), counts)
    low, high = np.nanquantile(draws, [(1 - config.level) / 2, (1 + config.level) / 2])
    low, high = min(low, partial[-1]), max(high, partial[-1])
    bias = partial - np.clip(partial, low, high)
    # 3. y = argmin over the simplex of y' (Omega + beta beta') y: least variance plus squared bias.
    blend = least_error_blend(omega + np.outer(bias, bias))
    # 4. Influence of each episode on y' h; the error of y itself is not part of it.
    influence = n * (summands - partial / n) @ blend + partial @ blend
    interval = student_interval(influence * scale)
    return dataclasses.replace(
        wdr,
        name="magic",
        point=float(partial @ blend) * scale,
        se=float((influence * scale).std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan,
        ci95=interval.ends,
        method_of_ci=f"{interval.method}, blend taken as known",
        per_episode=influence * scale,
        details={
            **wdr.details,
            "lengths": lengths,
            "blend": blend,
            "partial": partial,
            "bias": bias,
            "value_share": float(blend @ uncorrected_share(arrays, lengths)),
        },
    )


def partial_summands(
    arrays: OPEArrays, lengths: Array | list[int], transform: WeightTransform = PLAIN
) -> Array:
    """`[n, len(lengths)]`, each episode's part of `h(j)`; the columns sum to h.

    `h_i(j) = sum_{t<=j} g^t [share_t (r_t - Q_t) + share_{t-1} V_t] + g^{j+1} share_j V_{j+1}`.

    Args:
        arrays: padded log with values.
        lengths: the j, ascending, in -1..T-1.
        transform: changes of the weights.
    """
    n, discounts = len(arrays), arrays.discounts
    wanted = {int(j): k for k, j in enumerate(lengths)}
    # By columns, since each partial return is written and summed by itself.
    out = np.zeros((n, len(wanted)), order="F")
    if -1 in wanted:
        out[:, wanted[-1]] = arrays.value[:, 0] / n
    total = np.zeros(n)
    for block in weight_blocks(arrays, transform):
        rows = block.rows
        # g^t [share_t (r_t - Q_t) + share_{t-1} V_t], summed up to every j of the block;
        step = block.share * (arrays.reward[:, rows] - arrays.action_value[:, rows])
        step += block.previous_share * arrays.value[:, rows]
        step *= discounts[rows]
        np.cumsum(step, axis=1, out=step)
        step += total[:, None]
        # The sum so far goes on into the next block of steps.
        total = step[:, -1].copy()
        # from there on the value stands for the rest, g^{j+1} share_j V_{j+1}.
        for j in (j for j in wanted if rows.start <= j < rows.stop):
            column = j - rows.start
            end = discounts[j + 1] * block.share[:, column] * arrays.value[:, j + 1]
            out[:, wanted[j]] = step[:, column] + end
    return out


def uncorrected_share(arrays: OPEArrays, lengths: Array | list[int]) -> Array:
    """`sum_{t > j} g^t / sum_t g^t` of each j: 1 for DM, 0 for WDR."""
    # corrected[k] is the discount mass of the first k steps; j + 1 of them are corrected.
    corrected = np.concatenate([[0.0], np.cumsum(arrays.discounts[:-1])])
    return 1.0 - corrected[np.asarray(lengths, dtype=np.int64) + 1] / corrected[-1]


def error_covariance(summands: Array) -> Array:
    """`n / (n - 1) sum_i (h_i - mean)(h_i - mean)'`: n times the covariance of the summands."""
    n = summands.shape[0]
    centred = summands - summands.mean(0)
    # h is a sum of n independent summands, so its variance is n times theirs.
    return centred.T @ centred * (n / max(n - 1, 1))


@register_estimator("magic", family="hybrid")
def estimate_magic(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """MAGIC: the blend of WDR and the direct method with the least estimated error."""

    def compute(arrays: OPEArrays) -> Estimate:
        return magic(arrays, transform=context.settings.weights)

    return estimate_by_corrected_values(context, compute, generator=generator)


def _grid(steps: int, most: int) -> list[int]:
    """At most `most` of -1..T-1, both ends included."""
    count = min(most, steps + 1)
    # Even over time, and a set, since neighbours may round to one.
    return sorted({round(float(j)) for j in np.linspace(-1, steps - 1, count)})
