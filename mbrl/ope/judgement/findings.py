"""Which families of estimators count in a verdict, and by how much each beats the baseline.

One primary estimator stands for each family, fixed in advance. Others are shown and not counted. What a
family's validity needs and was not measured counts as failed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from mbrl.ope.judgement.report_fields import listed, part
from mbrl.ope.judgement.rule import JudgeRule

PRIMARY: Final[Mapping[str, str]] = {"ratio": "pdwis", "value": "fqe", "model": "model_value"}
BEHAVIOUR: Final = "behaviour"
"""Name of the baseline that acted when the log was made."""

IntervalKey: TypeAlias = Literal["ci95", "ci_corrected"]
"""An interval of its own, or one that is wide enough to be one of several."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one counted family says.

    Attributes:
        family: which.
        point: value of the candidate.
        se: standard error of it.
        low: lower end of the interval of the difference to the baseline; None without a baseline.
        high: upper end.
    """

    family: str
    point: float
    se: float
    low: float | None
    high: float | None


def count_families(
    report: Mapping[str, Any], rule: JudgeRule, *, interval: IntervalKey = "ci95"
) -> tuple[list[Finding], dict[str, str]]:
    """The families that count, and why the others do not.

    Args:
        report: see `mbrl.ope.judgement.verdict.judge`.
        rule: thresholds.
        interval: of the differences to the baseline.
    """
    found: list[Finding] = []
    problems: dict[str, str] = {}
    by_name = {estimate["name"]: estimate for estimate in report["estimates"]}
    for family, name in PRIMARY.items():
        estimate = by_name.get(name)
        if estimate is None:
            problems[family] = f"{name} was not estimated"
            continue
        problem = _problem(family, estimate, report, rule)
        if problem is not None:
            problems[family] = problem
            continue
        ends = _difference(estimate, report["baseline"], interval)
        if isinstance(ends, str):
            problems[family] = ends
            continue
        found.append(Finding(family, estimate["point"], estimate["se"], *ends))
    return found, problems


def _problem(
    family: str, estimate: Mapping[str, Any], report: Mapping[str, Any], rule: JudgeRule
) -> str | None:
    """Why a family is not counted; None if it is."""
    if not estimate["valid"]:
        return str(estimate["why_not"])
    if estimate["point"] is None or estimate["se"] is None or None in estimate["ci95"]:
        return "it has no interval"
    diagnostics = report["diagnostics"]
    if family == "ratio":
        problem = _ratio_problem(estimate, diagnostics, rule)
    elif family == "value":
        problem = _value_problem(diagnostics, rule)
    else:
        problem = _model_problem(diagnostics, rule)
    tail_share = estimate.get("tail_share") or 0.0
    if problem is None and tail_share > rule.most_tail_share:
        problem = f"{tail_share:.0%} of it are bootstrapped tails"
    return problem or _backtest_problem(family, estimate["name"], report, rule)


def _ratio_problem(
    estimate: Mapping[str, Any], diagnostics: Mapping[str, Any], rule: JudgeRule
) -> str | None:
    if estimate["n_eff"] is None or estimate["n_eff"] < rule.least_ess:
        return f"{estimate['n_eff'] or 0:.1f} effective episodes, {rule.least_ess:g} are needed"
    pareto_k = diagnostics.get("pareto_k")
    if pareto_k is not None and pareto_k >= rule.most_pareto_k:
        return f"the weights have too heavy a tail (Pareto k {pareto_k:.2f})"
    return None


def _value_problem(diagnostics: Mapping[str, Any], rule: JudgeRule) -> str | None:
    drift, share = diagnostics.get("fqe_drift"), diagnostics.get("support_share")
    if drift is None or share is None:
        return f"{'its drift' if drift is None else 'the support of the actions'} was not measured"
    if drift >= rule.most_drift:
        return f"the value still moved by {drift:.1%} at the end of its fit"
    if share >= rule.most_support_share:
        return f"{share:.0%} of the policy's actions are ones that the log does not know"
    return None


def _model_problem(diagnostics: Mapping[str, Any], rule: JudgeRule) -> str | None:
    share = diagnostics.get("model_disagreement_share")
    if share is None:
        return "the model's disagreement was not measured"
    if share >= rule.most_model_disagreement:
        return f"at {share:.0%} of the imagined steps the model does not know"
    return None


def _backtest_problem(family: str, name: str, report: Mapping[str, Any], rule: JudgeRule) -> str | None:
    """The ratios of the behaviour to itself are 1, so their back-test says nothing; a model's is required."""
    if family == "ratio":
        return None
    z = part(part(report, "backtest"), "z").get(name)
    if z is None:
        return "it was not asked for the behaviour's known value" if family == "model" else None
    if abs(z) >= rule.most_backtest_z:
        return f"it misses the behaviour's known value by {abs(z):.1f} standard errors"
    return None


def _difference(
    estimate: Mapping[str, Any], baseline: Mapping[str, Any], interval: IntervalKey
) -> tuple[float | None, float | None] | str:
    """Ends of the difference to the baseline, or why there are none."""
    paired = part(part(baseline, "paired"), estimate["name"])
    if paired:
        if paired.get("why_not") is not None:
            return f"the baseline: {paired['why_not']}"
        low, high = listed(paired, interval) or (None, None)
        return (low, high) if low is not None and high is not None else "the difference has no interval"
    if interval != "ci95" or baseline.get("policy", BEHAVIOUR) != BEHAVIOUR:
        return "the difference to the baseline is not known"
    if baseline["value"] is None:
        return None, None
    return estimate["ci95"][0] - baseline["value"], estimate["ci95"][1] - baseline["value"]
