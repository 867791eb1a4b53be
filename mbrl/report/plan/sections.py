"""Sections about planning: one planner on top of a policy, and the planners of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.plots import Dots, Line
from mbrl.report.kit.wording import format_number, format_share, read_interval
from mbrl.report.plan.plots import budget_figure, gain_figure, gate_figure, return_figure
from mbrl.report.plan.tables import budget_table, plan_table

_GAIN = (
    "At each held-out state: the lower bound of the plan, less that of the policy's action, by the model. It "
    "is as good as the model, and no estimate of a return."
)


_GATE = (
    "At held-out states the planner's action was followed by the policy in a model that neither of them met, "
    "beside the policy's own action. Estimated gains are believed from the level on at which these gains "
    "were sure to be positive."
)


def plan_sections(summary: Mapping[str, Any]) -> list[Section]:
    """Return beside that of the policy alone, the gate, and the gain in the model over logged states.

    Args:
        summary: of a `plan` stage.
    """
    sections = [Section("Return", pictures=[_returns(summary)], tables=[plan_table(summary)])]
    gate = summary.get("gate")
    if gate is not None and gate["estimated"]:
        sections.append(Section("Gate", f"{gate['verdict']} {_GATE}", pictures=[_gate(gate)]))
    certificate = summary.get("certificate")
    if certificate is not None:
        sections.append(Section("Gain in the model", _GAIN, pictures=[_gains(certificate)]))
    return sections


def budget_sections(plannings: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return of every planner beside that of the policy alone, with its time; nothing without planners.

    Args:
        plannings: of a comparison, means over seeds.
    """
    if not plannings:
        return []
    text = "Gain is over the same policy without planning, from the same starts, in units of the return."
    pictures = [_budgets(dataset, policy, curves) for (dataset, policy), curves in _groups(plannings).items()]
    return [Section("Planning", text, pictures=pictures, tables=[budget_table(plannings)])]


def _returns(summary: Mapping[str, Any]) -> Picture:
    rows = [
        Dots(label, summary[returns], read_interval(summary[interval]))
        for label, returns, interval in (
            (summary["planner"], "episode_returns", "return_interval"),
            ("policy alone", "policy_returns", "policy_interval"),
        )
    ]
    return Picture(
        "returns",
        "Return of each episode",
        return_figure(*rows),
        alt="; ".join(
            f"{row.label}: mean {format_number(row.interval.estimate)}" for row in rows if row.interval
        ),
        note="Bars: 95 % intervals of the means over episodes.",
    )


def _gate(gate: Mapping[str, Any]) -> Picture:
    share = f"{len(gate['estimated'])} of {gate['asked']} states seem to gain"
    points = [
        f"{format_number(point['realised'])} in {point['states']} above {format_number(point['level'])}"
        for point in gate["points"]
    ]
    correlation = "" if gate["correlation"] is None else f" Rank correlation {gate['correlation']:.2f}."
    return Picture(
        "gate",
        "Estimated and realised gain",
        gate_figure(gate),
        alt=f"{share}; realised {'; '.join(points)}.",
        note=f"{share}.{correlation} Bars reach down to the lower ends of the intervals.",
    )


def _gains(certificate: Mapping[str, Any]) -> Picture:
    share = f"{format_share(certificate['improved'])} of {certificate['states']} states gain"
    return Picture(
        "gains",
        "Gain over the policy at logged states",
        gain_figure(certificate),
        alt=f"{share}; mean {format_number(certificate['mean'])}.",
        note=f"{share}. The bound resamples {certificate['episodes']} held-out episodes.",
    )


def _groups(
    plannings: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]]:
    """Calibrated plannings with a deadline by dataset and policy, then by planner, those with two budgets."""
    groups: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for entry in plannings:
        if entry["budget_milliseconds"] is not None and entry["pessimism"] == 1.0:
            curves = groups.setdefault((entry["dataset"], entry["policy"]), {})
            curves.setdefault(entry["planner"], []).append(entry)
    with_two = {
        key: {name: _by_budget(entries) for name, entries in curves.items() if len(_by_budget(entries)) > 1}
        for key, curves in groups.items()
    }
    return {key: curves for key, curves in with_two.items() if curves}


def _by_budget(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One for each budget, in order; of several with the same one the first of the config."""
    first = {float(entry["budget_milliseconds"]): entry for entry in reversed(entries)}
    return [first[budget] for budget in sorted(first)]


def _budgets(dataset: str, policy: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    lines = [
        Line(
            name,
            [entry["budget_milliseconds"] for entry in entries],
            [entry["mean_return"] for entry in entries],
            [min(entry["returns_by_seed"]) for entry in entries],
            [max(entry["returns_by_seed"]) for entry in entries],
        )
        for name, entries in curves.items()
    ]
    alone = next(iter(curves.values()))[0]["policy_return"]
    text = [f"{line.label}: {', '.join(format_number(value) for value in line.y)}" for line in lines]
    return Picture(
        f"budgets-{dataset}-{policy}".replace("_", "-"),
        f"Return against time: planning on {policy}, {dataset}",
        budget_figure(lines, alone),
        alt=f"Policy alone {format_number(alone)}; {'; '.join(text)}.",
        note="Bands: from the least to the largest seed.",
    )
