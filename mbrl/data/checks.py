"""The checks that every dataset passes before training, each naming file, episode, field, row and remedy.

Every check is a generator of `DataError`: a load raises the first, the doctor lists them all.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.raw import AnyArray, RawEpisode

ACTION_TOLERANCE: Final = 1e-4
"""Excess over an action bound that is rounding, as a share of the range."""

Report = Callable[..., DataError]

_NUMERIC_KINDS: Final = "fiub"
_REMEDIES: Final = {
    "object": "Store a numeric array; ragged rows must be padded or cut into episodes first.",
    "not finite": "Repair the row at its source, or leave the episode out with bad_episodes=drop.",
    "flag": "Cut the log into episodes after every flagged step.",
}


def structure_problems(
    raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None
) -> Iterator[DataError]:
    """Yields what is wrong with dtypes, ranks and shapes; `T` is taken from the rewards."""
    report = functools.partial(DataError, file=file, episode=raw.name)
    steps = raw.rewards.shape[0] if raw.rewards.ndim else 0
    if steps == 0:
        yield report(
            "the episode has no steps", field="rewards", remedy="Leave it out with bad_episodes=drop."
        )
        return
    yield from _shape_problems(raw.rewards, report, field="rewards", rows=steps, width=None)
    yield from _shape_problems(raw.actions, report, field="actions", rows=steps, width=spec.act_dim)
    if raw.observations.shape[:1] == (steps,):
        yield report(
            f"{steps} observations for {steps} actions; {steps + 1} are needed, the last one being the state "
            "that the last action led to",
            field="observations",
            row=steps,
            remedy="Log the final observation, or accept the loss of it with final_observation=repair.",
        )
    else:
        yield from _shape_problems(
            raw.observations, report, field="observations", rows=steps + 1, width=spec.obs_dim
        )
    for field, flags in (("terminations", raw.terminations), ("truncations", raw.truncations)):
        yield from _shape_problems(flags, report, field=field, rows=steps, width=None)
    if raw.behaviour_log_prob is not None:
        yield from _shape_problems(
            raw.behaviour_log_prob, report, field="behaviour_log_prob", rows=steps, width=None
        )
    if raw.timestamps is not None:
        yield from _shape_problems(raw.timestamps, report, field="timestamps", rows=steps + 1, width=None)


def _shape_problems(
    values: AnyArray, report: Report, *, field: str, rows: int, width: int | None
) -> Iterator[DataError]:
    if values.dtype.kind not in _NUMERIC_KINDS:
        yield report(f"dtype {values.dtype} is not numeric", field=field, remedy=_REMEDIES["object"])
        return
    rank = 1 if width is None else 2
    if values.ndim != rank:
        yield report(
            f"shape {values.shape} has {values.ndim} axes, not {rank}",
            field=field,
            remedy="Flatten each row to one vector." if rank == 2 else "Store one number per step.",
        )
        return
    if values.shape[0] != rows:
        yield report(
            f"{values.shape[0]} rows where the rewards of the episode ask for {rows}",
            field=field,
            row=min(values.shape[0], rows),
            remedy="Make the arrays of an episode equally long; observations and timestamps one row longer.",
        )
    if width is not None and values.shape[1] != width:
        yield report(
            f"{values.shape[1]} dimensions, where the dataset has {width}",
            field=field,
            remedy="All episodes of a dataset need the same dimensions; split the log by machine or task.",
        )


def value_problems(raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None) -> Iterator[DataError]:
    """Yields what is wrong with the values and flags of an episode whose structure is sound."""
    report = functools.partial(DataError, file=file, episode=raw.name)
    yield from _finite_problems(raw.observations, report, field="observations")
    yield from _finite_problems(raw.actions, report, field="actions")
    yield from _finite_problems(raw.rewards, report, field="rewards")
    if raw.behaviour_log_prob is not None:
        yield from _finite_problems(raw.behaviour_log_prob, report, field="behaviour_log_prob")
    if raw.timestamps is not None:
        yield from _time_problems(raw.timestamps, report)
    yield from _bound_problems(raw.actions, spec, report)
    yield from _flag_problems(raw, report)


def as_float32(values: AnyArray) -> NDArray[np.float32]:
    """Contiguous float32; what float32 cannot hold becomes infinite, which the checks refuse."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def excess_rows(actions: AnyArray, spec: SpaceSpec) -> NDArray[np.bool_]:
    """`[T, act_dim]`, where an action lies beyond its bounds by more than rounding."""
    low, high = np.array(spec.act_low), np.array(spec.act_high)
    slack = ACTION_TOLERANCE * (high - low)
    return (actions < low - slack) | (actions > high + slack)


def _finite_problems(values: AnyArray, report: Report, *, field: str) -> Iterator[DataError]:
    finite = np.isfinite(as_float32(values))
    if bool(finite.all()):
        return
    place: tuple[int, ...] = tuple(int(i) for i in np.argwhere(~finite)[0])
    column = f" in dimension {place[-1]}" if values.ndim > 1 else ""
    yield report(
        f"value {values[place]}{column} is not finite in float32 ({int((~finite).sum())} such values)",
        field=field,
        row=place[0],
        remedy=_REMEDIES["not finite"]
        if field != "behaviour_log_prob"
        else "Repair it, or read the log without it: behaviour=ignore.",
    )


def _time_problems(timestamps: AnyArray, report: Report) -> Iterator[DataError]:
    steps = np.diff(timestamps.astype(np.float64))
    is_bad = ~(steps > 0)
    if bool(is_bad.any()):
        row = int(is_bad.argmax())
        yield report(
            f"time goes from {timestamps[row]} to {timestamps[row + 1]} s",
            field="timestamps",
            row=row + 1,
            remedy="Sort the rows by time and cut the log where the clock was reset.",
        )


def _bound_problems(actions: AnyArray, spec: SpaceSpec, report: Report) -> Iterator[DataError]:
    beyond = excess_rows(actions, spec)
    if not bool(beyond.any()):
        return
    row, column = (int(i) for i in np.argwhere(beyond)[0])
    yield report(
        f"action {actions[row, column]} in dimension {column} lies beyond "
        f"[{spec.act_low[column]}, {spec.act_high[column]}] ({int(beyond.any(axis=1).sum())} such rows)",
        field="actions",
        row=row,
        remedy="Give the true bounds with action_low and action_high, or actions=clip if the machine "
        "clipped the command itself.",
    )


def _flag_problems(raw: RawEpisode, report: Report) -> Iterator[DataError]:
    for field, flags in (("terminations", raw.terminations), ("truncations", raw.truncations)):
        is_odd = (flags != 0) & (flags != 1)
        if bool(is_odd.any()):
            row = int(is_odd.argmax())
            yield report(
                f"flag {flags[row]} is neither 0 nor 1",
                field=field,
                row=row,
                remedy="Store flags as booleans.",
            )
        early = flags[:-1].astype(np.bool_)
        if bool(early.any()):
            row = int(early.argmax())
            yield report(
                f"the episode goes on after a flagged step ({row + 1} of {len(flags)})",
                field=field,
                row=row,
                remedy=_REMEDIES["flag"],
            )
    both = raw.terminations.astype(np.bool_) & raw.truncations.astype(np.bool_)
    if bool(both.any()):
        yield overlap_error(report, row=int(both.argmax()))


def overlap_error(report: Report, *, row: int) -> DataError:
    """The error for a step that is both terminated and truncated."""
    return report(
        "the step is both terminated and truncated",
        field="truncations",
        row=row,
        remedy="Say what the log means: overlap=terminated lets the termination win (no bootstrap).",
    )


def first_problem(raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None) -> DataError | None:
    """The first thing that is wrong with an episode, or None."""
    problem = next(structure_problems(raw, spec, file=file), None)
    return problem if problem is not None else next(value_problems(raw, spec, file=file), None)


def all_problems(raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None) -> list[DataError]:
    """Everything that is wrong with an episode; values are looked at only where the structure is sound."""
    problems = list(structure_problems(raw, spec, file=file))
    return problems or list(value_problems(raw, spec, file=file))


def flag_array(steps: int, *, last: bool) -> NDArray[Any]:
    """`[steps]` flags of which only the last may be set."""
    flags = np.zeros(steps, dtype=np.bool_)
    if steps:
        flags[-1] = last
    return flags
