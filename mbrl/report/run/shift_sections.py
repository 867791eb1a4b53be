"""How far policies leave their data: the part of a page about distributional shift."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.score_plots import curves, series_of
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import MISSING, format_number, format_share
from mbrl.report.run.training_sections import Records


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    name: str
    label: str
    normal: str
    is_share: bool = False


_LINES: Final = (
    _Line("out_of_support_share", "actions unlike the log's, by density", "1 %", is_share=True),
    _Line("knn_share", "actions far from any logged row", "1 %", is_share=True),
    _Line("rollout_uncertainty_ratio", "model uncertainty along rollouts, over that on the data", "about 1"),
    _Line("rollout_flagged_share", "imagined steps beyond 99 % of the data", "1 %", is_share=True),
    _Line("value_gap", "values above logged returns, deviations", "0; more for a better policy"),
    _Line("value_rank_correlation", "rank correlation of values and logged returns", "near 1"),
    _Line("value_drift", "change of the mean value over the last quarter", "near 0", is_share=True),
    _Line("edge_share", "imagined states that are never trained", "1 in a rollout", is_share=True),
    _Line("edge_value_gap", "values there above those before, deviations", "near 0"),
    _Line("model_error_near_policy", "model's error where the log acts like the policy", "as below"),
    _Line("model_error", "model's error on all held-out segments", "-"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Panel:
    name: str
    title: str
    keys: tuple[str, ...]
    y_label: str
    note: str


_PANELS: Final = (
    _Panel(
        "shift-support",
        "Actions outside of the log",
        ("shift/out_of_support_share", "shift/knn_share"),
        "share of actions",
        "At held-out logged states; 0.01 is normal. A better policy leaves the log somewhere.",
    ),
    _Panel(
        "shift-model",
        "The model's uncertainty along rollouts",
        ("shift/rollout_uncertainty_ratio",),
        "times that on held-out data",
        "From logged states, not cut where the model is unsure.",
    ),
    _Panel(
        "shift-values",
        "Values above the logged returns",
        ("shift/value_gap",),
        "deviations of the returns",
        "The log's returns are the behaviour's: a better policy lies above 0.",
    ),
    _Panel(
        "shift-edge",
        "Values at states that are never trained",
        ("shift/edge_value_gap",),
        "deviations of values",
        "Ends of rollouts, against the states before.",
    ),
)


def shift_section(runs: Mapping[str, Records], reports: Mapping[str, Mapping[str, Any] | None]) -> Section:
    """Alarms, what was measured of each run's last policy, and how it came about.

    Args:
        runs: rows of `metrics.jsonl` by the name of the run.
        reports: JSON of the last `ShiftReport` by the name of the run; None where nothing was measured.
    """
    title = "How far the policy leaves the data"
    known = {name: report for name, report in reports.items() if report is not None}
    if not known:
        return Section(title, text="Nothing was measured: diagnostics were off, or there was no log.")
    tables = [shift_table(known)]
    reasons = _reasons(known)
    if reasons.rows:
        tables.append(reasons)
    return Section(
        title,
        text="Measured without a simulator, on logged episodes that were held out.",
        messages=shift_messages(known),
        pictures=[picture for panel in _PANELS if (picture := _picture(panel, runs)) is not None],
        tables=tables,
    )


def shift_messages(reports: Mapping[str, Mapping[str, Any]]) -> list[Message]:
    """Every alarm, by run where there are several; else that there is none."""
    found = [
        Message(text if len(reports) == 1 else f"{name}: {text}", "caution")
        for name, report in reports.items()
        for text in report["alarms"]
    ]
    if found:
        return found
    if all(report.get(line.name) is None for report in reports.values() for line in _LINES):
        return [Message("Nothing could be measured; the reasons stand below.", "plain")]
    return [Message("No alarm: what was measured stays near the data.", "good")]


def shift_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was measured of each run's last policy, and what is normal."""
    rows: list[list[Cell]] = []
    for line in _LINES:
        values = [report.get(line.name) for report in reports.values()]
        if all(value is None for value in values):
            continue
        rows.append([line.label, *(_cell(line, value) for value in values), line.normal])
    return Table("The last policy against its log", ["", *reports, "normal"], rows)


def _cell(line: _Line, value: float | None) -> str:
    if value is None:
        return MISSING
    return format_share(value) if line.is_share else format_number(value)


def _reasons(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    labels = {line.name: line.label for line in _LINES}
    rows = [
        (name, labels[missing], reason)
        for name, report in reports.items()
        for missing, reason in report["why_not"].items()
    ]
    return Table("What was not measured, and why", ("run", "", "reason"), rows)


def _picture(panel: _Panel, runs: Mapping[str, Records]) -> Picture | None:
    # one look is no course
    having = {n: r for n, r in runs.items() if any(len(series_of(r, key)[0]) > 1 for key in panel.keys)}
    if not having:
        return None
    keys = [key for key in panel.keys if any(series_of(records, key)[0] for records in having.values())]
    ends = ", ".join(f"{name} ends at {_last(records, keys[0])}" for name, records in having.items())
    return Picture(
        panel.name,
        panel.title,
        curves(having, keys, y_label=panel.y_label),
        alt=f"{panel.title} against updates; {ends}.",
        note=panel.note,
    )


def _last(records: Records, key: str) -> str:
    values = series_of(records, key)[1]
    return format_number(values[-1]) if values else "-"
