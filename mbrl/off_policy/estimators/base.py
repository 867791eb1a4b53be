"""The table of estimators: what each is called, where its knowledge comes from, and its role in a verdict."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import torch

from mbrl.core.estimates import Estimand, Estimate, Family
from mbrl.core.registry import Registry
from mbrl.off_policy.estimators.context import EstimatorContext

VERDICT_FAMILIES: Final[tuple[Family, ...]] = ("ratio", "value", "model")
"""Families that a verdict counts, in the order of their bias: that of ratios is the least."""


@runtime_checkable
class EstimateValue(Protocol):
    """What an estimator is: a policy on a log in, its value out."""

    def __call__(self, context: EstimatorContext, *, generator: torch.Generator) -> Estimate:
        """The estimate.

        Args:
            context: the policy, the log, the question, and what is fitted to them.
            generator: source of all draws.

        Raises:
            UndefinedRatioError: ratios are needed, and the policy is deterministic.
            EstimandError: the log cannot answer the question.
            DataError: an entry of the log cannot be used.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """An estimator with its place among the others.

    Attributes:
        name: id.
        estimate: the estimator proper.
        family: where its knowledge comes from.
        is_primary: whether it stands for its family in a verdict.
        is_tested: whether a back-test of its family's primary estimator condemns it too.
        is_one_step: about logs whose episodes have one step alone; others are not asked it.
    """

    name: str
    estimate: EstimateValue
    family: Family
    is_primary: bool = False
    is_tested: bool = False
    is_one_step: bool = False


ESTIMATORS: Registry[EstimatorEntry] = Registry(
    "estimator",
    "mbrl.off_policy.estimators",
    group="mbrl.estimators",
    spelling='mbrl.registry("estimators")',
    needs=("estimate", "family"),
)


def register_estimator(
    name: str,
    *,
    family: Family,
    is_primary: bool = False,
    is_tested: bool = False,
    is_one_step: bool = False,
) -> Callable[[EstimateValue], EstimateValue]:
    """Files a function as an estimator; the first line of its docstring is what a list says of it.

    Args:
        name: id, such as `pdwis`.
        family: where its knowledge comes from.
        is_primary: see `EstimatorEntry`; one for each family.
        is_tested: see `EstimatorEntry`.
        is_one_step: see `EstimatorEntry`.
    """

    def add(estimate: EstimateValue) -> EstimateValue:
        line = (inspect.getdoc(estimate) or "").partition("\n")[0]
        entry = EstimatorEntry(name, estimate, family, is_primary, is_tested, is_one_step)
        ESTIMATORS.register(name, line)(entry)
        return estimate

    return add


def primary_estimators() -> dict[Family, str]:
    """The estimator that stands for each family that a verdict counts."""
    entries = [ESTIMATORS.get(name) for name in ESTIMATORS.names()]
    found = {entry.family: entry.name for entry in entries if entry.is_primary}
    return {family: found[family] for family in VERDICT_FAMILIES}


def backtested_estimators() -> dict[str, str]:
    """Estimators that a back-test condemns, and the one that is tested in their place."""
    entries = [ESTIMATORS.get(name) for name in ESTIMATORS.names()]
    primary = primary_estimators()
    return {entry.name: primary[entry.family] for entry in entries if entry.is_tested}


def refused(name: str, family: Family, estimand: Estimand, reason: str) -> Estimate:
    """No estimate, and why."""
    nothing = math.nan
    return Estimate(
        name,
        family,
        point=nothing,
        se=nothing,
        ci95=(nothing, nothing),
        method_of_ci="none: refused",
        n_eff=0.0,
        estimand=estimand,
        valid=False,
        why_not=reason,
    )
