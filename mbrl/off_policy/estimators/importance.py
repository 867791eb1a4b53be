"""Importance sampling: IS, per-decision IS, and their self-normalised forms.

Precup et al. 2000 (IS, PDIS, WIS); Thomas 2015, chapter 3 (PDWIS with absorbing states).
"""

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import numpy as np
import torch

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate, Flag
from mbrl.off_policy.estimators.array_estimator import estimate_by_ratios
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.means import mean_estimate, self_normalised_estimate
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import (
    PLAIN,
    WeightTransform,
    exp_weights,
    final_block,
    final_ess,
    weight_blocks,
)
from mbrl.off_policy.statistics.bounds import Bootstrap
from mbrl.off_policy.statistics.self_normalised import Term, Terms

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


def pdwis_terms(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Terms:
    """Columns of PDWIS: a reward for each step, and the tails where time-outs cut."""

    def stream() -> Iterator[Term]:
        discounts, has_tail = arrays.discounts, bool(arrays.tail.any())
        block = None
        for block in weight_blocks(arrays, transform):
            # A column for each step: g^t sum_i share_t r_t.
            yield Term(block.share, arrays.reward[:, block.rows], discounts[block.rows])
            if has_tail:
                # g^t sum_i share_{t-1} V(s_t) of the episodes that a time-out cut after t steps.
                tails = _tail_columns(arrays, block.rows)
                yield Term(block.previous_share, tails, discounts[block.rows])
        if has_tail and block is not None:
            last = slice(arrays.steps, arrays.steps + 1)
            yield Term(block.share[:, -1:], _tail_columns(arrays, last), discounts[last])

    return stream


def check_tail(arrays: OPEArrays, tail: TailRule) -> None:
    """Refuses time-outs whose later rewards nothing stands for.

    Raises:
        EstimandError: see `importance_sampling`.
    """
    cut = int(arrays.truncated.sum())
    if cut == 0:
        return
    if tail == "error" or not arrays.has_values:
        raise EstimandError(
            f"{cut} of {len(arrays)} episodes were cut, and ratios say nothing of what comes after. Remedy: "
            "values of the cut states (tail='bootstrap'), or whole episodes in their place (whole_episodes)."
        )


def with_tail_share(estimate: Estimate, arrays: OPEArrays, transform: WeightTransform = PLAIN) -> Estimate:
    """Notes how much of a ratio estimate is bootstrapped; with any tail the family is hybrid."""
    if not arrays.truncated.any() or not np.isfinite(estimate.point):
        return dataclasses.replace(estimate, details={**estimate.details, "tail_share": 0.0})
    share = tail_share(arrays, transform, estimate.point / arrays.estimand.scale)
    flags = (Flag.BOOTSTRAPPED_TAIL,) if share > MAX_TAIL_SHARE else ()
    return dataclasses.replace(
        estimate, family="hybrid", details={**estimate.details, "tail_share": share}
    ).flagged(*flags)


def tail_share(arrays: OPEArrays, transform: WeightTransform, point: float) -> float:
    """`|self-normalised sum of the tails| / |point|`; inf where the point is 0."""
    total, tails = 0.0, arrays.tail
    last = arrays.length - 1
    for block in weight_blocks(arrays, transform):
        # An episode's tail counts with the share that it had at its last step.
        inside = np.flatnonzero(arrays.truncated & (last >= block.rows.start) & (last < block.rows.stop))
        share = block.share[inside, last[inside] - block.rows.start]
        total += float((share * tails[inside] * arrays.discounts[arrays.length[inside]]).sum())
    return abs(total) / abs(point) if point != 0 else np.inf


@register_estimator("is", family="ratio")
def estimate_is(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Importance sampling: whole returns times the ratio of the whole episode."""
    return _estimate(context, "is", generator)


@register_estimator("pdis", family="ratio")
def estimate_pdis(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Per-decision importance sampling: each reward times the ratio up to it."""
    return _estimate(context, "pdis", generator)


@register_estimator("wis", family="ratio")
def estimate_wis(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Weighted importance sampling: ratios of whole episodes, normalised to sum to 1."""
    return _estimate(context, "wis", generator)


@register_estimator("pdwis", family="ratio", is_primary=True)
def estimate_pdwis(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Per-decision weighted importance sampling; the primary estimate of the ratio family."""
    return _estimate(context, "pdwis", generator)


def _estimate(context: EstimatorContext, kind: Kind, generator: torch.Generator) -> Estimate:
    def compute(arrays: OPEArrays) -> Estimate:
        return importance_sampling(arrays, kind=kind, tail="bootstrap", transform=context.settings.weights)

    # The ratio of a whole episode needs one; the others take each step with the ratio so far, and a tail.
    return estimate_by_ratios(context, compute, generator=generator, is_whole=kind in {"is", "wis"})


def _is_values(arrays: OPEArrays, transform: WeightTransform) -> Array:
    # w_{T-1} G_i: the whole return under the ratio of the whole episode.
    weight = exp_weights(final_block(arrays, transform).log_weight[:, -1])
    return weight * _returns_with_tail(arrays)


def _pdis_values(arrays: OPEArrays, transform: WeightTransform) -> Array:
    values, discounts, last = np.zeros(len(arrays)), arrays.discounts, arrays.length - 1
    for block in weight_blocks(arrays, transform):
        # sum_t g^t w_t r_t: each reward under the ratio up to its own step;
        weight = exp_weights(block.log_weight)
        values += (weight * arrays.reward[:, block.rows]) @ discounts[block.rows]
        # where a time-out cut the episode in this block, g^{T_i} w_{T_i - 1} V(s_{T_i}) for what follows.
        inside = np.flatnonzero((last >= block.rows.start) & (last < block.rows.stop))
        weight_at_end = weight[inside, last[inside] - block.rows.start]
        values[inside] += weight_at_end * arrays.tail[inside] * discounts[arrays.length[inside]]
    return values


def _wis_terms(arrays: OPEArrays, transform: WeightTransform) -> Terms:
    # One column: sum_i share_{T-1} G_i.
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
