"""Why fields of a report are None: each has a reason, the one that was met or the ordinary one."""

from collections.abc import Iterator, Mapping
from typing import Final

from mbrl.off_policy.judgement.report.concluded import NextData
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.judgement.report.records import Record

_NO_MODEL: Final = "no model was rolled out"
_NO_FIT: Final = "no density of the behaviour was fitted"
_FEW_FAMILIES: Final = "fewer than two families count"
_NO_DIFFERENCE: Final = "no family that counts has a difference to the baseline"

REASONS: Final[Mapping[str, str]] = {
    "estimand.horizon": "all steps count",
    "data.return_std": "cuts hide a part of the returns, or there is one episode",
    "data.fit_nll": _NO_FIT,
    "data.calibration_error": _NO_FIT,
    "data.floored_rows": _NO_FIT,
    "diagnostics.pareto_k": "the largest weights are too few, or all the same",
    "diagnostics.fqe_drift": "no values were fitted, or they diverged",
    "diagnostics.model_disagreement_share": _NO_MODEL,
    "diagnostics.model_rollouts": _NO_MODEL,
    "diagnostics.stopped": _NO_MODEL,
    "diagnostics.clip_rate": _NO_MODEL,
    "diagnostics.exploitation_alarm": _NO_MODEL,
    "backtest": "no estimator was asked for the behaviour's known value",
    "backtest.clone_nll": "the clone has no density",
    "agreement.spread": _FEW_FAMILIES,
    "agreement.pooled_ci": "no family counts",
    "agreement.z": _FEW_FAMILIES,
    "agreement.paired_z": _FEW_FAMILIES,
    "agreement.outlier": "the families do not conflict, or no single one stands apart",
    "agreement.likely_reason": "the families do not conflict",
    "risk.threshold": "the event is not about the return",
    "risk.limit": "no limit was asked for",
    "next_data.half_width_now": _NO_DIFFERENCE,
    "next_data.shrink": _NO_DIFFERENCE,
}
"""By `section.field` or `section`: why it is None if nothing more special is known."""

_UNKNOWN: Final = "it was not measured"


def with_reasons(report: OPEReport, reasons: Mapping[str, str]) -> OPEReport:
    """The report with `why_not` for each field of its sections that is None, and for nothing else.

    Args:
        report: any `why_not` that it has is replaced.
        reasons: by `section.field`, or by `section` for all of its fields; they go before `REASONS`.
    """
    known = dict(reasons)
    if report.next_data.why_not is not None:
        known |= {f"next_data.{field}": report.next_data.why_not for field in NextData.model_fields}
    why_not = {path: _reason(path, known) for path in _empty_fields(report)}
    return report.model_copy(update={"why_not": why_not})


def _empty_fields(report: OPEReport) -> Iterator[str]:
    if report.estimand.horizon is None:
        yield "estimand.horizon"
    if report.backtest is None:
        yield "backtest"
    sections = {
        "data": report.data,
        "diagnostics": report.diagnostics,
        "backtest": report.backtest,
        "baseline": report.baseline,
        "risk": report.risk,
        "agreement": report.agreement,
        "next_data": report.next_data,
    }
    for name, section in sections.items():
        yield from (f"{name}.{field}" for field in _empty_in(section))


def _empty_in(section: Record | None) -> Iterator[str]:
    """Fields that are None; `why_not` of a section is a reason itself."""
    for field, value in section or ():
        if value is None and field != "why_not":
            yield field


def _reason(path: str, reasons: Mapping[str, str]) -> str:
    """The nearest one: of the field before that of the section, what was met before what is ordinary."""
    section = path.partition(".")[0]
    nearest = (source[name] for name in (path, section) for source in (reasons, REASONS) if name in source)
    return next(nearest, _UNKNOWN)
