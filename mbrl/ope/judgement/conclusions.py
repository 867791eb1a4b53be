"""From what was measured to what follows: agreement, verdict, next data. Pure functions of the JSON."""

from collections.abc import Mapping
from typing import Any

from mbrl.ope.judgement.agreement import agreement
from mbrl.ope.judgement.findings import count_families
from mbrl.ope.judgement.next_data import next_data
from mbrl.ope.judgement.report_fields import complete, part
from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.ope.judgement.verdict import Judgement, judge


def conclude(
    report: Mapping[str, Any],
    reasons: Mapping[str, str],
    *,
    rule: JudgeRule = DEFAULT_RULE,
    candidates: int = 1,
) -> dict[str, Any]:
    """The whole report.

    Args:
        report: estimates, diagnostics, baseline and whatever else was measured; of `agreement` only
            `paired_z` is kept.
        reasons: why fields are null (`mbrl.ope.judgement.report_fields.complete`).
        rule: thresholds.
        candidates: how many are judged together; with several the verdict is also given for intervals so wide
            that all of them hold at once (Bonferroni).
    """
    counted, _ = count_families(report, rule)
    paired_z = part(report, "agreement").get("paired_z") if len(counted) > 1 else None
    verdict: dict[str, Any] = {**_verdict(judge(report, rule)), "thresholds": rule.model_dump(mode="json")}
    if candidates > 1:
        corrected = _verdict(judge(report, rule, interval="ci_corrected"))
        verdict["corrected"] = {**corrected, "candidates": candidates}
    whole: dict[str, Any] = {
        **report,
        "agreement": {**agreement(counted, report, rule), "paired_z": paired_z},
        "verdict": verdict,
    }
    return complete({**whole, "next_data": next_data(whole, rule)}, reasons)


def _verdict(judgement: Judgement) -> dict[str, Any]:
    return {"verdict": judgement.verdict, "reasons": list(judgement.reasons)}
