"""From what was measured to what follows: agreement, verdict, next data. Pure functions of the report."""

from collections.abc import Mapping

from mbrl.off_policy.judgement.agreement import agreement
from mbrl.off_policy.judgement.families import count_families
from mbrl.off_policy.judgement.next_data import next_data
from mbrl.off_policy.judgement.report.concluded import CorrectedVerdict, Verdict
from mbrl.off_policy.judgement.report.documents import Measured, OPEReport
from mbrl.off_policy.judgement.report.reasons import with_reasons
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.judgement.verdict import judge


def conclude(
    measured: Measured,
    *,
    reasons: Mapping[str, str] | None = None,
    paired_z: float | None = None,
    rule: JudgeRule = DEFAULT_RULE,
    candidates: int = 1,
) -> OPEReport:
    """The whole report.

    Args:
        measured: of one candidate; of a report, what was concluded is concluded again.
        reasons: why fields are None, by `section.field` or `section`; None for those that `measured` gives.
        paired_z: largest difference of two primary estimators (`mbrl.off_policy.judgement.paired.paired_z`).
        rule: thresholds.
        candidates: how many are judged together; with several the verdict is also given for intervals so wide
            that all of them hold at once (Bonferroni).
    """
    counted, _ = count_families(measured, rule)
    verdict = _verdict(measured, rule, candidates)
    report = OPEReport(
        **{name: getattr(measured, name) for name in Measured.model_fields},
        agreement=agreement(counted, measured, rule, paired_z=paired_z),
        verdict=verdict,
        next_data=next_data(measured, verdict.verdict, rule),
    )
    return with_reasons(report, measured.why_not if reasons is None else reasons)


def _verdict(measured: Measured, rule: JudgeRule, candidates: int) -> Verdict:
    alone, corrected = judge(measured, rule), None
    if candidates > 1:
        joint = judge(measured, rule, interval="ci_corrected")
        corrected = CorrectedVerdict(verdict=joint.verdict, reasons=joint.reasons, candidates=candidates)
    return Verdict(verdict=alone.verdict, reasons=alone.reasons, thresholds=rule, corrected=corrected)
