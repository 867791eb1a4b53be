"""The fields that every deployment report has: a number that cannot be had is null, with the reason."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "estimand": ("text", "discount", "horizon", "normalised"),
    "data": (
        "episodes",
        "steps",
        "terminals",
        "time_outs",
        "length_quantiles",
        "behaviour",
        "fit_nll",
        "calibration_error",
        "return_std",
    ),
    "diagnostics": (
        "ess_t",
        "effective_horizon",
        "max_weight_share",
        "pareto_k",
        "mean_ratio_z",
        "support_share",
        "clipped_mass",
        "fqe_drift",
        "heat",
        "support_by_time",
        "support_by_place",
        "model_disagreement_share",
        "stopped",
        "clip_rate",
        "exploitation_alarm",
    ),
    "backtest": ("policy", "truth", "z"),
    "baseline": ("policy", "value", "se", "ci95", "paired"),
    "agreement": (
        "families_used",
        "spread",
        "pooled_ci",
        "z",
        "paired_z",
        "outlier",
        "likely_reason",
    ),
    "risk": ("event", "threshold", "limit", "text", "p_violation", "cvar10", "sources"),
    "next_data": ("episodes", "policy", "states", "half_width_now", "half_width_then", "shrink"),
}
"""Section and key of every field, beside `estimates` and `verdict`."""

REASONS: Final[Mapping[str, str]] = {
    "data.fit_nll": "no density of the behaviour was fitted",
    "data.calibration_error": "no density of the behaviour was fitted",
    "diagnostics.model_disagreement_share": "no model was rolled out",
    "diagnostics.stopped": "no model was rolled out",
    "diagnostics.clip_rate": "no model was rolled out",
    "diagnostics.exploitation_alarm": "no model was rolled out",
    "backtest": "no estimator was asked for the behaviour's known value",
    "agreement.spread": "fewer than two families count",
    "agreement.pooled_ci": "no family counts",
    "agreement.z": "fewer than two families count",
    "agreement.paired_z": "fewer than two families count",
    "agreement.outlier": "the families do not conflict, or no single one stands apart",
    "agreement.likely_reason": "the families do not conflict",
    "risk.threshold": "the event is not about the return",
    "risk.limit": "no limit was asked for",
    "estimand.horizon": "all steps count",
}
"""Why a field is null if nothing more special is known."""

_UNKNOWN: Final = "it was not measured"


def complete(report: Mapping[str, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """The report with every field, finite or null, and `why_not` with a reason for each null.

    Args:
        report: sections; further keys stay.
        reasons: by `section.key`, or by `section` for all of its fields.
    """
    whole = dict(cast("Mapping[str, Any]", finite(report)))
    why_not: dict[str, str] = {}
    for section, keys in FIELDS.items():
        found: dict[str, Any] = dict(part(whole, section))
        for key in keys:
            found.setdefault(key, None)
            if found[key] is None:
                path = f"{section}.{key}"
                why_not[path] = next(
                    (r[name] for name in (path, section) for r in (reasons, REASONS) if name in r), _UNKNOWN
                )
        whole[section] = found
    return {**whole, "why_not": why_not}


def part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section or sub-section; empty where it is null or absent."""
    return values.get(name) or {}


def listed(values: Mapping[str, Any], name: str) -> Sequence[Any]:
    """A list; empty where it is null or absent."""
    return values.get(name) or ()


def finite(value: Any) -> Any:
    """Plain values with None in place of every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in cast("list[Any]", value)]
    return value
