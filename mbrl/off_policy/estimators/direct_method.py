"""The direct method: the mean fitted value of the first states."""

import numpy as np
import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.statistics.ensembles import ensemble_estimate


@register_estimator("dm", family="value", is_tested=True)
def estimate_dm(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Direct method: mean fitted value of the first states.

    `mean_i V(s_0)`, uniform over episodes, never over transitions. The error and the interval are those of
    the same ensemble under its own name, `fqe`: the members' spread, and that of the mean over starts.
    """
    values = context.values_on_log(generator)
    # An episode has one state more than steps, and its first one is where the one before has ended.
    lengths = context.dataset.episode_lengths + 1
    starts = np.cumsum(lengths) - lengths
    by_member = np.stack([member.value[starts] for member in values.members])
    estimate = ensemble_estimate("dm", "value", by_member, context.estimand)
    return estimate if values.why_not is None else estimate.invalidated(values.why_not, INVALID_VALUES)
