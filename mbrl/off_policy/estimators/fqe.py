"""Fitted Q evaluation as an estimator; the fit itself is `mbrl.off_policy.value.fqe`."""

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext


@register_estimator("fqe", family="value", is_primary=True, is_tested=True)
def estimate_fqe(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Fitted Q evaluation with an ensemble; the primary estimate of the value family."""
    return context.fit_values(generator).estimate()
