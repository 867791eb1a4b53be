"""Feeds estimators of padded arrays from a policy and a log, and says whether what they rest on holds."""

import dataclasses
import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate, Flag
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.log.censoring import whole_episodes, why_not_known
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.policies import require_density
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.log.weights import WeightTransform
from mbrl.off_policy.statistics.ensembles import widened_by_members

INVALID_VALUES: Final = Flag.INVALID_VALUES
"""Flag of an estimate that rests on fitted values which do not count themselves."""

NO_CROSSFIT: Final = Flag.NO_CROSSFIT
"""Flag of a doubly robust estimate whose values were fitted to the episodes that they correct."""

MAX_VALUE_SHARE: Final = 0.1
"""Share of an estimate that fitted values may stand for before it says no more than they do."""

ArrayEstimator: TypeAlias = Callable[[OPEArrays], Estimate]
"""An estimator proper: a padded log in, an estimate out."""


def estimate_by_ratios(
    context: EstimatorContext, compute: ArrayEstimator, *, generator: torch.Generator, is_whole: bool = False
) -> Estimate:
    """An estimator that reads density ratios, and fitted values where episodes were cut alone.

    Args:
        context: policy, log and question.
        compute: the estimator proper.
        generator: source of all draws.
        is_whole: with a horizon it takes whole episodes in place of those that were cut (`whole_episodes`).

    Raises:
        UndefinedRatioError: the policy is deterministic.
        EstimandError: it takes whole episodes, and they cannot stand for those that were cut.
    """
    require_density(context.policy)
    if is_whole and context.needs_tail and context.estimand.horizon is not None:
        return _estimate_by_whole_episodes(context, compute)
    values = context.values_on_log(generator, is_corrected=True) if context.needs_tail else None
    log_prob = context.log_prob()
    arrays = context.arrays(log_prob, values)
    estimate = compute(arrays).flagged(*context.behaviour.flags(arrays))
    if values is not None and values.members:  # a tail is not known: the members say how little
        points = [compute(context.arrays(log_prob, member)).point for member in values.members]
        estimate = widened_by_members(estimate, np.array(points))
    evidence = WeightEvidence.of_log(arrays, context.settings.weights)
    return judge_ratios(estimate, evidence, why_not_values=None if values is None else values.why_not)


def _estimate_by_whole_episodes(context: EstimatorContext, compute: ArrayEstimator) -> Estimate:
    cut = context.ratio_arrays()
    problem = why_not_known(cut)
    if problem is not None:
        raise EstimandError(f"{problem}, so whole episodes cannot stand for those that were cut.")
    arrays = whole_episodes(cut)
    estimate = compute(arrays).flagged(Flag.CENSORED_LEFT_OUT, *context.behaviour.flags(cut))
    estimate = dataclasses.replace(
        estimate, details={**estimate.details, "left_out": int(cut.truncated.sum())}
    )
    return judge_ratios(estimate, WeightEvidence.of_log(arrays, context.settings.weights))


def judge_ratios(
    estimate: Estimate, evidence: WeightEvidence, *, why_not_values: str | None = None
) -> Estimate:
    """The estimate, out of verdicts where weights do not carry it, or where its tails are values that fail.

    Args:
        estimate: by ratios.
        evidence: of its weights.
        why_not_values: why the fitted values of its tails do not count; None where they do or there are none.
    """
    estimate = _with_evidence(estimate, evidence)
    if not math.isfinite(estimate.point):
        return estimate
    problem = evidence.problem(is_normalised=bool(estimate.details.get("is_self_normalised", False)))
    if problem is not None:
        estimate = estimate.invalidated(*problem)
    return _judge_interval(_judge_values(estimate, why_not_values))


def estimate_by_corrected_values(
    context: EstimatorContext, compute: ArrayEstimator, *, generator: torch.Generator
) -> Estimate:
    """An estimator that corrects fitted values by density ratios; arguments as of `estimate_by_ratios`.

    It is right where its ratios or its values are. The spread of the members' own answers enters its
    interval, but for cross-fitted values, whose members know some of the episodes only.
    """
    require_density(context.policy)
    values = context.values_on_log(generator, is_corrected=True)
    log_prob = context.log_prob()
    arrays = context.arrays(log_prob, values)
    estimate = compute(arrays)
    if values.members:
        points = [compute(context.arrays(log_prob, member)).point for member in values.members]
        estimate = widened_by_members(estimate, np.array(points))
    estimate = estimate.flagged(*context.behaviour.flags(arrays))
    used = estimate.details.get("weights")  # of an estimator that chooses how its weights are changed
    transform = used if isinstance(used, WeightTransform) else context.settings.weights
    evidence = WeightEvidence.of_log(arrays, transform)
    estimate = judge_corrected_values(estimate, evidence, why_not_values=values.why_not)
    return estimate if context.settings.crossfit > 0 else estimate.flagged(NO_CROSSFIT)


def judge_corrected_values(
    estimate: Estimate, evidence: WeightEvidence, *, why_not_values: str | None
) -> Estimate:
    """The estimate, out of verdicts where neither of its supports holds; arguments as of `judge_ratios`.

    Values forgive weights that fail where the correction is a plain mean: its interval widens with them. That
    of normalised weights does not, and covers 88 % where 95 % is its level: they must hold.
    """
    estimate = _with_evidence(estimate, evidence)
    if not math.isfinite(estimate.point):
        return estimate
    problem = evidence.problem()
    if problem is not None:
        reason, flag = problem
        if why_not_values is not None:
            return estimate.invalidated(f"{reason}; and {why_not_values}", flag, INVALID_VALUES)
        if estimate.details.get("is_self_normalised", False):
            return estimate.invalidated(reason, flag)
        estimate = estimate.flagged(flag)  # it is as good as its values, and no better
    return _judge_interval(_judge_values(estimate, why_not_values))


def value_share(estimate: Estimate) -> float:
    """Share of an estimate that fitted values stand for: tails of time-outs, steps that are not corrected."""
    return max(float(estimate.details.get(name) or 0.0) for name in ("tail_share", "value_share"))


def _with_evidence(estimate: Estimate, evidence: WeightEvidence) -> Estimate:
    found = {
        "largest_share": evidence.largest_share,
        "pareto_k": evidence.pareto_k,
        "mean_weight": evidence.mean_weight,
    }
    return dataclasses.replace(estimate, details={**estimate.details, **found})


def _judge_values(estimate: Estimate, why_not_values: str | None) -> Estimate:
    share = value_share(estimate)
    if why_not_values is None or share <= MAX_VALUE_SHARE:
        return estimate
    reason = f"{min(share, 1.0):.0%} of it are fitted values, of which {why_not_values}"
    return estimate.invalidated(reason, INVALID_VALUES)


def _judge_interval(estimate: Estimate) -> Estimate:
    if np.isfinite((estimate.se, *estimate.ci95)).all():
        return estimate
    return estimate.invalidated(f"it has no interval ({estimate.method_of_ci})", Flag.NO_INTERVAL)
