"""Importance sampling: IS, per-decision IS, their self-normalised forms, and the direct method.

Precup et al. 2000 (IS, PDIS, WIS); Thomas 2015, chapter 3 (PDWIS with absorbing states).
"""

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import numpy as np

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate, Family
from mbrl.ope.log.layout import Array, OPEArrays
from mbrl.ope.log.weights import LOG_OVERFLOW, PLAIN, WeightBlock, WeightTransform, log_sum_exp, weight_blocks
from mbrl.ope.statistics.bounds import Bootstrap, Interval95, default_interval, student_interval
from mbrl.ope.statistics.self_normalised import Term, Terms, influence_values, self_normalised_se

Kind: TypeAlias = Literal["is", "pdis", "wis", "pdwis"]
TailRule: TypeAlias = Literal["error", "bootstrap"]

MAX_TAIL_SHARE: Final = 0.1
"""Share of an estimate that bootstrapped tails may hold before it is a hybrid that says little of ratios."""


def importance_sampling(
    arrays: OPEArrays,
    *,
    kind: Kind,
    tail: TailRule = "error",
    transform: WeightTransform = PLAIN,
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """Value by reweighting what was logged.

    `is`: `mean_i w_{T-1} G_i`; `pdis`: `mean_i sum_t g^t w_t r_t`; `wis`: `sum_i share_{T-1} G_i`; `pdwis`:
    `sum_t g^t sum_i share_t r_t`. `share` is the weight over the sum of ALL n weights of its step.

    Args:
        arrays: padded log.
        kind: which of the four.
        tail: what becomes of the reward after a time-out: an `error`, or `g^T w_{T-1} V(s_T)`.
        transform: changes of the weights.
        bootstrap: interval of the self-normalised kinds; None takes the default (BCa from 50 episodes on,
            to 10 000, else Student t of the influence values).

    Raises:
        EstimandError: time-outs cut episodes, and `tail` is `error` or there are no values.
    """
    check_tail(arrays, tail)
    if kind in {"wis", "pdwis"}:
        terms = _wis_terms(arrays, transform) if kind == "wis" else pdwis_terms(arrays, transform)
        estimate = self_normalised_estimate(kind, arrays, terms, transform, bootstrap)
    else:
        values = _is_values(arrays, transform) if kind == "is" else _pdis_values(arrays, transform)
        estimate = mean_estimate(kind, arrays, values, family="ratio", n_eff=final_ess(arrays, transform))
    return with_tail_share(estimate, arrays, transform)


def direct_method(arrays: OPEArrays) -> Estimate:
    """`mean_i V(s_0)`: uniform over episodes, never over transitions; no ratios.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "dm")
    return mean_estimate("dm", arrays, arrays.value[:, 0], family="value", n_eff=float(len(arrays)))


def mean_estimate(name: str, arrays: OPEArrays, values: Array, *, family: Family, n_eff: float) -> Estimate:
    """The mean of independent values with a Student t interval."""
    estimand, n = arrays.estimand, len(arrays)
    values = values * estimand.scale
    point = float(values.mean())
    if not np.isfinite(point):
        return without_point(name, arrays, family, "weights_overflow")
    interval = student_interval(values)
    se = float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(
        name,
        family,
        point=point,
        se=float(se),
        ci95=interval.ends,
        method_of_ci=interval.method,
        n_eff=n_eff,
        estimand=estimand,
        flags=_data_flags(arrays),
        per_episode=values,
    )


def self_normalised_estimate(
    name: str,
    arrays: OPEArrays,
    terms: Terms,
    transform: WeightTransform = PLAIN,
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """A sum of self-normalised means with its delta-method error and an interval."""
    influence = influence_values(terms, len(arrays))
    if not np.isfinite(influence).all():
        return without_point(name, arrays, "ratio", f"all_weights_zero@{first_empty_step(arrays, transform)}")
    scale, n = arrays.estimand.scale, len(arrays)
    point = float(influence.mean())
    interval = default_interval(terms, influence, bootstrap)
    interval = Interval95((interval.ends[0] * scale, interval.ends[1] * scale), interval.method)
    return Estimate(
        name,
        "ratio",
        point=point * scale,
        se=self_normalised_se(influence) * scale if n > 1 else np.nan,
        ci95=interval.ends,
        method_of_ci=interval.method,
        n_eff=final_ess(arrays, transform),
        estimand=arrays.estimand,
        flags=_data_flags(arrays),
        per_episode=influence * scale,
        details={"is_self_normalised": True},
    )


def pdwis_terms(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Terms:
    """Columns of PDWIS: a reward for each step, and the tails where time-outs cut."""

    def stream() -> Iterator[Term]:
        discounts, has_tail = arrays.discounts, bool(arrays.tail.any())
        block = None
        for block in weight_blocks(arrays, transform):
            yield Term(block.share, arrays.reward[:, block.rows], discounts[block.rows])
            if has_tail:
                tails = _tail_columns(arrays, block.rows)
                yield Term(block.previous_share, tails, discounts[block.rows])
        if has_tail and block is not None:
            last = slice(arrays.steps, arrays.steps + 1)
            yield Term(block.share[:, -1:], _tail_columns(arrays, last), discounts[last])

    return stream


def final_block(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> WeightBlock:
    """The block that holds the last step."""
    *_, last = weight_blocks(arrays, transform)
    return last


def final_ess(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> float:
    """Effective number of episodes `(sum w)^2 / sum w^2` of the last step's weights; 0 if all are 0."""
    log_weight = final_block(arrays, transform).log_weight[:, -1:]
    if not np.isfinite(log_weight).any():
        return 0.0
    return float(np.exp(2 * log_sum_exp(log_weight) - log_sum_exp(2 * log_weight))[0])


def check_tail(arrays: OPEArrays, tail: TailRule) -> None:
    """Refuses time-outs whose later rewards nothing stands for.

    Raises:
        EstimandError: see `importance_sampling`.
    """
    cut = int(arrays.truncated.sum())
    if cut == 0:
        return
    if tail == "error" or not arrays.has_values:
        shortest = int(arrays.length[arrays.truncated].min())
        raise EstimandError(
            f"{cut} of {len(arrays)} episodes were cut by a time-out, and ratios say nothing of what comes "
            f"after. Remedy: a horizon of at most {shortest}, or values of the cut states (tail='bootstrap')."
        )


def require_values(arrays: OPEArrays, name: str) -> None:
    """Refuses a log without values.

    Raises:
        EstimandError: Q and V were not given.
    """
    if not arrays.has_values:
        raise EstimandError(f"{name} needs Q and V of the evaluated policy. Remedy: fit them (`fit_fqe`).")


def without_point(name: str, arrays: OPEArrays, family: Family, reason: str) -> Estimate:
    """NaN, with the reason."""
    return Estimate(
        name,
        family,
        point=np.nan,
        se=np.nan,
        ci95=(np.nan, np.nan),
        method_of_ci=f"none: {reason}",
        n_eff=0.0,
        estimand=arrays.estimand,
        flags=(reason.partition("@")[0],),
        valid=False,
        why_not=reason,
    )


def with_tail_share(estimate: Estimate, arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Estimate:
    """Notes how much of a ratio estimate is bootstrapped; with any tail the family is hybrid."""
    if not arrays.truncated.any() or not np.isfinite(estimate.point):
        return dataclasses.replace(estimate, details={**estimate.details, "tail_share": 0.0})
    share = tail_share(arrays, transform, estimate.point / arrays.estimand.scale)
    flags = ("bootstrapped_tail",) if share > MAX_TAIL_SHARE else ()
    return dataclasses.replace(
        estimate, family="hybrid", details={**estimate.details, "tail_share": share}
    ).flagged(*flags)


def tail_share(arrays: OPEArrays, transform: WeightTransform, point: float) -> float:
    """`|self-normalised sum of the tails| / |point|`; inf where the point is 0."""
    total, tails = 0.0, arrays.tail
    last = arrays.length - 1
    for block in weight_blocks(arrays, transform):
        inside = np.flatnonzero(arrays.truncated & (last >= block.rows.start) & (last < block.rows.stop))
        share = block.share[inside, last[inside] - block.rows.start]
        total += float((share * tails[inside] * arrays.discounts[arrays.length[inside]]).sum())
    return abs(total) / abs(point) if point != 0 else np.inf


def first_empty_step(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> int:
    """The first step at which no episode has a weight."""
    for block in weight_blocks(arrays, transform):
        empty = ~np.isfinite(block.log_weight).any(0)
        if empty.any():
            return block.rows.start + int(empty.argmax())
    return arrays.steps


def exp_weights(log_weight: Array) -> Array:
    """Weights; NaN from an overflow on, which the estimate then reports."""
    return np.where(log_weight > LOG_OVERFLOW, np.nan, np.exp(np.minimum(log_weight, LOG_OVERFLOW)))


def _is_values(arrays: OPEArrays, transform: WeightTransform) -> Array:
    weight = exp_weights(final_block(arrays, transform).log_weight[:, -1])
    return weight * _returns_with_tail(arrays)


def _pdis_values(arrays: OPEArrays, transform: WeightTransform) -> Array:
    values, discounts, last = np.zeros(len(arrays)), arrays.discounts, arrays.length - 1
    for block in weight_blocks(arrays, transform):
        weight = exp_weights(block.log_weight)
        values += (weight * arrays.reward[:, block.rows]) @ discounts[block.rows]
        inside = np.flatnonzero((last >= block.rows.start) & (last < block.rows.stop))
        weight_at_end = weight[inside, last[inside] - block.rows.start]
        values[inside] += weight_at_end * arrays.tail[inside] * discounts[arrays.length[inside]]
    return values


def _wis_terms(arrays: OPEArrays, transform: WeightTransform) -> Terms:
    share = final_block(arrays, transform).share[:, -1:]
    payload = _returns_with_tail(arrays)[:, None]

    def stream() -> Iterator[Term]:
        yield Term(share, payload, np.ones(1))

    return stream


def _returns_with_tail(arrays: OPEArrays) -> Array:
    return arrays.returns() + arrays.tail * arrays.discounts[arrays.length]


def _tail_columns(arrays: OPEArrays, rows: slice) -> Array:
    """`[n, k]`, the tail of an episode in the column of its length, zeros elsewhere."""
    columns = np.zeros((len(arrays), rows.stop - rows.start), order="F")
    here = np.flatnonzero(arrays.truncated & (arrays.length >= rows.start) & (arrays.length < rows.stop))
    columns[here, arrays.length[here] - rows.start] = arrays.tail[here]
    return columns


def _data_flags(arrays: OPEArrays) -> tuple[str, ...]:
    return ("both_end_flags",) if arrays.both_flags else ()
