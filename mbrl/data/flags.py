"""Flags as logs store them: booleans or numbers 0 and 1, never anything that only casts to a boolean."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode

Report = Callable[..., DataError]

_NUMERIC_KINDS: Final = "biuf"


def first_odd_flag(values: AnyArray) -> int | None:
    """Index of the first entry that is neither a boolean nor 0 or 1; None if there is none.

    Text is never a flag: `bool("False")` is true.
    """
    flat = values.reshape(-1)
    if flat.dtype.kind not in _NUMERIC_KINDS:
        return 0 if flat.size else None
    is_odd = (flat != 0) & (flat != 1)  # NaN differs from both
    return int(is_odd.argmax()) if bool(is_odd.any()) else None


def flag_error(values: AnyArray, report: Report, *, field: str) -> DataError | None:
    """What is wrong with the values of `[T]` flags, or None."""
    row = first_odd_flag(values)
    if row is None:
        return None
    value: object = values.reshape(-1)[row]
    kind = f" of dtype {values.dtype}" if values.dtype.kind not in _NUMERIC_KINDS else ""
    return report(
        f"flag {str(value)[:40]!r}{kind} is neither 0 nor 1",
        field=field,
        row=row,
        remedy="Store flags as booleans, or as the numbers 0 and 1.",
    )


def read_flags(values: AnyArray, report: Report, *, field: str, count: int) -> NDArray[np.bool_]:
    """`[count]` booleans of an array that holds one flag per row.

    Raises:
        DataError: there are not `count` of them, or one is neither a boolean nor 0 or 1.
    """
    if values.size != count or values.shape[:1] != (count,):
        raise report(
            f"shape {values.shape} where {count} flags are needed",
            field=field,
            remedy="Store one flag per row.",
        )
    error = flag_error(values, report, field=field)
    if error is not None:
        raise error
    return values.reshape(count).astype(np.bool_)


def flag_array(steps: int, *, last: bool) -> NDArray[Any]:
    """`[steps]` flags of which only the last may be set."""
    flags = np.zeros(steps, dtype=np.bool_)
    if steps:
        flags[-1] = last
    return flags


def flag_problems(raw: RawEpisode, report: Report, *, overlap_hint: str = "") -> Iterator[DataError]:
    """Yields what is wrong with the places of sound flags: too early, or two at one step."""
    for field in _FIELDS:
        flags: AnyArray = getattr(raw, field)
        early = flags[:-1].astype(np.bool_)
        if bool(early.any()):
            row = int(early.argmax())
            yield report(
                f"the episode goes on after a flagged step ({row + 1} of {len(flags)})",
                field=field,
                row=row,
                remedy="Cut the log into episodes after every flagged step.",
            )
    both = raw.terminations.astype(np.bool_) & raw.truncations.astype(np.bool_)
    if bool(both.any()):
        yield report(
            "the step is both terminated and truncated",
            field="truncations",
            row=int(both.argmax()),
            remedy=f"Say what the log means: {overlap_hint or _EITHER}",
        )


_FIELDS: Final = ("terminations", "truncations")
_EITHER: Final = (
    "overlap=terminated if the task ended there (a failure, a goal: no bootstrap), overlap=truncated if a "
    "time limit cut the episode and the log marked it as done too."
)


def has_sound_flags(raw: RawEpisode) -> bool:
    """Whether the flags of an episode are `[T]` booleans or 0 and 1."""
    return all(
        getattr(raw, field).shape == raw.rewards.shape and first_odd_flag(getattr(raw, field)) is None
        for field in _FIELDS
    )


def advise_overlap(raws: Sequence[RawEpisode], limit: int | None) -> str:
    """Which reading of steps with both flags fits a log: a time limit (one common length), or failures.

    Args:
        raws: all episodes.
        limit: time limit of the task, steps, where the log says.

    Returns:
        A remedy, or "" where the episodes do not tell.
    """
    lengths = [
        len(raw.rewards)
        for raw in raws
        if has_sound_flags(raw)
        and len(raw.rewards)
        and bool(raw.terminations[-1])
        and bool(raw.truncations[-1])
    ]
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if lengths and shortest == longest and (len(lengths) > 1 or longest == limit):
        many = f"all {len(lengths)} episodes" if len(lengths) > 1 else "the episode"
        return (
            f"{many} with both flags end at step {longest}, as a time limit does, so overlap=truncated fits; "
            "overlap=terminated if the task really ends there."
        )
    if len(lengths) > 1:
        return (
            f"the {len(lengths)} episodes with both flags end after {shortest} to {longest} steps, as "
            "failures do, so overlap=terminated fits; overlap=truncated if a time limit cut them."
        )
    return ""


def settle_dones(
    marked: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    options: LoadOptions,
    report: Report,
    *,
    field: str,
) -> NDArray[np.bool_]:
    """Which episodes terminated of those whose last step is marked as done, by what the options say.

    Args:
        marked: `[e]`, whether the last step is.
        lengths: `[e]`, steps.
        options: of the load.
        report: makes an error.
        field: name of the flag.

    Returns:
        `[e]`, False where the recording was cut, or nothing is marked.

    Raises:
        DataError: some are, and the options do not say what the flag means.
    """
    if not bool(marked.any()) or options.dones == "truncated":
        return np.zeros_like(marked)
    if options.dones == "limit":
        return marked & (lengths < (options.max_episode_steps or 0))
    if options.dones == "terminated":
        return marked
    lengths = lengths[marked]
    shortest, longest = int(lengths.min()), int(lengths.max())
    seen = f"the {len(lengths)} episodes that it ends have {shortest} to {longest} steps"
    if shortest == longest and len(lengths) > 1:
        seen = f"all {len(lengths)} episodes end at step {longest}, as a time limit does"
    raise report(
        f"the flag {field} may mean that the task ended or that the recording was cut; {seen}",
        field=field,
        remedy="Say which: dones=terminated (a failure or a goal: nothing follows), dones=truncated (a time "
        "limit or an operator), or dones=limit with max_episode_steps (cut at that step, ended before).",
    )
