"""Which findings a schema already sees to, and by which line."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from mbrl.data.importing.schema import ImportSchema
from mbrl.data.inspection.finding import DataFinding

Line: TypeAlias = Callable[[DataFinding, ImportSchema], str | None]


def settled_by(finding: DataFinding, schema: ImportSchema) -> str | None:
    """The line of a schema that mends a finding; None without one."""
    line = _LINES.get(finding.kind)
    return None if line is None else line(finding, schema)


def _rate(_: DataFinding, schema: ImportSchema) -> str | None:
    return None if schema.rate is None else f"rate: {schema.rate:g}"


def _max_gap(_: DataFinding, schema: ImportSchema) -> str | None:
    return None if schema.max_gap is None else f"max_gap: {schema.max_gap:g}"


def _restarts(_: DataFinding, schema: ImportSchema) -> str | None:
    return "time.restarts: new_episode" if schema.time.restarts == "new_episode" else None


def _repeated(_: DataFinding, schema: ImportSchema) -> str | None:
    return "time.repeated: drop" if schema.time.repeated == "drop" else None


def _wrap(finding: DataFinding, schema: ImportSchema) -> str | None:
    wrapped = [c for c in schema.observations if c.label in finding.channels and c.wrap != "none"]
    return f"wrap: {wrapped[0].wrap}" if len(wrapped) == len(finding.channels) else None


def _derivative(finding: DataFinding, schema: ImportSchema) -> str | None:
    if schema.history > 1:
        return f"history: {schema.history}"
    columns = {channel.label: channel.column for channel in schema.observations}
    derived = {c.derivative: c for c in schema.observations if c.derivative is not None}
    lines = [derived[column] for name in finding.channels if (column := columns.get(name)) in derived]
    if len(lines) < len(finding.channels):
        return None
    return f"{lines[0].label}: derivative over {lines[0].window:g} s"


def _failures(_: DataFinding, schema: ImportSchema) -> str | None:
    if schema.failures.limit is not None:
        return f"failures.limit: {schema.failures.limit}"
    early = schema.failures.ends_before
    return None if early is None else f"failures.ends_before: {early:g}"


def _history(_: DataFinding, schema: ImportSchema) -> str | None:
    if schema.history > 1:
        return f"history: {schema.history}"
    derived = [channel.label for channel in schema.observations if channel.derivative is not None]
    return f"derivative: {', '.join(derived[:4])}" if derived else None


def _bounds(finding: DataFinding, schema: ImportSchema) -> str | None:
    bounded = [c.label for c in schema.actions if c.label in finding.channels and c.low is not None]
    return "low, high" if bounded and len(bounded) == len(finding.channels) else None


def _commanded(finding: DataFinding, schema: ImportSchema) -> str | None:
    chosen = (c for c in schema.actions if c.label == finding.channels[0])
    return "kind: commanded" if any(c.kind == "commanded" for c in chosen) else None


_LINES: Final[Mapping[str, Line]] = {
    "rates": _rate,
    "jitter": _rate,
    "gaps": _max_gap,
    "resets": _restarts,
    "repeats": _repeated,
    "wraps": _wrap,
    "turns": _wrap,
    "ticks": _derivative,
    "early_stops": _failures,
    "hidden_state": _history,
    "saturation": _bounds,
    "measured": _commanded,
}
