"""Feeds estimators of padded arrays from a policy and a log, and says whether what they rest on holds."""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch

from mbrl.core.estimates import Estimate, Flag
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.log.diagnostics import LEAST_ESS
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.policies import require_density
from mbrl.off_policy.statistics.ensembles import widened_by_members

INVALID_VALUES: Final = Flag.INVALID_VALUES
"""Flag of an estimate that rests on fitted values which do not count themselves."""

NO_CROSSFIT: Final = Flag.NO_CROSSFIT
"""Flag of a doubly robust estimate whose values were fitted to the episodes that they correct."""

ArrayEstimator: TypeAlias = Callable[[OPEArrays], Estimate]
"""An estimator proper: a padded log in, an estimate out."""


def estimate_by_ratios(
    context: EstimatorContext, compute: ArrayEstimator, *, generator: torch.Generator
) -> Estimate:
    """An estimator that reads density ratios, and fitted values at time-outs alone.

    Args:
        context: policy, log and question.
        compute: the estimator proper.
        generator: source of all draws.

    Raises:
        UndefinedRatioError: the policy is deterministic.
    """
    require_density(context.policy)
    values = context.values_on_log(generator, is_corrected=True) if context.needs_tail else None
    arrays = context.ratio_arrays(values)
    return compute(arrays).flagged(*context.behaviour.flags(arrays))


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
    if values.why_not is not None and estimate.n_eff < LEAST_ESS:  # neither of its two supports holds
        estimate = estimate.invalidated(f"few effective episodes, and {values.why_not}", INVALID_VALUES)
    return estimate if context.settings.crossfit > 0 else estimate.flagged(NO_CROSSFIT)
