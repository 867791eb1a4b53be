"""What a candidate is compared with: the policy that acted, or another policy judged by the same log."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from mbrl.core.estimates import finite_or_none
from mbrl.ope.judgement.findings import BEHAVIOUR, PRIMARY, count_families
from mbrl.ope.judgement.paired import Difference, Evidence, difference, ratio_difference
from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.ope.log.layout import OPEArrays
from mbrl.ope.statistics.bounds import LEVEL, student_interval

_RATIO: Final = PRIMARY["ratio"]


def behaviour_baseline(
    plain: OPEArrays,
    evidence: Mapping[str, Evidence],
    ratios: OPEArrays | None,
    *,
    corrected: float | None = None,
) -> dict[str, Any]:
    """Mean logged return of the policy that acted, and the difference of every estimate to it.

    Null where time-outs hide a part of the returns.

    Args:
        plain: the log without ratios.
        evidence: of the candidate, by estimator.
        ratios: the log with the candidate's, or None.
        corrected: level of a second, wider interval of the differences; None for none.
    """
    if plain.truncated.any():
        return {"policy": BEHAVIOUR, "value": None, "se": None, "ci95": None, "paired": None}
    returns = plain.returns() * plain.estimand.scale
    logged = dict.fromkeys(evidence, Evidence(returns))
    has_spread = returns.size > 1
    return {
        "policy": BEHAVIOUR,
        "value": float(returns.mean()),
        "se": float(returns.std(ddof=1)) / float(np.sqrt(returns.size)) if has_spread else None,
        "ci95": list(student_interval(returns).ends) if has_spread else None,
        "paired": paired_fields(
            evidence, logged, None if ratios is None else (ratios, None), corrected=corrected
        ),
    }


def policy_baseline(
    name: str,
    report: Mapping[str, Any],
    evidence: tuple[Mapping[str, Evidence], Mapping[str, Evidence]],
    ratios: tuple[OPEArrays, OPEArrays] | None,
    *,
    corrected: float | None = None,
    rule: JudgeRule = DEFAULT_RULE,
) -> dict[str, Any]:
    """Another policy's value by the first of its families that counts, and the differences to it.

    A difference whose other side does not count says so in `why_not`.

    Args:
        name: of the other policy.
        report: of the other policy.
        evidence: of the candidate and of the other policy, by estimator.
        ratios: the log with the ratios of either; None unless both exist.
        corrected: level of a second, wider interval of the differences; None for none.
        rule: what counts.
    """
    counted, problems = count_families(report, rule)
    paired = paired_fields(*evidence, ratios, corrected=corrected)
    for family, problem in problems.items():
        if PRIMARY[family] in paired:
            paired[PRIMARY[family]]["why_not"] = problem
    by_name = {estimate["name"]: estimate for estimate in report["estimates"]}
    chosen = by_name[PRIMARY[counted[0].family]] if counted else None
    return {
        "policy": name,
        "estimator": None if chosen is None else chosen["name"],
        "value": None if chosen is None else chosen["point"],
        "se": None if chosen is None else chosen["se"],
        "ci95": None if chosen is None else chosen["ci95"],
        "paired": paired,
    }


def paired_fields(
    first: Mapping[str, Evidence],
    second: Mapping[str, Evidence],
    ratios: tuple[OPEArrays, OPEArrays | None] | None,
    *,
    corrected: float | None,
) -> dict[str, dict[str, Any]]:
    """The difference of every estimator that both have, as plain values; `ci_corrected` on demand."""

    def compare(name: str, level: float) -> Difference:
        if name == _RATIO and ratios is not None:
            return ratio_difference(*ratios, level=level)
        return difference(first[name], second[name], level=level)

    fields: dict[str, dict[str, Any]] = {}
    for name in first:
        if name not in second:
            continue
        fields[name] = compare(name, LEVEL).to_json()
        if corrected is not None:
            wide = compare(name, corrected)
            fields[name] |= {"ci_corrected": [finite_or_none(end) for end in wide.ends]}
    return fields
