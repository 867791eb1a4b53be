"""What the inspection of a dataset found, as tables and in words."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mbrl.data.dataset import Dataset
from mbrl.data.importing.report import ImportReport
from mbrl.data.inspection.choices import ChoiceStats
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.report import Inspection, RawFacts
from mbrl.data.inspection.stats import DatasetStats, Dimension, Distribution
from mbrl.report.kit.message import Message, Tone
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_count, format_number, format_share

_CENTRE_DIMS = 4
"""Dimensions of a cell's centre that are shown."""

_TONES: dict[str, Tone] = {"error": "bad", "warning": "caution", "note": "plain"}


def inspection_tables(report: Inspection) -> list[Table]:
    """Findings, sizes, and one row for each dimension."""
    tables: list[Table] = []
    if report.findings:
        rows = [(finding.severity, finding.text, finding.remedy) for finding in report.findings]
        tables.append(Table(f"Findings on {report.name}", ("severity", "what", "what to do"), rows))
    if report.raw is not None:
        tables += raw_tables(report.name, report.raw)
    if report.stats is None:
        return tables
    stats = report.stats
    if report.making:
        tables.append(making_table(report.making))
    tables.append(Table(f"Contents of {report.name}", ("", "value"), _sizes(stats)))
    tables.append(_summaries(stats))
    tables.append(dimension_table("Observations", stats.observations))
    if stats.choices is None:
        tables.append(dimension_table("Actions", stats.actions))
    else:
        tables += choice_tables(stats.choices, [d.name for d in stats.observations])
    return tables


def choice_tables(stats: ChoiceStats, dimensions: Sequence[str]) -> list[Table]:
    """How often each choice was taken, and the cells of states in which some never were.

    Args:
        stats: of the log.
        dimensions: names of the observation's dimensions.
    """
    steps, cells = sum(choice.count for choice in stats.choices), len(stats.cells)
    has_masks = any(choice.allowed is not None for choice in stats.choices)
    counts = [
        [
            choice.name,
            choice.count,
            format_share(choice.count / steps),
            choice.episodes,
            f"{choice.cells} of {cells}",
            *([format_share(choice.allowed or 0.0)] if has_masks else []),
        ]
        for choice in stats.choices
    ]
    columns = ["choice", "steps", "share", "episodes", "cells of states", *(["allowed"] if has_masks else [])]
    entropies = (
        f"entropy {format_number(stats.entropy)} nats, within cells {format_number(stats.state_entropy)}, of "
        f"even choices {format_number(math.log(len(stats.choices)))}"
    )
    tables = [Table(f"Choices: {entropies}", columns, counts)]
    lacking = [cell for cell in stats.cells if cell.missing]
    if lacking:
        shown = dimensions[:_CENTRE_DIMS]
        rows = [
            [cell.rows, *map(format_number, cell.centre[:_CENTRE_DIMS]), ", ".join(cell.missing)]
            for cell in lacking
        ]
        heads = ["steps", *(f"mean {name}" for name in shown), "never taken"]
        tables.append(Table("Cells of states in which choices were never taken", heads, rows))
    return tables


def raw_tables(name: str, raw: RawFacts) -> list[Table]:
    """Sizes of raw files, and a row for each column."""
    sizes = [
        ("files", raw.files),
        ("runs", raw.traces),
        ("rows", raw.rows),
        ("seconds", raw.seconds),
        ("ms between rows, fastest run", 1e3 * raw.least_interval),
        ("ms between rows, slowest run", 1e3 * raw.largest_interval),
        ("schema", "guessed" if raw.is_guessed else "given"),
    ]
    return [
        Table(f"Files of {name}", ("", "value"), sizes),
        Table("Columns", ("name", "role", "column", "least", "largest"), raw.channels),
    ]


def making_table(making: Mapping[str, str]) -> Table:
    """The import schema, rules and origin of a dataset, a row for each entry."""
    rows: list[tuple[str, str]] = []
    for name, value in making.items():
        rows += _schema_rows(value) if name == "schema" else [(name.replace("_", " "), value)]
    return Table("How it was made", ("", "value"), rows)


def _schema_rows(text: str) -> list[tuple[str, str]]:
    """What an import schema says, without what is empty."""
    schema: dict[str, Any] = json.loads(text)
    rows: list[tuple[str, str]] = []
    for key, value in schema.items():
        entries = cast("list[Any]", value) if isinstance(value, list) else []
        parts: list[Any] = entries if entries and isinstance(entries[0], dict) else [value]
        for index, part in enumerate(parts):
            shown = _compact(part)
            if shown:
                rows.append((f"{key}.{index}" if len(parts) > 1 else key, shown))
    return rows


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return ", ".join(
            f"{key}: {_compact(inner)}" for key, inner in entries if inner not in (None, "", [], {})
        )
    if value in (None, "", [], {}):
        return ""
    return ", ".join(map(repr, cast("list[Any]", value))) if isinstance(value, list) else str(value)


def import_tables(report: ImportReport, log: Dataset) -> list[Table]:
    """What an import made, and what it left out."""
    least, largest = report.interval
    sizes = [
        ("name", log.info.name),
        ("files", report.files),
        ("rows", report.rows),
        ("episodes", report.episodes),
        ("episodes that terminate", report.terminated),
        ("steps", report.transitions),
        ("steps per second", format_number(report.rate)),
        ("seconds between rows, usually", f"{format_number(least)} to {format_number(largest)}"),
        ("jitter, 95 %, s", format_number(max(clock.jitter for clock in report.clocks))),
        ("longest interval, s", format_number(max(clock.longest for clock in report.clocks))),
        ("observations", ", ".join(log.info.obs_names or ())),
        ("choices" if log.spec.is_discrete else "actions", ", ".join(log.act_names)),
        ("reward", report.schema.reward or "none"),
        ("content hash", log.content_hash),
    ]
    tables = [Table(f"Imported {log.info.name}", ("", "value"), sizes)]
    if report.dropped:
        tables.append(Table("Left out or cut", ("what", "count"), list(report.dropped.items())))
    return tables


def verdict(report: Inspection) -> Message:
    """Whether training may start."""
    errors = sum(finding.severity == "error" for finding in report.findings)
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    if report.raw is not None and report.may_train:
        noun = format_count(warnings, "warning")
        text = (
            f"Raw files, before an import: {noun} to read first."
            if warnings
            else "Raw files, before an import."
        )
        return Message(text, "caution" if warnings else "good")
    if report.raw is not None:
        return Message(f"An import would fail: {format_count(errors, 'error')}.", "bad")
    if not report.may_train:
        return Message(f"Training must not start: {format_count(errors, 'error')}.", "bad")
    if warnings:
        return Message(
            f"Training may start, with {format_count(warnings, 'warning')} to read first.", "caution"
        )
    return Message("Training may start: nothing found makes it wrong.", "good")


def finding_message(finding: DataFinding) -> Message:
    """A finding with its remedy."""
    return Message(f"{finding.text} {finding.remedy}", _TONES[finding.severity])


def dimension_table(caption: str, dimensions: tuple[Dimension, ...]) -> Table:
    """Range of each dimension in raw units; saturation where it is known."""
    has_saturation = any(dimension.saturation is not None for dimension in dimensions)
    columns = ["dimension", "least", "mean", "deviation", "largest", "constant"]
    rows = [
        [
            dimension.name,
            dimension.values.minimum,
            dimension.values.mean,
            dimension.values.std,
            dimension.values.maximum,
            dimension.is_constant,
            *([format_share(dimension.saturation)] if has_saturation else []),
        ]
        for dimension in dimensions
    ]
    return Table(caption, [*columns, *(["at a bound"] if has_saturation else [])], rows)


def _sizes(stats: DatasetStats) -> list[tuple[str, int | str | bool]]:
    coverage = stats.coverage
    alone = "not available: a single episode"
    median, tail = coverage.neighbour_median, coverage.neighbour_95
    return [
        ("episodes", stats.num_episodes),
        ("transitions", stats.num_transitions),
        ("episodes that terminate", stats.terminated),
        ("episodes that are cut", stats.truncated),
        ("rewards", "logged" if stats.rewards is not None else "none"),
        ("terminal steps without a logged successor", stats.unknown_successors),
        ("duplicate rows", stats.duplicate_rows),
        ("rows with contradictory successors", stats.inconsistent_rows),
        ("rows that jump", stats.jump_rows),
        ("behaviour log-probabilities", stats.has_behaviour_log_prob),
        ("effective dimensions of the observations", format_number(coverage.effective_dims)),
        ("distance to the nearest other episode, median", alone if median is None else format_number(median)),
        ("distance to the nearest other episode, 95 %", alone if tail is None else format_number(tail)),
        ("content hash", stats.content_hash),
    ]


def _summaries(stats: DatasetStats) -> Table:
    rows = [
        *([] if stats.returns is None else [_summary("episode return", stats.returns)]),
        _summary("episode length, steps", stats.lengths),
        *([] if stats.rewards is None else [_summary("reward of a step", stats.rewards)]),
    ]
    return Table("Episodes", ("", "least", "median", "mean", "deviation", "largest"), rows)


def _summary(name: str, values: Distribution) -> tuple[str, float, float, float, float, float]:
    return name, values.minimum, values.median, values.mean, values.std, values.maximum
