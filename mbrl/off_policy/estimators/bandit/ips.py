"""Inverse propensity scores of single decisions, plain and self-normalised.

Where every episode has one step the ratio of an episode is that of its decision, so IPS (Horvitz & Thompson
1952) is `is` and `pdis`, and SNIPS (Swaminathan & Joachims 2015) is `wis` and `pdwis`. They stand here by the
names that people look for, with the same numbers.
"""

import dataclasses

import torch

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.base import register_estimator
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.importance import estimate_pdis, estimate_pdwis


@register_estimator("ips", family="ratio", is_one_step=True)
def estimate_ips(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Inverse propensity score: `mean_i w_i r_i` of single decisions.

    Raises:
        EstimandError: episodes have several steps.
    """
    _require_one_step(context, "ips", "pdis")
    return dataclasses.replace(estimate_pdis(context, generator=generator), name="ips")


@register_estimator("snips", family="ratio", is_one_step=True)
def estimate_snips(context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
    """Self-normalised inverse propensity score: `sum_i w_i r_i / sum_i w_i` of single decisions.

    Raises:
        EstimandError: episodes have several steps.
    """
    _require_one_step(context, "snips", "pdwis")
    return dataclasses.replace(estimate_pdwis(context, generator=generator), name="snips")


def _require_one_step(context: EstimatorContext, name: str, sequential: str) -> None:
    if not context.is_one_step:
        raise EstimandError(
            f"{name} is about single decisions, and the episodes have several steps. Remedy: {sequential}."
        )
