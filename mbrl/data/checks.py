"""The checks that every dataset passes before training, each naming file, episode, field, row and remedy.

Every check is a generator of `DataError`: a load raises the first, an inspection lists them all.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.choices.infer import choice_problems, one_hot_rows
from mbrl.data.choices.masks import MASK_KEY, mask_problems
from mbrl.data.flags import Report, flag_error, flag_problems, has_sound_flags
from mbrl.data.raw import AnyArray, RawEpisode

ACTION_TOLERANCE: Final = 1e-4
"""Excess over an action bound that is rounding, as a share of the range."""

MAX_LOG_DENSITY: Final = 50.0
"""Largest log-density per action dimension: a Gaussian of the width of float32's resolution has 16, a
squashed one at its bound as much again."""

PROBABILITY_TOLERANCE: Final = 1e-4
"""Excess of a log-probability over 0 that is rounding."""

ROUNDING_NOISE: Final = 1e-11
"""Range of a column, as a share of its size, below which it counts as a constant with rounding errors."""

MAX_ROUNDING: Final = 0.1
"""Largest rounding step of float32 that leaves a column usable, in standard deviations of the column."""

_NUMERIC_KINDS: Final = "fiub"
_REMEDIES: Final = {
    "object": "Store a numeric array; ragged rows must be padded or cut into episodes first.",
    "not finite": "Repair the row at its source, or leave the episode out with bad_episodes=drop.",
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
    for field, flags in (("terminations", raw.terminations), ("truncations", raw.truncations)):
        error = flag_error(flags, report, field=field)
        if error is not None:
            yield error
        else:
            yield from _shape_problems(flags, report, field=field, rows=steps, width=None)
    if spec.choices is not None and raw.actions.shape != (steps, spec.act_dim):
        yield from choice_problems(raw.actions, spec.choices, report)  # as the log holds them, not one-hot
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
    if width is not None and is_image(values):
        yield image_error(values, report, field=field)
        return
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


def value_problems(
    raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None, overlap_hint: str = ""
) -> Iterator[DataError]:
    """Yields what is wrong with the values and flags of an episode whose structure is sound.

    Args:
        raw: the episode.
        spec: sizes and bounds of the dataset.
        file: of the log, for messages.
        overlap_hint: what the whole log says about steps with both flags (`advise_overlap`).
    """
    report = functools.partial(DataError, file=file, episode=raw.name)
    yield from _finite_problems(raw.observations, report, field="observations")
    yield from _finite_problems(raw.actions, report, field="actions")
    if raw.has_rewards:
        yield from _finite_problems(raw.rewards, report, field="rewards")
    elif not bool(np.isnan(raw.rewards).all()):
        yield report(
            "the episode says that it has no rewards, and holds some",
            field="rewards",
            remedy="Give a reward for every step, or none at all.",
        )
    if raw.behaviour_log_prob is not None:
        yield from _finite_problems(raw.behaviour_log_prob, report, field="behaviour_log_prob")
        yield from _density_problems(raw.behaviour_log_prob, spec, report)
    if raw.timestamps is not None:
        yield from _time_problems(raw.timestamps, report)
    if spec.choices is None:
        yield from _bound_problems(raw.actions, spec, report)
    else:
        yield from choice_problems(raw.actions, spec.choices, report)
        if MASK_KEY in raw.infos and bool(one_hot_rows(raw.actions).all()):
            yield from mask_problems(raw.infos[MASK_KEY], raw.actions, report)
    yield from flag_problems(raw, report, overlap_hint=overlap_hint)
    if raw.final_observation == "unknown" and has_sound_flags(raw) and not bool(raw.terminations[-1]):
        yield report(
            "the last step is truncated and its successor is unknown, so it has no value to bootstrap from",
            field="observations",
            row=len(raw.rewards),
            remedy="Drop the last step.",
        )


def as_float32(values: AnyArray) -> NDArray[np.float32]:
    """Contiguous float32; what float32 cannot hold becomes infinite, which the checks refuse."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def resolution_problems(
    raws: Sequence[RawEpisode], spec: SpaceSpec, *, file: object | None = None
) -> Iterator[DataError]:
    """Yields the columns whose variation float32 cannot hold: seconds since 1970, an offset of 1e9."""
    shapes = {"observations": (spec.obs_dim,), "actions": (spec.act_dim,), "rewards": ()}
    for field, shape in shapes.items():
        parts = [
            values
            for raw in raws
            if (values := getattr(raw, field)).dtype.kind in "fiu"
            and values.dtype.itemsize > 4
            and values.ndim
            and values.shape[1:] == shape
        ]
        if not parts:
            continue
        wide = np.concatenate(parts).astype(np.float64).reshape(-1, *(shape or (1,)))
        wide = wide[np.isfinite(wide).all(axis=1)]
        if len(wide) < 2:
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold has its own check
            std, size = wide.std(axis=0), np.abs(wide).max(axis=0)
            step = np.spacing(size.astype(np.float32)).astype(np.float64)
        is_varying = np.ptp(wide, axis=0) > ROUNDING_NOISE * size  # less is rounding of float64 itself
        is_lost = is_varying & (step > MAX_ROUNDING * std)
        for column in np.flatnonzero(is_lost)[:3]:
            yield DataError(
                f"dimension {column} varies by {std[column]:.3g} around {wide[:, column].mean():.6g}, "
                f"where float32, in which everything is learned, has steps of {step[column]:.3g}",
                file=file,
                field=field,
                remedy="Subtract a constant from the column before it is logged, or leave it out.",
            )


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


def _density_problems(values: AnyArray, spec: SpaceSpec, report: Report) -> Iterator[DataError]:
    if spec.is_discrete:
        yield from _probability_problems(values, report)
        return
    largest = MAX_LOG_DENSITY * spec.act_dim
    is_bad = values > largest
    if bool(is_bad.any()):
        row = int(is_bad.argmax())
        yield report(
            f"log-density {values[row]:g} is more than any policy can have ({largest:g} at {spec.act_dim} "
            f"action dimensions; {int(is_bad.sum())} such values)",
            field="behaviour_log_prob",
            row=row,
            remedy="Log the natural logarithm of the density of the action scaled to [-1, 1], or read the "
            "log without it: behaviour=ignore.",
        )


def _probability_problems(values: AnyArray, report: Report) -> Iterator[DataError]:
    is_bad = values > PROBABILITY_TOLERANCE
    if bool(is_bad.any()):
        row = int(is_bad.argmax())
        yield report(
            f"{values[row]:g} is the logarithm of more than 1, and choices have probabilities "
            f"({int(is_bad.sum())} such values)",
            field="behaviour_log_prob",
            row=row,
            remedy="Log the natural logarithm of the probability of what was chosen, or read the log without "
            "it: behaviour=ignore.",
        )


def is_image(values: AnyArray) -> bool:
    """Whether an array `[rows, ...]` looks like pictures: bytes or many pixels on several axes."""
    return values.ndim > 3 or (values.ndim == 3 and (values.dtype == np.uint8 or min(values.shape[1:]) >= 8))


def image_error(values: AnyArray, report: Report, *, field: str) -> DataError:
    """The error for pictures."""
    return report(
        f"rows of shape {list(values.shape[1:])} and dtype {values.dtype} look like images, which are "
        "unsupported",
        field=field,
        remedy="Store one vector of numbers per step: joint positions and velocities, or features of the "
        "image.",
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


def first_problem(
    raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None, overlap_hint: str = ""
) -> DataError | None:
    """The first thing that is wrong with an episode, or None."""
    problem = next(structure_problems(raw, spec, file=file), None)
    if problem is not None:
        return problem
    return next(value_problems(raw, spec, file=file, overlap_hint=overlap_hint), None)


def all_problems(
    raw: RawEpisode, spec: SpaceSpec, *, file: object | None = None, overlap_hint: str = ""
) -> list[DataError]:
    """Everything that is wrong with an episode; values are looked at only where the structure is sound."""
    problems = list(structure_problems(raw, spec, file=file))
    return problems or list(value_problems(raw, spec, file=file, overlap_hint=overlap_hint))
