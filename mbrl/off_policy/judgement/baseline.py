"""What a candidate is compared with: the policy that acted, or another policy judged by the same log."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.judgement.families import BEHAVIOUR, count_families
from mbrl.off_policy.judgement.paired import Difference, Evidence, difference, ratio_difference
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Baseline, PairedDifference
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.log.censoring import logged_returns, why_not_known
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.statistics.bounds import LEVEL, student_interval

_JOINT: Final = "pdwis"
"""The estimator that `ratio_difference` draws jointly for both policies."""


def behaviour_baseline(
    plain: OPEArrays,
    evidence: Mapping[str, Evidence],
    ratios: OPEArrays | None,
    *,
    corrected: float | None = None,
) -> Baseline:
    """Mean logged return of the policy that acted, and the difference of every estimate to it.

    Episodes that were cut are made up for (`logged_returns`); it is empty where nothing can.

    Args:
        plain: the log without ratios.
        evidence: of the candidate, by estimator.
        ratios: the log with the candidate's, or None.
        corrected: level of a second, wider interval of the differences; None for none.
    """
    if why_not_known(plain) is not None:
        return Baseline(policy=BEHAVIOUR)
    returns = logged_returns(plain) * plain.estimand.scale
    logged = dict.fromkeys(evidence, Evidence(returns))
    has_spread = returns.size > 1
    return Baseline(
        policy=BEHAVIOUR,
        value=float(returns.mean()),
        se=float(returns.std(ddof=1)) / float(np.sqrt(returns.size)) if has_spread else None,
        ci95=student_interval(returns).ends if has_spread else None,
        paired=paired_differences(
            evidence, logged, None if ratios is None else (ratios, None), corrected=corrected
        ),
    )


def policy_baseline(
    report: Measured,
    evidence: tuple[Mapping[str, Evidence], Mapping[str, Evidence]],
    ratios: tuple[OPEArrays, OPEArrays] | None,
    *,
    corrected: float | None = None,
    rule: JudgeRule = DEFAULT_RULE,
) -> Baseline:
    """Another policy's value by the first of its families that counts, and the differences to it.

    A difference whose other side does not count says so in `why_not`.

    Args:
        report: of the other policy.
        evidence: of the candidate and of the other policy, by estimator.
        ratios: the log with the ratios of either; None unless both exist.
        corrected: level of a second, wider interval of the differences; None for none.
        rule: what counts.
    """
    counted, problems = count_families(report, rule)
    primary = primary_estimators()
    why_not = {primary[family]: problem for family, problem in problems.items()}
    paired = paired_differences(*evidence, ratios, corrected=corrected, why_not=why_not)
    chosen = report.estimate(counted[0].estimator) if counted else None
    return Baseline(
        policy=report.candidate,
        estimator=None if chosen is None else chosen.name,
        value=None if chosen is None else chosen.point,
        se=None if chosen is None else chosen.se,
        ci95=None if chosen is None else chosen.ci95,
        paired=paired,
    )


def baseline_reasons(baseline: Baseline, plain: OPEArrays) -> dict[str, str]:
    """Why its fields are None, by `baseline.field`; reasons of fields that are not None do no harm.

    Args:
        baseline: what a candidate is compared with.
        plain: the log without ratios.
    """
    fields = ("value", "se", "ci95", "estimator")
    if baseline.policy != BEHAVIOUR:
        return {f"baseline.{field}": "no family of the baseline counts" for field in fields}
    if baseline.value is None:
        reason = why_not_known(plain) or "the log does not tell the mean return"
        return {f"baseline.{field}": reason for field in (*fields, "paired")}
    lonely = "one episode has no spread"
    return {
        "baseline.se": lonely,
        "baseline.ci95": lonely,
        "baseline.estimator": "the mean logged return needs none",
    }


def paired_differences(
    first: Mapping[str, Evidence],
    second: Mapping[str, Evidence],
    ratios: tuple[OPEArrays, OPEArrays | None] | None,
    *,
    corrected: float | None,
    why_not: Mapping[str, str] | None = None,
) -> dict[str, PairedDifference]:
    """The difference of every estimator that both have.

    Args:
        first: of the candidate.
        second: of what it is compared with.
        ratios: the log with the ratios of either; None in the second place for the policy that acted.
        corrected: level of a second, wider interval; None for none.
        why_not: by estimator, why the second side does not count.
    """

    def compare(name: str, level: float) -> Difference:
        if name == _JOINT and ratios is not None:
            return ratio_difference(*ratios, level=level)
        return difference(first[name], second[name], level=level)

    return {
        name: compare(name, LEVEL).reported(
            ci_corrected=None if corrected is None else compare(name, corrected).ends,
            why_not=(why_not or {}).get(name),
        )
        for name in first
        if name in second
    }
