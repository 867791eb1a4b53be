"""Double reinforcement learning: a fitted value, corrected by marginal ratios (Kallus & Uehara 2020)."""

import dataclasses

import torch

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES, NO_CROSSFIT
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.marginal_evidence import MarginalEvidence
from mbrl.off_policy.statistics.ensembles import ensemble_estimate


@register_estimator("drl", family="hybrid")
def estimate_drl(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Double reinforcement learning: a fitted value, corrected by marginal ratios.

    `E V(s_0) + sum w (r + g V(s') - Q(s, a))`: right if the ratios or the values are, and no product of
    ratios over time enters. Neither the policy nor the behaviour needs a density. The spread of the value's
    members enters the interval.
    """
    found = MarginalEvidence.gather(context, generator)
    # Each member of the value gives an estimate for each episode; ratios are common to all of them.
    estimate = ensemble_estimate("drl", "hybrid", found.corrected, found.estimand)
    details = {**estimate.details, **found.details}
    estimate = dataclasses.replace(estimate, n_eff=found.ratio.n_eff, details=details)
    # Doubly robust: one right support is enough, so it takes both faults to refuse.
    problem, why_not = found.problem(), found.critics.estimate().why_not
    if problem is not None and why_not is not None:  # neither of its two supports holds
        estimate = estimate.invalidated(f"{problem[0]}; and {why_not}", problem[1], INVALID_VALUES)
    return estimate.flagged(NO_CROSSFIT)
