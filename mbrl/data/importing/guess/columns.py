"""What single columns look like: constant, stepped, wrapped, a clock, a number of episodes."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.data.choices.infer import MAX_SEEN
from mbrl.data.importing.schema import TimeConfig

Floats = NDArray[np.float64]

TURNS: Final = (2 * math.pi, 360.0)
"""Turns of an angle in radians and in degrees."""

MAX_TICKS: Final = 0.5
"""Distinct values as a share of the rows, below which a column may be one of ticks."""

_TIME: Final = re.compile(
    r"(^|[^a-z])(t|time|times|timestamp|stamp|clock|sec|secs|seconds|zeit|date|datetime)", re.I
)
_EPISODE: Final = re.compile(r"(^|[^a-z])(episode|ep|run|trial|traj|trajectory|rollout|demo)([^a-z]|$)", re.I)
_ACTION: Final = re.compile(
    r"(^|[^a-z])(u|a|act|action|actions|cmd|command|commanded|control|ctrl|input|tau|torque|voltage|volt|pwm|"
    r"motor|effort|current|throttle|steer|steering|force|stellgroesse)([^a-z]|$)",
    re.I,
)
_TARGET: Final = re.compile(
    r"(^|[^a-z])(target|desired|des|ref|reference|setpoint|goal|soll)([^a-z]|$)", re.I
)
_REWARD: Final = re.compile(r"(^|[^a-z])(reward|rewards|rew|return)([^a-z]|$)", re.I)
_END: Final = re.compile(
    r"(^|[^a-z])(done|dones|terminal|terminated|truncated|timeout|fallen|failure|failed|success|abort)", re.I
)
_INDEX: Final = re.compile(
    r"(^column_\d+$|(^|[^a-z])(index|frame|row|sample|count|counter|idx|id)([^a-z]|$))", re.I
)
_POSITION: Final = re.compile(
    r"(^|[^a-z])(pos|position|angle|theta|alpha|phi|psi|beta|q|yaw|pitch|roll|joint|x|y|z|winkel)([^a-z]|$|\d)",
    re.I,
)
_FEW_IDS: Final = 16  # values of an action, 0, 1, ..., that may be ids
_UNITS: Final = (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0))
_EPOCHS: Final = (("s", 1e8, 1e11), ("ms", 1e11, 1e14), ("us", 1e14, 1e17), ("ns", 1e17, 1e20))


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnLook:
    """What a column looks like.

    Attributes:
        name: of the column.
        kind: what it seems to be: `text`, `choice`, `constant`, `index`, `episode`, `reward`, `end`,
            `action`, `target` or `state`.
        period: turn of a wrapped angle: 2 pi or 360; None where there are no jumps of a turn.
        tick: step that all changes are multiples of, or None.
        is_position: its name is that of a position or an angle.
        bounds: least and largest value, where it stays at one of them for a while.
        note: for people.
        labels: different texts of a column of few, sorted; or the whole numbers from 0 of an action that
            takes few of them.
    """

    name: str
    kind: str
    period: float | None = None
    tick: float | None = None
    is_position: bool = False
    bounds: tuple[float, float] | None = None
    note: str = ""
    labels: tuple[str, ...] = ()


def look_at(name: str, values: NDArray[Any]) -> ColumnLook:
    """Looks at the values of one column that is not the clock."""
    if values.dtype.kind not in "fiu":
        return _look_at_text(name, values)
    numbers = values.astype(np.float64)
    known = numbers[np.isfinite(numbers)]
    if not len(known) or float(np.ptp(known)) <= 1e-12 * float(np.abs(known).max(initial=0.0)):
        shown = f"{known[0]:g}" if len(known) else "empty"
        return ColumnLook(name, "constant", note=f"constant: {shown}")
    distinct = np.unique(known)
    kind = _kind(name, known, distinct)
    period, tick = find_turn([known]), find_tick(known)
    notes = [f"{known.min():.4g} to {known.max():.4g}"]
    notes += [] if period is None else [f"jumps of a turn ({period:.4g})"]
    notes += [] if tick is None else [f"changes in steps of {tick:.4g}"]
    notes += (
        [f"{int((~np.isfinite(numbers)).sum())} cells without a value"] if len(known) < len(numbers) else []
    )
    at_bound = ((known == known.min()) | (known == known.max())).mean()
    bounds = (float(known.min()), float(known.max())) if at_bound > 0.01 and len(distinct) > 2 else None
    is_position = _POSITION.search(name) is not None or period is not None
    labels: tuple[str, ...] = ()
    if kind == "action" and len(distinct) <= _FEW_IDS and bool(np.isin(distinct, np.arange(_FEW_IDS)).all()):
        labels = tuple(str(value) for value in range(int(distinct[-1]) + 1))
    return ColumnLook(name, kind, period, tick, is_position, bounds, ", ".join(notes), labels)


def _look_at_text(name: str, values: NDArray[Any]) -> ColumnLook:
    """Texts; choices where there are few different ones, each met three times on average."""
    if values.dtype.kind not in "US":
        return ColumnLook(name, "text", note="texts")
    labels = tuple(sorted({str(value).strip() for value in values.tolist()} - {"None", ""}))
    if not 1 < len(labels) <= MAX_SEEN or len(values) < 3 * len(labels):
        return ColumnLook(name, "text", note="texts")
    return ColumnLook(name, "choice", note=f"{len(labels)} different labels", labels=labels)


def is_command(name: str) -> bool:
    """Whether a name is that of a command or an action."""
    return _ACTION.search(name) is not None


def is_reference(name: str) -> bool:
    """Whether a name is that of a target or a setpoint."""
    return _TARGET.search(name) is not None


def _kind(name: str, known: Floats, distinct: Floats) -> str:
    is_whole = bool((distinct == np.round(distinct)).all())
    steps = np.diff(known)
    is_counter = is_whole and (bool((steps == 1).all()) or _is_index(name, steps))
    is_label = is_whole and _EPISODE.search(name) is not None and float((steps != 0).mean()) < 0.2
    looks = {
        "episode": is_label,
        "reward": _REWARD.search(name) is not None,
        "end": _END.search(name) is not None and len(distinct) <= 2,
        "index": is_counter,
        "target": is_reference(name),
        "action": _ACTION.search(name) is not None,
    }
    return next((kind for kind, found in looks.items() if found), "state")


def _is_index(name: str, steps: Floats) -> bool:
    return _INDEX.search(name) is not None and float((steps >= 0).mean()) > 0.9


def find_turn(columns: Sequence[Floats]) -> float | None:
    """2 pi or 360, where values stay within a turn and jump by nearly one; else None.

    Args:
        columns: of one channel, run by run: none is a jump from the end of one to the start of the next.
    """
    known = [values for values in columns if len(values) > 1]
    if not known:
        return None
    width = max(float(values.max()) for values in known) - min(float(values.min()) for values in known)
    jump = max(float(np.abs(np.diff(values)).max()) for values in known)
    return next((turn for turn in TURNS if 0.9 * turn < jump <= width <= 1.001 * turn), None)


def find_tick(values: Floats) -> float | None:
    """The step that all values are apart by multiples of; None without one, or for digits of a text.

    Args:
        values: finite; float32 or better, so steps below a millionth of the largest value are not seen.
    """
    if len(values) < 100:
        return None
    size = float(np.abs(values).max())
    grid = max(1e-6 * size, 1e-300)
    distinct = np.unique(np.round(values / grid)) * grid
    if not 8 <= len(distinct) <= MAX_TICKS * len(values):
        return None
    apart = np.diff(distinct)
    tick = float(np.quantile(apart, 0.02))
    if tick < 50 * grid:
        return None
    multiples = np.round(apart / tick)
    if (multiples < 1).any():
        return None
    tick = float(apart.sum() / multiples.sum())  # the mean over all of them
    if float(np.quantile(np.abs(apart / tick - np.round(apart / tick)), 0.98)) > 0.02:
        return None
    digits = abs(math.log10(tick) - round(math.log10(tick))) < 1e-3
    return None if digits and tick < 0.01 * float(values.std()) else tick


def find_clock(columns: Mapping[str, NDArray[Any]]) -> str | None:
    """The column that most looks like time: by its name and by rising; None where none does."""
    best, best_score = None, 0.0
    for name, values in columns.items():
        if values.dtype.kind == "M":
            return name
        if values.dtype.kind not in "fiu" or len(values) < 3:
            continue
        steps = np.diff(values.astype(np.float64))
        rising = float((steps > 0).mean())
        score = rising * (2.0 if _TIME.search(name) else 1.0) - (0.5 if _INDEX.search(name) else 0.0)
        if rising > 0.8 and bool(np.isfinite(steps).all()) and score > best_score:
            best, best_score = name, score
    return best


def guess_time(name: str, files: Sequence[NDArray[Any]]) -> tuple[TimeConfig, list[str]]:
    """Unit, epoch, restarts and repeated stamps of a clock, and why.

    Args:
        name: of its column.
        files: its stamps, file by file.
    """
    notes: list[str] = []
    if files[0].dtype.kind == "M":
        unit, epoch, factor = "datetime", True, 1e-9
        notes.append("dates")
        numbers = [stamps.astype(np.int64).astype(np.float64) for stamps in files]
    else:
        numbers = [stamps.astype(np.float64) for stamps in files]
        unit, epoch, factor = _unit(name, numbers, notes)
    steps = np.concatenate([np.diff(stamps) for stamps in numbers])
    back, still = int((steps < 0).sum()), int((steps == 0).sum())
    notes += [f"it goes back in {back} rows, which begin new episodes"] if back else []
    notes += [f"{still} stamps stand twice: the second row is left out"] if still else []
    values = {
        "column": name,
        "unit": unit,
        "epoch": epoch,
        "restarts": "new_episode" if back else "error",
        "repeated": "drop" if still else "error",
    }
    step = float(np.median(steps[steps > 0])) * factor if bool((steps > 0).any()) else 0.0
    notes.append(f"usually {step:.4g} s between rows")
    return TimeConfig.model_validate(values), notes


def _unit(name: str, numbers: Sequence[Floats], notes: list[str]) -> tuple[str, bool, float]:
    size = float(np.abs(numbers[0]).max())
    factors = dict(_UNITS)
    for unit, low, high in _EPOCHS:
        steps = np.concatenate([np.diff(stamps) for stamps in numbers])
        usual = float(np.median(np.abs(steps))) * factors[unit]
        if low <= size < high and 1e-5 < usual < 10 and float(numbers[0][0]) > 0.5 * low:
            notes.append(f"{unit} since 1970, by their size")
            return unit, True, factors[unit]
    for unit, _ in _UNITS:
        if re.search(rf"(^|[^a-z]){unit}([^a-z]|$)", name, re.I) and unit != "s":
            notes.append(f"{unit}, by its name")
            return unit, False, factors[unit]
    steps = np.concatenate([np.diff(stamps) for stamps in numbers])
    usual = float(np.median(steps[steps > 0])) if bool((steps > 0).any()) else 1.0
    for unit in ("s", "ms", "us", "ns"):
        if 1.0 <= 1.0 / (usual * factors[unit]) <= 20_000 and not (unit == "s" and usual >= 1):
            notes.append(f"{unit}, by the size of their steps")
            return unit, False, factors[unit]
    notes.append("the unit is a guess: check it")
    return "s", False, 1.0
