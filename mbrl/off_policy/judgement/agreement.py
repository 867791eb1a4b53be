"""Do the families tell the same story? Their spread, a pooled interval, the odd one out and why."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

from mbrl.core.estimates import Family
from mbrl.off_policy.judgement.families import CountedFamily
from mbrl.off_policy.judgement.report.concluded import Agreement
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Diagnostics
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.statistics.bounds import NORMAL_95

NO_ERROR_Z: Final = 1e9
"""Standard errors between two families that differ and have no error: JSON has no infinity."""

_LEAST_SE: Final = 1e-75
"""Standard error that stands for 0: its weight `1 / se^2`, and the square of that, are still numbers."""

# From here on a diagnostic is named as a likely reason of a conflict: half of what keeps a family from
# counting, or less, since a family that counts has passed the whole.
_CAREFUL_PARETO_K: Final = 0.5
"""Tail shape of the weights from which on their mean converges slowly (Vehtari et al. 2024)."""

_LARGE_WEIGHT_SHARE: Final = 0.2
"""Share of the weight on one episode."""

_LARGE_RATIO_Z: Final = 3.0
"""Standard errors by which the mean ratio of a step misses 1."""

_LARGE_SHARE: Final = 0.05
"""Share of such steps, of actions or imagined steps outside of the data, or of clipped predictions."""

_LARGE_DRIFT: Final = 0.01
"""Relative movement of a fitted value at the end of its fit."""


def disagreement(families: Sequence[CountedFamily]) -> float | None:
    """`max |m_f - m_h| / sqrt(se_f^2 + se_h^2)` over pairs of families; None below two."""
    return max((pair_z(f, h) for f, h in itertools.combinations(families, 2)), default=None)


def pair_z(first: CountedFamily, second: CountedFamily) -> float:
    """Difference of two families in standard errors; `NO_ERROR_Z` where neither has an error."""
    gap, spread = abs(first.point - second.point), math.hypot(first.se, second.se)
    return gap / spread if spread > 0 else (0.0 if gap == 0 else NO_ERROR_Z)


def agreement(
    families: Sequence[CountedFamily],
    report: Measured,
    rule: JudgeRule = DEFAULT_RULE,
    *,
    paired_z: float | None = None,
) -> Agreement:
    """Whether the families that count agree.

    Args:
        families: that count.
        report: where likely reasons are looked for.
        rule: what counts as a conflict.
        paired_z: largest difference of two of them, with what they share cancelled; None if not known.
    """
    points = [family.point for family in families]
    z = disagreement(families)
    is_conflict = z is not None and z >= rule.most_disagreement
    outlier = find_outlier(families, rule) if is_conflict else None
    suspects: list[Family] = [outlier] if outlier is not None else [family.family for family in families]
    return Agreement(
        families_used=tuple(family.family for family in families),
        spread=max(points) - min(points) if len(points) > 1 else None,
        pooled_ci=pool(families) if families else None,
        z=z,
        outlier=outlier,
        likely_reason=likely_reason(suspects, report.diagnostics) if is_conflict else None,
        paired_z=paired_z if len(families) > 1 else None,
    )


def pool(families: Sequence[CountedFamily]) -> tuple[float, float]:
    """95 % interval of a common value from all families.

    Weights are `w_f = 1 / (se_f^2 + tau^2)`, normalised, with the variance tau^2 between families of
    DerSimonian & Laird 1986 (eq. 8). Families share the data, so their errors may be wholly dependent: the
    standard deviation of the weighted mean is at most `sum_f w_f sqrt(se_f^2 + tau^2)`, which is used.
    """
    errors = [max(family.se, _LEAST_SE) for family in families]
    tau2 = _variance_between([family.point for family in families], errors)
    raw = [1.0 / (error**2 + tau2) for error in errors]
    weights = [w / sum(raw) for w in raw]
    centre = sum(w * family.point for w, family in zip(weights, families, strict=True))
    half = NORMAL_95 * sum(w * math.sqrt(error**2 + tau2) for w, error in zip(weights, errors, strict=True))
    return centre - half, centre + half


def find_outlier(families: Sequence[CountedFamily], rule: JudgeRule = DEFAULT_RULE) -> Family | None:
    """The one family without which the others agree; None below three families, or if it is not unique."""
    if len(families) < 3:
        return None
    alone: list[Family] = [
        family.family
        for family in families
        if (disagreement([f for f in families if f is not family]) or 0.0) < rule.most_disagreement
    ]
    return alone[0] if len(alone) == 1 else None


def likely_reason(families: Sequence[Family], diagnostics: Diagnostics) -> str:
    """What may have led these families astray, in words, from the diagnostics."""
    warnings: Mapping[Family, str] = {
        "ratio": _ratio_warnings(diagnostics),
        "value": _value_warnings(diagnostics),
        "model": _model_warnings(diagnostics),
    }
    found = [f"{family}: {warnings[family]}" for family in families if warnings[family]]
    return "; ".join(found) or "no diagnostic points to any of them"


def _variance_between(points: Sequence[float], errors: Sequence[float]) -> float:
    """tau^2 of DerSimonian & Laird 1986 (eq. 8), from points and their standard errors."""
    if len(points) < 2:
        return 0.0
    weights = [1.0 / error**2 for error in errors]
    total = sum(weights)
    mean = sum(w * x for w, x in zip(weights, points, strict=True)) / total
    # Cochran's Q, less the k - 1 that it is in expectation where tau = 0.
    excess = sum(w * (x - mean) ** 2 for w, x in zip(weights, points, strict=True)) - (len(points) - 1)
    scale = total - sum(w**2 for w in weights) / total
    return max(0.0, excess / scale) if scale > 0 else 0.0


def _ratio_warnings(diagnostics: Diagnostics) -> str:
    parts: list[str] = []
    pareto_k, share = diagnostics.pareto_k, diagnostics.max_weight_share
    if pareto_k is not None and pareto_k >= _CAREFUL_PARETO_K:
        parts.append(f"the weights have a heavy tail (Pareto k {pareto_k:.2f})")
    if share is not None and share >= _LARGE_WEIGHT_SHARE:
        parts.append(f"one episode holds {share:.0%} of the weight")
    zs = [z for z in diagnostics.mean_ratio_z or () if z is not None]
    if zs and sum(abs(z) > _LARGE_RATIO_Z for z in zs) > _LARGE_SHARE * len(zs):
        parts.append("the ratios do not average to 1, so the behaviour's density is off")
    return ", ".join(parts)


def _value_warnings(diagnostics: Diagnostics) -> str:
    parts: list[str] = []
    share, drift = diagnostics.support_share, diagnostics.fqe_drift
    if share is not None and share >= _LARGE_SHARE:
        parts.append(f"it extrapolates to {share:.0%} of the policy's actions")
    if drift is not None and drift >= _LARGE_DRIFT:
        parts.append(f"it still moved by {drift:.1%}")
    return ", ".join(parts)


def _model_warnings(diagnostics: Diagnostics) -> str:
    parts: list[str] = []
    if diagnostics.exploitation_alarm:
        parts.append("the policy seems to exploit the model")
    share = diagnostics.model_disagreement_share
    if share is not None and share >= _LARGE_SHARE:
        parts.append(f"{share:.0%} of the imagined steps are outside of the data")
    clips = [rate for rate in diagnostics.clip_rate or () if rate is not None]
    if clips and max(clips) >= _LARGE_SHARE:
        parts.append(f"up to {max(clips):.0%} of the predictions of a step were clipped to the data's range")
    return ", ".join(parts)
