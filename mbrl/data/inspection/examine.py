"""All signs of a record, and which of them a schema already sees to."""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from mbrl.data.importing.schema import ImportSchema
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.record import Record
from mbrl.data.inspection.signs.angles import find_turns, find_wraps
from mbrl.data.inspection.signs.clocks import find_gaps, find_jitter, find_rates, find_resets
from mbrl.data.inspection.signs.ends import find_early_stops, find_missing_final
from mbrl.data.inspection.signs.folders import find_copies, find_other_columns, find_unit_slips
from mbrl.data.inspection.signs.models import find_measured_commands, find_models
from mbrl.data.inspection.signs.sensors import find_dead, find_saturation, find_stuck
from mbrl.data.inspection.signs.ticks import find_ticks

Sign: TypeAlias = Callable[[Record], Iterator[DataFinding]]

SIGNS: Final[tuple[Sign, ...]] = (
    find_other_columns,
    find_resets,
    find_rates,
    find_jitter,
    find_gaps,
    find_unit_slips,
    find_wraps,
    find_turns,
    find_ticks,
    find_dead,
    find_stuck,
    find_saturation,
    find_early_stops,
    find_missing_final,
    find_copies,
    find_measured_commands,
    find_models,
)
"""Each is a pure function of a record."""


def examine(record: Record, schema: ImportSchema | None = None) -> Iterator[DataFinding]:
    """Yields what the signs say.

    Args:
        record: raw files or a dataset.
        schema: that the user wrote; what it sees to becomes a note. None for a dataset or a guess.
    """
    if not record.traces:
        return
    for sign in SIGNS:
        for finding in sign(record):
            line = None if schema is None else settled_by(finding, schema)
            if line is None:
                yield finding
            else:
                remedy = f"None needed: the schema sees to it ({line})."
                yield finding.model_copy(update={"severity": "note", "remedy": remedy})


def settled_by(finding: DataFinding, schema: ImportSchema) -> str | None:
    """The line of a schema that mends a finding; None without one."""
    kind = finding.kind
    rate = None if schema.rate is None else f"rate: {schema.rate:g}"
    if kind in {"rates", "jitter"}:
        return rate
    if kind == "gaps":
        return None if schema.max_gap is None else f"max_gap: {schema.max_gap:g}"
    if kind == "resets" and schema.time.restarts == "new_episode":
        return "time.restarts: new_episode"
    if kind == "repeats" and schema.time.repeated == "drop":
        return "time.repeated: drop"
    if kind in {"wraps", "turns"}:
        wrapped = [c for c in schema.observations if c.label in finding.channels and c.wrap != "none"]
        return f"wrap: {wrapped[0].wrap}" if len(wrapped) == len(finding.channels) else None
    if kind == "ticks":
        return _ticks_line(finding, schema)
    if kind == "early_stops":
        failures = schema.failures
        limit = None if failures.limit is None else f"failures.limit: {failures.limit}"
        early = None if failures.ends_before is None else f"failures.ends_before: {failures.ends_before:g}"
        return limit or early
    if kind == "hidden_state":
        derived = [channel.label for channel in schema.observations if channel.derivative is not None]
        if schema.history > 1:
            return f"history: {schema.history}"
        return f"derivative: {', '.join(derived[:4])}" if derived else None
    if kind == "saturation":
        bounded = [c.label for c in schema.actions if c.label in finding.channels and c.low is not None]
        return "low, high" if bounded and len(bounded) == len(finding.channels) else None
    if kind == "measured":
        commanded = [c for c in schema.actions if c.label == finding.channels[0] and c.kind == "commanded"]
        return "kind: commanded" if commanded else None
    return None


def _ticks_line(finding: DataFinding, schema: ImportSchema) -> str | None:
    if schema.history > 1:
        return f"history: {schema.history}"
    columns = {channel.label: channel.column for channel in schema.observations}
    derived = {c.derivative: c for c in schema.observations if c.derivative is not None}
    lines = [derived[column] for name in finding.channels if (column := columns.get(name)) in derived]
    if len(lines) < len(finding.channels):
        return None
    return f"{lines[0].label}: derivative over {lines[0].window:g} s"
