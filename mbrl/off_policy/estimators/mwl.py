"""Minimax weight learning: the mean of logged rewards under marginal ratios (Uehara et al. 2020)."""

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.marginal_evidence import MarginalEvidence
from mbrl.off_policy.statistics.bounds import student_interval


@register_estimator("mwl", family="ratio")
def estimate_mwl(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Minimax weight learning: marginal ratios of visits, without the behaviour's density.

    A fitted value puts the weights to the test.
    """
    found = MarginalEvidence.gather(context, generator)
    # Student t of influence values: each is the share of one episode, judged by fits to the others.
    interval = student_interval(found.values)
    estimate = Estimate(
        "mwl",
        "ratio",
        point=found.ratio.value * found.estimand.scale,
        se=found.se,
        ci95=interval.ends,
        method_of_ci=f"{interval.method} of cross-fitted influence values; kernel and ridge as given",
        n_eff=found.ratio.n_eff,
        estimand=found.estimand,
        per_episode=found.values,
        details=found.details,
    )
    # Here the ratios are the only support, and any doubt of them refuses.
    problem = found.problem()
    return estimate if problem is None else estimate.invalidated(*problem)
