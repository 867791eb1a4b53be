"""How far a policy leaves its data: the report, and its alarms in plain words.

Nothing here needs a simulator. The statistics are made by `mbrl.shift.probe`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from mbrl.shift.support import NOMINAL_SHARE

OUTSIDE_SHARE: Final = 0.25
"""Share of actions outside of the support that alarms: 25 times nominal. A better policy must leave the log
somewhere; when a quarter of its actions are foreign, most rollouts of a few steps contain one."""

FLAGGED_SHARE: Final = 0.25
"""Share of imagined steps beyond the data's 0.99 quantile that alarms, by the same reasoning."""

UNCERTAINTY_RATIO: Final = 2.0
"""Uncertainty along rollouts over that of held-out data that alarms. Where disagreement is distributed about
exponentially, e^-2 of the data exceeds twice its mean: the average imagined step is then one of the data's
rarest seventh."""

HUGE_GAP: Final = 10.0
"""Gap between values and logged returns, deviations of the returns, that alarms even where rewards permit it:
no spread of policies in a log supports a claim of ten of its deviations on average."""

DRIFT: Final = 0.25
"""Relative change of the mean value over the last quarter that alarms at the end of a training. A value that
grows at a constant rate changes by a third; one that nears its limit, by less."""

EDGE_GAP: Final = 1.0
"""Excess of the value at states that are bootstrap targets only, deviations of V over the data, that alarms.
Within one rollout values move by a fraction of the spread that all of the data has."""

MODEL_ERROR_RATIO: Final = 2.0
"""Open-loop error near the policy's actions over that of all held-out segments that alarms."""

MODEL_ERROR: Final = 0.03
"""Least such error that alarms, deviations of the observations: a tenth of what a trusted horizon tolerates.
Below it a model is good wherever the policy goes, however much better it is elsewhere."""

MEASURED: Final = (
    "out_of_support_share",
    "knn_share",
    "rollout_uncertainty_ratio",
    "rollout_flagged_share",
    "value_gap",
    "value_rank_correlation",
    "value_drift",
    "edge_share",
    "edge_value_gap",
    "model_error_near_policy",
)
"""The statistics of a report; each is a finite number, or None with a reason in `why_not`."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShiftReport:
    """A policy held against its log; what could not be measured is None, and `why_not` says why.

    Attributes:
        step: updates done.
        updates: length of the training.
        out_of_support_share: of the policy's actions at held-out logged states, those less likely under the
            fitted behaviour than 99 % of the logged actions; 0.01 for the behaviour itself.
        knn_share: the same by distance to the 5 nearest logged (s, a); 0.01 for the behaviour itself.
        rollout_uncertainty_ratio: mean unit-free uncertainty of the model along rollouts of the policy from
            logged states, over its mean on held-out rows; 1 for the behaviour in a perfect model.
        rollout_flagged_share: of those steps, the uncertainty of which exceeds its 0.99 quantile on the data.
        value_gap: mean of Q(s, a) minus the logged return from (s, a) on, deviations of these returns. They
            are the behaviour's: a better policy has a positive gap.
        value_gap_low: least gap that the rewards permit, same units.
        value_gap_high: largest gap that the rewards permit, same units.
        value_rank_correlation: Spearman's, of Q(s, a) and the logged returns.
        value_drift: change of the mean V on fixed states since `value_drift_since`, relative to its size (or
            its deviation over the states, if larger).
        value_drift_since: the earlier update, about three quarters of `step`.
        mean_value: mean V on the fixed states, return units.
        edge_share: of the imagined states that targets bootstrap from, those that no update starts from.
        edge_value_gap: V there minus the mean V of the other states of the rollout, deviations of V over the
            data (Sims et al. 2024, "The edge-of-reach problem").
        model_error_near_policy: median open-loop error after `model_error_horizon` steps on held-out segments
            whose logged actions lie near the policy's, deviations of the observations.
        model_error: the same over all held-out segments.
        model_error_horizon: steps.
        rows: how many rows each statistic rests on.
        why_not: reasons by the name of a statistic.
    """

    step: int
    updates: int
    out_of_support_share: float | None = None
    knn_share: float | None = None
    rollout_uncertainty_ratio: float | None = None
    rollout_flagged_share: float | None = None
    value_gap: float | None = None
    value_gap_low: float | None = None
    value_gap_high: float | None = None
    value_rank_correlation: float | None = None
    value_drift: float | None = None
    value_drift_since: int | None = None
    mean_value: float | None = None
    edge_share: float | None = None
    edge_value_gap: float | None = None
    model_error_near_policy: float | None = None
    model_error: float | None = None
    model_error_horizon: int | None = None
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    why_not: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    @property
    def is_final(self) -> bool:
        """Whether the training is over."""
        return self.step >= self.updates

    def metrics(self) -> dict[str, float]:
        """What was measured, by names for a log, `shift/...`."""
        # What could not be measured is left out: a metrics file has no number for "not known".
        values = {name: getattr(self, name) for name in (*MEASURED, "mean_value")}
        return {f"shift/{name}": float(value) for name, value in values.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain values, the alarms among them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {"rows": dict(self.rows), "why_not": dict(self.why_not), "alarms": alarms_of(self)}
        return {**fields, **plain}


def alarms_of(report: ShiftReport) -> list[str]:
    """What is alarming in a report, one plain sentence and its remedy each."""
    return list(alarms_by_kind(report).values())


def alarms_by_kind(report: ShiftReport) -> dict[str, str]:
    """The alarms by a short name, which stays the same while an alarm goes on."""
    found = {
        "support": _support_alarm(report),
        "rollout": _rollout_alarm(report),
        "value": _value_alarm(report),
        "rank": _rank_alarm(report),
        "drift": _drift_alarm(report),
        "edge": _edge_alarm(report),
        "model": _model_alarm(report),
    }
    return {kind: text for kind, text in found.items() if text is not None}


def _support_alarm(report: ShiftReport) -> str | None:
    unlikely, distant = report.out_of_support_share, report.knn_share
    parts: list[str] = []
    # Two views of one thing: a likely action at a strange state is seen by the distance alone.
    if unlikely is not None and unlikely > OUTSIDE_SHARE:
        parts.append(f"{unlikely:.0%} of the policy's actions are ones that the log almost never takes there")
    if distant is not None and distant > OUTSIDE_SHARE:
        parts.append(f"{distant:.0%} of them are far from any logged row" if parts else _distant(distant))
    if not parts:
        return None
    return (
        f"{', and '.join(parts)} ({NOMINAL_SHARE:.0%} would be normal): what is believed of them is "
        "extrapolation. Remedy: hold the policy closer to the data, or log such actions."
    )


def _distant(share: float) -> str:
    return f"{share:.0%} of the policy's actions at logged states are far from any logged row"


def _rollout_alarm(report: ShiftReport) -> str | None:
    ratio, flagged = report.rollout_uncertainty_ratio, report.rollout_flagged_share
    parts: list[str] = []
    if ratio is not None and ratio > UNCERTAINTY_RATIO:
        parts.append(f"is {ratio:.1f} times as unsure as on held-out data")
    if flagged is not None and flagged > FLAGGED_SHARE:
        parts.append(f"at {flagged:.0%} of the steps is less sure than on 99 % of the data")
    if not parts:
        return None
    return (
        f"Along the policy's rollouts the model {', and '.join(parts)}: the policy goes where the model does "
        "not know. Remedy: a larger penalty, shorter rollouts, or truncation at an uncertainty quantile."
    )


def _value_alarm(report: ShiftReport) -> str | None:
    gap, low, high = report.value_gap, report.value_gap_low, report.value_gap_high
    if gap is None:
        return None
    remedy = "Remedy: more critics, LayerNorm in the critics, or a stronger constraint to the data."
    # Bounds first: beyond them the values are wrong for certain,
    # whatever the policy; a huge gap is only unlikely.
    if high is not None and gap > high:
        return (
            f"The values lie {gap:.1f} deviations above the logged returns on average; the rewards permit no "
            f"policy more than {high:.1f}. The critics are wrong. {remedy}"
        )
    if low is not None and gap < low:
        return (
            f"The values lie {-gap:.1f} deviations below the logged returns on average; the rewards permit "
            f"no policy to fall short by more than {-low:.1f}. The critics are wrong. Remedy: less "
            "pessimism, or a lower critic learning rate."
        )
    if gap > HUGE_GAP:
        return (
            f"The values promise {gap:.1f} deviations more than the logged returns on average: no log "
            f"supports such a claim. {remedy}"
        )
    return None


def _rank_alarm(report: ShiftReport) -> str | None:
    correlation = report.value_rank_correlation
    # Only a reversed order alarms: a better policy orders steps in another way than the log's own returns.
    if correlation is None or correlation >= 0:
        return None
    return (
        f"The values order the logged steps the other way round than their returns (rank correlation "
        f"{correlation:.2f}): do not trust them. Remedy: train longer; check the rewards with mbrl inspect."
    )


def _drift_alarm(report: ShiftReport) -> str | None:
    drift, since = report.value_drift, report.value_drift_since
    # Values have to move while they are learned; at the end they should have settled.
    if drift is None or not report.is_final or abs(drift) <= DRIFT:
        return None
    return (
        f"The mean value still moved by {drift:+.0%} since update {since}: the values have not settled. "
        "Remedy: train longer; if they keep growing, use more critics or LayerNorm in the critics."
    )


def _edge_alarm(report: ShiftReport) -> str | None:
    share, gap = report.edge_share, report.edge_value_gap
    # The gap alarms and not the share: short rollouts are mostly edge, which does no harm where values agree.
    if share is None or gap is None or gap <= EDGE_GAP:
        return None
    return (
        f"{share:.0%} of the imagined states are only ever bootstrapped from, never trained, and their "
        f"values lie {gap:.1f} deviations above those of the states before: the policy may chase values that "
        "nothing corrects. Remedy: longer rollouts, or more critics."
    )


def _model_alarm(report: ShiftReport) -> str | None:
    near, everywhere = report.model_error_near_policy, report.model_error
    # Relative and absolute: twice of next to nothing is no reason for concern.
    if near is None or everywhere is None or near <= max(MODEL_ERROR_RATIO * everywhere, MODEL_ERROR):
        return None
    return (
        f"Where the log acts like the policy the model errs by {near:.2g} deviations after "
        f"{report.model_error_horizon} steps, elsewhere by {everywhere:.2g}: it is worst where it is used. "
        "Remedy: log more of such actions, or shorter rollouts."
    )
