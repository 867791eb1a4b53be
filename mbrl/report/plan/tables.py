"""What planning on top of a policy did, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.planning.improvement.audit import PlanAudit
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import MISSING, format_interval, format_number, format_share

_MOST_ROWS: Final = 12
"""Steps of a plan that a table shows: a screen of a terminal, with what stands around them."""


def plan_table(summary: Mapping[str, Any]) -> Table:
    """Returns of the planner and of the policy alone, the paired gain, speed and uncertainty.

    Args:
        summary: of a `plan` stage.
    """
    plans, calibration = summary["plans"], summary["calibration"]
    rows: list[tuple[str, Cell]] = [
        ("budget of a call", _budget(summary["config"])),
        ("episodes", len(summary["episode_returns"])),
        ("mean return, planner", format_interval(summary["return_interval"])),
        ("mean return, policy alone", format_interval(summary["policy_interval"])),
        ("gain, paired by starts", format_interval(summary["gain_interval"])),
        ("gate", _gate(summary.get("gate"))),
        ("gain in the model, per state", _certificate(summary.get("certificate"))),
        ("plans per second", plans.get("plans_per_second")),
        ("milliseconds p50, p95, p99", _milliseconds(plans.get("milliseconds"))),
        ("states per call", plans.get("batch")),
        ("deadline misses", _misses(plans)),
        ("plans that fell back", format_share(plans.get("fallback_share"))),
        ("simulations per plan", plans.get("sims_per_plan")),
        ("mean uncertainty of actions", plans.get("uncertainty")),
        ("penalty lambda, deviations kappa", _coefs(calibration, summary["config"]["pessimism"])),
        ("values at leaves", _critic(summary)),
        *_limits(summary.get("limits"), plans),
    ]
    return Table(
        f"{summary['planner']} on {summary['algorithm']}, task {summary['task']}", ("", "value"), rows
    )


def audit_table(audit: PlanAudit) -> Table:
    """Every estimate of gains: how it ranks actions, and what the one that it likes best really gave."""
    rows = [
        (
            row.name,
            _with_ends(row.correlation, row.interval),
            format_share(row.acts),
            row.predicted,
            _with_ends(row.realised, row.realised_interval),
        )
        for row in audit.rows
    ]
    steps = f", {audit.true_steps:,} steps" if audit.true_steps else ""
    caption = (
        f"Gains over the policy {audit.policy} at {audit.states} states, {audit.candidates} candidates each, "
        f"against the {audit.truth}{steps}"
    )
    columns = ("estimated by", "rank correlation", "acts", "predicted", "realised")
    return Table(caption, columns, rows)


def _with_ends(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return MISSING
    ends = "" if interval is None else f" [{', '.join(map(format_number, interval))}]"
    return f"{format_number(value)}{ends}"


def budget_table(plannings: Sequence[Mapping[str, Any]]) -> Table:
    """Plannings of a comparison, one row each: return beside that of the policy alone, time, deadline misses.

    Args:
        plannings: plain values, means over seeds.
    """
    rows = [
        (
            f"{entry['algorithm']} on {entry['dataset']}",
            entry["seeds"],
            entry["mean_return"],
            entry["policy_return"],
            entry["gain"],
            _milliseconds(entry["milliseconds"]),
            format_share(entry["deadline_miss_share"]) if entry["deadline_miss_share"] is not None else "-",
            entry["sims_per_plan"],
        )
        for entry in plannings
    ]
    columns = ("planner", "seeds", "return", "policy", "gain", "ms p50, 95, 99", "missed", "sims")
    return Table("planning, means over seeds", columns, rows)


def candidate_table(explanation: Mapping[str, Any]) -> Table:
    """What was considered at one state, from the heaviest down; a tree search tells what it is worth as well.

    Args:
        explanation: plain values of one plan.
    """
    keys, columns = ("source", "weight", "visits"), ("action in [-1, 1]", "source", "weight", "visits")
    searched, entries = explanation.get("search"), explanation["candidates"]
    if searched is not None:
        keys, entries = (*keys, "q", "q_lcb", "min_q", "min_member"), searched["candidates"]
        columns = (*columns, "Q", "bound", "least", "member")
    rows = [(_action(entry["action"]), *(entry[key] for key in keys)) for entry in entries[:_MOST_ROWS]]
    caption = f"{explanation['planner']} at state {explanation['state']}: candidates"
    return Table(caption, columns, rows)


def trace_table(explanation: Mapping[str, Any]) -> Table:
    """The steps of one plan with what they are worth and the member with the least value.

    Args:
        explanation: plain values of one plan.
    """
    keys = ("reward", "penalty", "value", "spread", "uncertainty", "min_member")
    rows = [
        (number, _action(step["action"]), *(step[key] for key in keys))
        for number, step in enumerate(explanation["plan_trace"], start=1)
    ]
    columns = ("step", "action", "reward", "penalty", "r + g V", "spread", "uncertainty", "least member")
    return Table("steps of the plan", columns, rows)


def _action(action: Sequence[float]) -> str:
    text = ", ".join(f"{value:+.2f}" for value in action[:3])
    return text + (", ..." if len(action) > 3 else "")


def _budget(config: Mapping[str, Any]) -> str:
    sims, ms = config.get("sims"), config.get("milliseconds")
    parts = [f"{sims:,} simulations"] if sims is not None else []
    parts += [f"{format_number(ms)} ms"] if ms is not None else []
    return ", ".join(parts)


def _milliseconds(values: Mapping[str, float] | None) -> str:
    if not values:
        return MISSING
    return ", ".join(format_number(values[name]) for name in ("p50", "p95", "p99"))


def _misses(plans: Mapping[str, Any]) -> str:
    misses = plans.get("deadline_misses")
    return "no deadline" if misses is None else f"{misses:,} of {plans['calls']:,}"


def _certificate(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None:
        return MISSING
    low = certificate["low"]
    end = MISSING if low is None else format_number(low)
    return f"{format_number(certificate['mean'])}, at least {end} (95 %, if the model is right)"


def _gate(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return "none: every gain is acted upon"
    if gate["threshold"] is None:
        return "closed, the policy acts"
    return f"open above an estimated gain of {format_number(gate['threshold'])}"


def _limits(limits: Mapping[str, Any] | None, plans: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """What the log and the plans break and cost; nothing where nothing is limited."""
    if limits is None:
        return []
    rows: list[tuple[str, Cell]] = []
    if limits["constraint"] is not None:
        share = format_share(limits["max_violation"])
        rows = [
            ("constraint", f"{limits['constraint']}, broken in {share} of a plan's futures at most"),
            ("broken in the log", f"{format_share(limits['steps_broken'])} of the steps, "
             f"{format_share(limits['episodes_broken'])} of the episodes"),
            ("broken in futures of the plans", format_share(plans.get("broken_share"))),
        ]  # fmt: skip
    if limits["cost"] is not None:
        rows += [
            ("cost of a step", limits["cost"]),
            ("cost of logged episodes, mean", limits["cost_per_episode"]),
            ("cost of plans, mean", plans.get("cost_per_plan")),
        ]
    return [*rows, ("plans beyond their limits, none better left", format_share(plans.get("beyond_limits")))]


def _critic(summary: Mapping[str, Any]) -> str:
    return summary["critic"] + (", did not converge" if summary.get("critic_converged") is False else "")


def _coefs(calibration: Mapping[str, Any], scale: float) -> str:
    used = ", ".join(format_number(scale * calibration[key]) for key in ("penalty_coef", "lcb_coef"))
    return used if scale == 1.0 else f"{used} ({format_number(scale)} times the calibrated ones)"
