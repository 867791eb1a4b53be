"""Do the families tell the same story? Their spread, a pooled interval, the odd one out and why."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.ope.judgement.findings import Finding
from mbrl.ope.judgement.report_fields import listed
from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule

_QUANTILE: Final = 1.959964
_CARE_PARETO_K: Final = 0.5
"""Tail shape of the weights from which on their mean converges slowly (Vehtari et al. 2024)."""


def disagreement(findings: Sequence[Finding]) -> float | None:
    """`max |m_f - m_h| / sqrt(se_f^2 + se_h^2)` over pairs of families; None below two."""
    return max((pair_z(f, h) for f, h in itertools.combinations(findings, 2)), default=None)


def pair_z(first: Finding, second: Finding) -> float:
    """Difference of two families in standard errors; 1e9 where neither has an error."""
    gap, spread = abs(first.point - second.point), math.hypot(first.se, second.se)
    return gap / spread if spread > 0 else (0.0 if gap == 0 else 1e9)


def agreement(
    findings: Sequence[Finding], report: Mapping[str, Any], rule: JudgeRule = DEFAULT_RULE
) -> dict[str, Any]:
    """Plain values for the report.

    Args:
        findings: of the families that count.
        report: where likely reasons are looked for.
        rule: what counts as a conflict.
    """
    points = [finding.point for finding in findings]
    z = disagreement(findings)
    is_conflict = z is not None and z >= rule.most_disagreement
    outlier = find_outlier(findings, rule) if is_conflict else None
    suspects = [outlier] if outlier is not None else [finding.family for finding in findings]
    return {
        "families_used": [finding.family for finding in findings],
        "spread": max(points) - min(points) if len(points) > 1 else None,
        "pooled_ci": list(pool(findings)) if findings else None,
        "z": z,
        "outlier": outlier,
        "likely_reason": likely_reason(suspects, report) if is_conflict else None,
    }


def pool(findings: Sequence[Finding]) -> tuple[float, float]:
    """95 % interval of a common value from all families.

    Weights are `w_f = 1 / (se_f^2 + tau^2)`, normalised, with the variance tau^2 between families of
    DerSimonian & Laird 1986 (eq. 8). Families share the data, so their errors may be wholly dependent: the
    standard deviation of the weighted mean is at most `sum_f w_f sqrt(se_f^2 + tau^2)`, which is used.
    """
    errors = [max(finding.se, 1e-300) for finding in findings]
    tau2 = _variance_between([finding.point for finding in findings], errors)
    raw = [1.0 / (error**2 + tau2) for error in errors]
    weights = [w / sum(raw) for w in raw]
    centre = sum(w * finding.point for w, finding in zip(weights, findings, strict=True))
    half = _QUANTILE * sum(w * math.sqrt(error**2 + tau2) for w, error in zip(weights, errors, strict=True))
    return centre - half, centre + half


def find_outlier(findings: Sequence[Finding], rule: JudgeRule = DEFAULT_RULE) -> str | None:
    """The one family without which the others agree; None below three families, or if it is not unique."""
    if len(findings) < 3:
        return None
    alone = [
        finding.family
        for finding in findings
        if (disagreement([f for f in findings if f is not finding]) or 0.0) < rule.most_disagreement
    ]
    return alone[0] if len(alone) == 1 else None


def likely_reason(families: Sequence[str], report: Mapping[str, Any]) -> str:
    """What may have led these families astray, in words, from the diagnostics."""
    diagnostics = report["diagnostics"]
    texts = {
        "ratio": _ratio_doubt(diagnostics),
        "value": _value_doubt(diagnostics),
        "model": _model_doubt(diagnostics),
    }
    doubts = [f"{family}: {texts[family]}" for family in families if texts[family]]
    return "; ".join(doubts) or "no diagnostic points to any of them"


def _variance_between(points: Sequence[float], errors: Sequence[float]) -> float:
    if len(points) < 2:
        return 0.0
    weights = [1.0 / error**2 for error in errors]
    total = sum(weights)
    if not math.isfinite(total):
        return (max(points) - min(points)) ** 2
    mean = sum(w * x for w, x in zip(weights, points, strict=True)) / total
    excess = sum(w * (x - mean) ** 2 for w, x in zip(weights, points, strict=True)) - (len(points) - 1)
    scale = total - sum(w**2 for w in weights) / total
    return max(0.0, excess / scale) if scale > 0 else 0.0


def _ratio_doubt(diagnostics: Mapping[str, Any]) -> str:
    parts: list[str] = []
    pareto_k, share = diagnostics.get("pareto_k"), diagnostics.get("max_weight_share")
    if pareto_k is not None and pareto_k >= _CARE_PARETO_K:
        parts.append(f"the weights have a heavy tail (Pareto k {pareto_k:.2f})")
    if share is not None and share >= 0.2:
        parts.append(f"one episode holds {share:.0%} of the weight")
    zs = [z for z in listed(diagnostics, "mean_ratio_z") if z is not None]
    if zs and sum(abs(z) > 3 for z in zs) > 0.05 * len(zs):
        parts.append("the ratios do not average to 1, so the behaviour's density is off")
    return ", ".join(parts)


def _value_doubt(diagnostics: Mapping[str, Any]) -> str:
    parts: list[str] = []
    share = diagnostics.get("support_share")
    if share is not None and share >= 0.05:
        parts.append(f"it extrapolates to {share:.0%} of the policy's actions")
    drift = diagnostics.get("fqe_drift")
    if drift is not None and drift >= 0.01:
        parts.append(f"it still moved by {drift:.1%}")
    return ", ".join(parts)


def _model_doubt(diagnostics: Mapping[str, Any]) -> str:
    parts: list[str] = []
    if diagnostics.get("exploitation_alarm"):
        parts.append("the policy seems to exploit the model")
    share = diagnostics.get("model_disagreement_share")
    if share is not None and share >= 0.05:
        parts.append(f"{share:.0%} of the imagined steps are outside of the data")
    clips = [rate for rate in listed(diagnostics, "clip_rate") if rate is not None]
    if clips and max(clips) >= 0.05:
        parts.append(f"up to {max(clips):.0%} of the predictions of a step were clipped to the data's range")
    return ", ".join(parts)
