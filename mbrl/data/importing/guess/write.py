"""The yaml of a first schema, with a comment on every guess."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.names import shared_letters
from mbrl.data.importing.clock import read_clock
from mbrl.data.importing.guess.columns import ColumnLook, guess_time, is_command, look_at
from mbrl.data.importing.guess.files import SeenKind, find_files, see_kinds
from mbrl.data.importing.guess.pairs import find_commands, find_velocities
from mbrl.data.importing.schema import CsvConfig, ImportSchema, TimeConfig
from mbrl.data.importing.signals import Signal, usual_interval

CONTROL_RATE: Final = 50.0
"""Steps per second to which faster logs are resampled."""

JITTER: Final = 0.05
"""Share of an interval within which rows are evenly spaced."""

_MOST_LINES: Final = 400


@dataclasses.dataclass(frozen=True, slots=True)
class Guess:
    """A first schema.

    Attributes:
        schema: that the text says.
        text: yaml with comments.
        findings: column, and what it looks like.
    """

    schema: ImportSchema
    text: str
    findings: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """All columns of a log, whatever files they are in.

    Attributes:
        looks: of each column.
        values: of the numeric ones, on one clock.
        time: that clock, seconds.
        clocks: of each kind of files, with the notes on it.
        interval: usual seconds between the rows of each kind.
        is_even: whether all rows are evenly spaced.
    """

    looks: Mapping[str, ColumnLook]
    values: Mapping[str, NDArray[np.float64]]
    time: NDArray[np.float64]
    clocks: Sequence[tuple[TimeConfig, list[str]]]
    interval: tuple[float, ...]
    is_even: bool


def guess_files(paths: Sequence[Path]) -> Guess:
    """Looks at files and writes a first schema of them.

    Args:
        paths: files, or folders of them.

    Raises:
        DataError: the files are no tables, or have no time.
    """
    kinds, left = see_kinds(find_files(paths))
    renamed = _new_names(kinds)
    seen = _look(kinds, renamed)
    lines = [
        "# A first schema, guessed from the files: read every comment, correct what is wrong, import with",
        f"#   mbrl import SCHEMA.yaml {paths[0]} --out DATASET",
        f"name: {_text(kinds[0].stem if len(kinds) == 1 else paths[0].stem or 'log')}",
        'source: ""  # where the files come from, and their licence',
    ]
    lines += [f"# left out, for it has other columns: {file}" for file in left[:20]]
    lines += _file_lines(kinds, seen, renamed)
    lines += _rate_lines(seen)
    lines += _channel_lines(seen, kinds[0].files[0])
    lines += _rule_lines(seen)
    text = "".join(f"{_printable(line)}\n" for line in lines)
    schema = ImportSchema.model_validate(yaml.safe_load(text))
    findings = [(name, f"{look.kind}: {look.note}") for name, look in seen.looks.items()]
    return Guess(schema, text, findings)


def _new_names(kinds: Sequence[SeenKind]) -> list[dict[str, str]]:
    """New names by old ones, for kinds whose columns are called alike."""
    if len(kinds) == 1:
        return [{}]
    every = [name for kind in kinds for name in kind.columns]
    shared = shared_letters([f"{kind.stem}_" for kind in kinds])
    short = [kind.stem[shared:].strip("_-. ") or kind.stem for kind in kinds]
    return [
        {
            name: stem if len(kind.columns) == 1 else f"{stem}_{name}"
            for name in kind.columns
            if every.count(name) > 1
        }
        for kind, stem in zip(kinds, short, strict=True)
    ]


def _look(kinds: Sequence[SeenKind], renamed: Sequence[Mapping[str, str]]) -> _Seen:
    looks: dict[str, ColumnLook] = {}
    values: dict[str, NDArray[np.float64]] = {}
    clocks = [guess_time(kind.clock, kind.stamps) for kind in kinds]
    times = [read_clock(kind.tables[0], config) for kind, (config, _) in zip(kinds, clocks, strict=True)]
    # Columns of several kinds are compared on the clock of the fastest.
    fastest = min(range(len(kinds)), key=lambda k: _interval(times[k]))
    time = _first_run(times[fastest])
    steps: list[NDArray[np.float64]] = []
    for kind, own, names in zip(kinds, times, renamed, strict=True):
        run = _first_run(own)
        steps.append(np.diff(run))
        for name, column in kind.columns.items():
            called = names.get(name, name)
            looks[called] = look_at(called, column)
            first = kind.tables[0].columns[name]
            if first.dtype.kind in "fiu":
                numbers = first[: len(run)].astype(np.float64)
                known = np.isfinite(numbers)
                if bool(known.any()) and len(run) > 1:
                    signal = Signal(run[known], numbers[known], usual_interval(run))
                    values[called] = signal.linear(time)
    is_even = all(
        bool((np.abs(step - np.median(step)) <= JITTER * np.median(step)).mean() > 0.99)
        for step in steps
        if len(step)
    )
    return _Seen(looks, values, time, clocks, tuple(_interval(own) for own in times), is_even)


def _interval(time: NDArray[np.float64]) -> float:
    steps = np.diff(time)
    return float(np.median(steps[steps > 0])) if bool((steps > 0).any()) else math.inf


def _first_run(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Until the clock first stands or goes back."""
    stops = np.flatnonzero(np.diff(time) <= 0)
    return time[: int(stops[0]) + 1] if len(stops) else time


def _file_lines(kinds: Sequence[SeenKind], seen: _Seen, renamed: Sequence[Mapping[str, str]]) -> list[str]:
    config, notes = seen.clocks[0]
    clock = f"time: {_flow(config)}  # {'; '.join(notes)}"
    if len(kinds) == 1:
        lines = [f"files: {_text(kinds[0].pattern)}  # which files of a folder are read"]
        return [*lines, *_csv_lines(kinds[0].dialect), clock]
    lines = [*_csv_lines(kinds[0].dialect), clock, "# One file per signal: joined by time."]
    lines.append("sources:")
    for kind, (own, own_notes), names in zip(kinds, seen.clocks, renamed, strict=True):
        entry: list[str] = [f"files: {_text(kind.pattern)}"]
        if names:
            pairs = ", ".join(f"{_text(new)}: {_text(old)}" for old, new in names.items())
            entry.append(f"columns: {{{pairs}}}")
        if own != config:
            entry.append(f"time: {_flow(own)}")
        if kind.dialect != kinds[0].dialect:
            entry.append(f"csv: {_flow(kind.dialect)}")
        lines.append(f"  - {{{', '.join(entry)}}}  # {own_notes[-1]}")
    return lines


def _csv_lines(dialect: CsvConfig) -> list[str]:
    if dialect == CsvConfig():
        return []
    return [f"csv: {_flow(dialect)}  # under it most of the first cells are numbers"]


def _rate_lines(seen: _Seen) -> list[str]:
    slowest = max(seen.interval)
    logged = 1.0 / slowest
    if len(seen.interval) == 1 and seen.is_even and logged <= 1.2 * CONTROL_RATE:
        return ["rate: null  # rows are evenly spaced: each is a step as it stands"]
    rate = min(CONTROL_RATE, _round(logged))
    why = "" if seen.is_even else ", unevenly"
    lines = [f"rate: {rate:g}  # steps per second; rows come at about {logged:.4g} a second{why}"]
    return [*lines, f"max_gap: {max(10 * slowest, 1 / rate):.3g}  # seconds; no step crosses a longer pause"]


def _round(rate: float) -> float:
    """The nearest lower of 1, 2, 5, 10, ... steps per second; slow logs as they are."""
    if rate < 1:
        return float(f"{rate:.2g}")
    power = 10 ** math.floor(math.log10(rate))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= rate * 1.01))


def _channel_lines(seen: _Seen, file: Path) -> list[str]:
    looks = seen.looks
    numeric = [name for name, look in looks.items() if look.kind in {"state", "action", "target"}]
    periods = {name: p for name in numeric if (p := looks[name].period) is not None}
    numbers = {name: seen.values[name] for name in numeric if name in seen.values}
    choice = _choice_column(looks)
    if len(numbers) < (2 if choice is None else 1):
        raise _no_states(looks, file)
    velocities = find_velocities(numbers, seen.time, periods)
    actions = [name for name in numeric if looks[name].kind == "action"]
    responses = find_commands(numbers, [name for name in actions if name in numbers])
    actions = [name for name in actions if name not in responses]
    reason = "by its name"
    if choice is not None:
        actions = []
    elif not actions:
        actions, reason = _actions_by_lag(numbers, velocities)
    if not set(numeric) - set(actions) - set(responses):
        raise _no_states(looks, file)
    lines = ["observations:"]
    for name in numeric:
        if name in actions:
            continue
        if name in responses:
            command, lag = responses[name]
            lines.append(f"  # - {_text(name)}  # follows {command} by {lag} rows: measured, not commanded")
            continue
        lines += _observation(looks[name], velocities, seen)
    lines += [
        f"  # - {_text(name)}  # {look.note}" for name, look in looks.items() if look.kind == "constant"
    ]
    lines += [
        f"  # - {_text(n)}  # {k.kind}: {k.note}"
        for n, k in looks.items()
        if k.kind in {"text", "index", "choice"} and n != choice
    ]
    lines += _action_lines(looks, actions, choice, reason)
    return lines[:_MOST_LINES]


def _action_lines(
    looks: Mapping[str, ColumnLook], actions: Sequence[str], choice: str | None, reason: str
) -> list[str]:
    if choice is not None:
        return [
            "actions:",
            f"  - {_choices(looks[choice])}  # labels that were seen: add those that were not",
        ]
    lines = ["actions:"]
    for name in actions:
        note = looks[name].note
        if looks[name].labels:
            note += f"; if these are ids, choices: {len(looks[name].labels)} in place of all but the column"
        lines.append(f"  - {_action(looks[name])}  # {reason}; {note}")
    return lines


def _choice_column(looks: Mapping[str, ColumnLook]) -> str | None:
    """The column of labels that is an action by its name; any, where no other column is; or None."""
    found = [name for name, look in looks.items() if look.kind == "choice"]
    named = [name for name in found if is_command(name)]
    if named:
        return named[0]
    is_commanded = any(look.kind == "action" for look in looks.values())
    return None if is_commanded or not found else found[0]


def _choices(look: ColumnLook) -> str:
    return f"{{{', '.join(_column(look.name))}, choices: [{', '.join(map(_text, look.labels))}]}}"


def _no_states(looks: Mapping[str, ColumnLook], file: Path) -> DataError:
    return DataError(
        f"no two columns besides time change like a state and a command: {', '.join(looks)[:500]}",
        file=file,
        remedy="Log states and commands side by side, or write the schema by hand.",
    )


def _actions_by_lag(
    numbers: Mapping[str, NDArray[np.float64]], velocities: Mapping[str, str]
) -> tuple[list[str], str]:
    """Columns that others follow; else the last one."""
    names = [name for name in numbers if name not in velocities and name not in velocities.values()]
    followed = {command for command, _ in find_commands(numbers, names).values()}
    if followed:
        return sorted(followed), "another column follows it"
    return [(names or list(numbers))[-1]], "NO COLUMN LOOKS LIKE A COMMAND: this is the last one, correct it"


def _observation(look: ColumnLook, velocities: Mapping[str, str], seen: _Seen) -> list[str]:
    name, notes = look.name, [look.note]
    entry = _column(name)
    if look.period is not None:
        entry.append("wrap: cossin")
        if look.period == 360:
            entry += [f"scale: {math.pi / 180!r}", "unit: rad"]
            notes.append("degrees to radians")
    if name in velocities:
        notes.append(f"the velocity of {velocities[name]}")
    if look.kind == "target":
        notes.append("a reference: keep it if the reward needs it")
    lines = [f"  - {{{', '.join(entry)}}}  # {'; '.join(notes)}"]
    if look.is_position and name not in velocities and name not in velocities.values():
        window = _window(seen)
        why = f"no column is its velocity; the mean over {window:.3g} s"
        if look.tick is not None:
            why += f", in steps of {look.tick / window:.3g}"
        velocity = (
            f"name: {_text(_printable(name) + '_velocity')}, derivative: {_text(name)}, window: {window:.3g}"
        )
        lines.append(f"  - {{{velocity}}}  # {why}")
    return lines


def _window(seen: _Seen) -> float:
    slowest = max(seen.interval)
    return slowest if slowest >= 1 / CONTROL_RATE else max(1 / CONTROL_RATE, slowest)


def _action(look: ColumnLook) -> str:
    entry = [*_column(look.name), "kind: commanded", "resample: mean"]
    if look.bounds is not None:
        entry += [f"low: {look.bounds[0]!r}", f"high: {look.bounds[1]!r}"]
    return f"{{{', '.join(entry)}}}"


def _rule_lines(seen: _Seen) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for name, look in seen.looks.items():
        kinds.setdefault(look.kind, []).append(name)
    lines: list[str] = []
    reward = kinds.get("reward", [])
    if reward:
        lines.append(f"reward: {_text(_quoted(reward[0]))}  # by its name")
    else:
        lines.append('# reward: "-theta**2 - 0.01 * u**2"  # over the names above; fits need none')
    for name in kinds.get("end", []):
        condition = _text(_quoted(name) + " > 0")
        lines.append(f"# termination: {condition}  # only if it marks failures, not time limits")
    episode = kinds.get("episode", [])
    if episode:
        lines.append(f"episodes: {{by: column, column: {_text(episode[0])}}}  # it changes now and then")
    else:
        lines.append("episodes: {by: file}  # and at every gap, and where the clock restarts")
    return lines


def _column(name: str) -> list[str]:
    """The column of a channel, and a name that can be shown where that of the column cannot."""
    own = [] if name.isprintable() else [f"name: {_text(_printable(name))}"]
    return [f"column: {_text(name)}", *own]


def _printable(line: str) -> str:
    """Names of files and columns must not end a comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


def _text(value: str) -> str:
    """A text as yaml reads it, whatever it holds."""
    return json.dumps(value)


def _flow(part: TimeConfig | CsvConfig) -> str:
    values: dict[str, Any] = part.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(values)
