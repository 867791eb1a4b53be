"""Which families of estimators count in a verdict, and by how much each beats the baseline.

One primary estimator stands for each family, as it is registered. Others are shown and not counted. What a
family's validity needs and was not measured counts as failed.
"""

import dataclasses
from typing import Final

from mbrl.core.estimates import Family
from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Baseline, Diagnostics, IntervalKey, ReportedEstimate
from mbrl.off_policy.judgement.report.records import known_ends
from mbrl.off_policy.judgement.rule import JudgeRule

BEHAVIOUR: Final = "behaviour"
"""Name of the baseline that acted when the log was made."""


@dataclasses.dataclass(frozen=True, slots=True)
class CountedFamily:
    """What one counted family says.

    Attributes:
        family: which.
        estimator: that stands for it.
        point: value of the candidate.
        se: standard error of it.
        low: lower end of the interval of the difference to the baseline; None without a baseline.
        high: upper end.
    """

    family: Family
    estimator: str
    point: float
    se: float
    low: float | None
    high: float | None


def count_families(
    report: Measured, rule: JudgeRule, *, interval: IntervalKey = "ci95"
) -> tuple[list[CountedFamily], dict[Family, str]]:
    """The families that count, and why the others do not.

    Args:
        report: of one candidate.
        rule: thresholds.
        interval: of the differences to the baseline.
    """
    counted: list[CountedFamily] = []
    problems: dict[Family, str] = {}
    for family, name in primary_estimators().items():
        estimate = report.estimate(name)
        if estimate is None:
            problems[family] = f"{name} was not estimated"
            continue
        found = _count(family, estimate, report, rule, interval)
        if isinstance(found, str):
            problems[family] = found
        else:
            counted.append(found)
    return counted, problems


def _count(
    family: Family, estimate: ReportedEstimate, report: Measured, rule: JudgeRule, interval: IntervalKey
) -> CountedFamily | str:
    """What the family says, or why it is not counted."""
    if not estimate.valid:
        return str(estimate.why_not)
    if estimate.point is None or estimate.se is None or known_ends(estimate.ci95) is None:
        return "it has no interval"
    problem = _problem(family, estimate, report, rule)
    if problem is not None:
        return problem
    ends = _difference(estimate, report.baseline, interval)
    if isinstance(ends, str):
        return ends
    return CountedFamily(family, estimate.name, estimate.point, estimate.se, *ends)


def _problem(family: Family, estimate: ReportedEstimate, report: Measured, rule: JudgeRule) -> str | None:
    """Which test of its family the estimate fails; None if it passes all."""
    diagnostics = report.diagnostics
    if family == "ratio":
        problem = _ratio_problem(estimate, diagnostics, rule)
    elif family == "value":
        problem = _value_problem(diagnostics, rule)
    else:
        problem = _model_problem(diagnostics, rule)
    tail_share = estimate.tail_share or 0.0
    if problem is None and tail_share > rule.most_tail_share:
        problem = f"{tail_share:.0%} of it are bootstrapped tails"
    return problem or _backtest_problem(family, estimate.name, report, rule)


def _ratio_problem(estimate: ReportedEstimate, diagnostics: Diagnostics, rule: JudgeRule) -> str | None:
    if estimate.n_eff is None or estimate.n_eff < rule.least_ess:
        return f"{estimate.n_eff or 0:.1f} effective episodes, {rule.least_ess:g} are needed"
    pareto_k = diagnostics.pareto_k
    if pareto_k is not None and pareto_k >= rule.most_pareto_k:
        return f"the weights have too heavy a tail (Pareto k {pareto_k:.2f})"
    return None


def _value_problem(diagnostics: Diagnostics, rule: JudgeRule) -> str | None:
    drift, share = diagnostics.fqe_drift, diagnostics.support_share
    if drift is None or share is None:
        return f"{'its drift' if drift is None else 'the support of the actions'} was not measured"
    if drift >= rule.most_drift:
        return f"the value still moved by {drift:.1%} at the end of its fit"
    if share >= rule.most_support_share:
        return f"{share:.0%} of the policy's actions are ones that the log does not know"
    return None


def _model_problem(diagnostics: Diagnostics, rule: JudgeRule) -> str | None:
    share = diagnostics.model_disagreement_share
    if share is None:
        return "the model's disagreement was not measured"
    if share >= rule.most_model_disagreement:
        return f"at {share:.0%} of the imagined steps the model does not know"
    return None


def _backtest_problem(family: Family, name: str, report: Measured, rule: JudgeRule) -> str | None:
    """The ratios of the behaviour to itself are 1, so their back-test says nothing; a model's is required."""
    if family == "ratio":
        return None
    z = None if report.backtest is None else report.backtest.z.get(name)
    if z is None:
        return "it was not asked for the behaviour's known value" if family == "model" else None
    if abs(z) >= rule.most_backtest_z:
        return f"it misses the behaviour's known value by {abs(z):.1f} standard errors"
    return None


def _difference(
    estimate: ReportedEstimate, baseline: Baseline, interval: IntervalKey
) -> tuple[float | None, float | None] | str:
    """Ends of the difference to the baseline, or why there are none."""
    paired = baseline.difference(estimate.name)
    if paired is not None:
        if paired.why_not is not None:
            return f"the baseline: {paired.why_not}"
        return known_ends(paired.ends(interval)) or "the difference has no interval"
    # Unpaired: the value of the policy that acted is the mean logged return, taken as known.
    if interval != "ci95" or baseline.policy != BEHAVIOUR:
        return "the difference to the baseline is not known"
    ends = known_ends(estimate.ci95)
    if baseline.value is None or ends is None:
        return None, None
    return ends[0] - baseline.value, ends[1] - baseline.value
