"""The direct method: the mean fitted value of the first states."""

import numpy as np
import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.means import mean_estimate, require_values
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.statistics.ensembles import widened_by_members


def direct_method(arrays: OPEArrays) -> Estimate:
    """`mean_i V(s_0)`: uniform over episodes, never over transitions; no ratios.

    Raises:
        EstimandError: the log holds no values.
    """
    require_values(arrays, "dm")
    return mean_estimate("dm", arrays, arrays.value[:, 0], family="value", n_eff=float(len(arrays)))


@register_estimator("dm", family="value", is_tested=True)
def estimate_dm(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Direct method: mean fitted value of the first states."""
    values = context.values_on_log(generator)
    estimate = direct_method(context.arrays(None, values))
    points = [direct_method(context.arrays(None, member)).point for member in values.members]
    estimate = widened_by_members(estimate, np.array(points))
    return estimate if values.why_not is None else estimate.invalidated(values.why_not, INVALID_VALUES)
