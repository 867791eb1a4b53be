"""Which choices the actions of a log are, and the one-hot vectors that stand for them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.choices import MAX_CHOICES, choice_ids, one_hot, product_names, stated_names
from mbrl.core.errors import DataError
from mbrl.data.choices.masks import MASK_KEY, tidy_mask
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

MAX_SEEN: Final = 64
"""Integers without bounds that take no more values than this are choices, not a continuous command. The
limit holds for what is found in a log alone, `MAX_CHOICES` for what somebody states."""

_REMEDY: Final = (
    "State the choices (choices=4 for the ids 0 to 3, or choices=[left,right]); if these numbers are a "
    "continuous command, give action_low and action_high."
)


def find_choices(
    log: RawLog, raws: Sequence[RawEpisode], options: LoadOptions, *, is_bounded: bool
) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Names of the choices of a log, None for continuous actions; and notes for the provenance.

    Options win, then what the file states, then the width of its action masks; then labels and integers
    without bounds are choices, the values that were seen.

    Args:
        log: as it was read.
        raws: its episodes in one layout.
        options: of the load.
        is_bounded: whether bounds of a continuous command are known.

    Raises:
        DataError: there are too many labels to be choices.
    """
    if options.choices is not None:
        return stated_names(options.choices), {}
    if options.action_low is not None or log.choices is not None:
        return (log.choices if options.action_low is None else None), {}
    columns = [raw.actions for raw in raws]
    kinds = {values.dtype.kind for values in columns}
    is_single = all(values.ndim == 2 and values.shape[1] == 1 for values in columns)
    if is_single and kinds <= {"U", "S"}:
        return _seen_labels(columns, log)
    if is_bounded or not is_single or not kinds <= {"i", "u", "b"}:
        return None, {}
    seen = np.unique(np.concatenate([values.astype(np.int64).reshape(-1) for values in columns]))
    return (None, {}) if len(seen) > MAX_SEEN or not len(seen) else _seen_ids(seen, _mask_width(raws))


def _seen_ids(seen: NDArray[np.int64], width: int | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """All that masks of `width` tell of, or those that were seen."""
    if width is not None and seen[0] >= 0 and seen[-1] < width <= MAX_CHOICES:
        return product_names((width,)), {"choices": f"{width}, the width of the action masks"}
    names = tuple(str(value) for value in seen.tolist())
    between = sorted(set(range(min(0, int(seen[0])), int(seen[-1]))) - set(seen.tolist()))
    text = f"the ids seen in the log: {', '.join(names)}"
    if between:
        text += f"; never taken, and no choices therefore: {', '.join(map(str, between))}"
    return names, {"choices": text}


def _seen_labels(columns: Sequence[AnyArray], log: RawLog) -> tuple[tuple[str, ...], dict[str, str]]:
    seen = sorted({_text(value) for values in columns for value in np.unique(values).tolist()})
    if len(seen) > MAX_SEEN:
        raise DataError(
            f"{len(seen):,} different labels ({', '.join(seen[:8])}, ...), where {MAX_SEEN} are the most "
            "that are taken for choices without a vocabulary",
            file=log.file,
            field="actions",
            remedy="State the vocabulary: choices=[...].",
        )
    return tuple(seen), {"choices": f"the labels seen in the log: {', '.join(seen)}"}


def _mask_width(raws: Sequence[RawEpisode]) -> int | None:
    widths = {
        raw.infos[MASK_KEY].shape[-1] for raw in raws if MASK_KEY in raw.infos and raw.infos[MASK_KEY].ndim
    }
    return widths.pop() if len(widths) == 1 else None


def encode(raw: RawEpisode, names: Sequence[str]) -> RawEpisode:
    """The episode with one-hot actions and a mask of T + 1 rows; left as it is where a row is no choice."""
    index = _index(raw.actions, names)
    actions = raw.actions if index is None else one_hot(index, len(names))
    infos = raw.infos
    if MASK_KEY in infos:
        infos = {**infos, MASK_KEY: tidy_mask(infos[MASK_KEY], len(raw.rewards) if raw.rewards.ndim else 0)}
    return dataclasses.replace(raw, actions=actions, infos=infos)


def _index(actions: AnyArray, names: Sequence[str]) -> NDArray[np.int64] | None:
    """`[T]` places of the choices of `[T, w]` labels, ids or one-hot rows; None where a row is none."""
    found = _places(actions, names)
    return None if found is None or bool((found < 0).any()) else found


def _places(actions: AnyArray, names: Sequence[str]) -> NDArray[np.int64] | None:
    """As `_index`, with -1 for rows that are none; None where the array has no such rows at all."""
    if actions.ndim != 2 or actions.dtype.kind not in "USiubf" or not len(actions):
        return None
    places: Mapping[Any, int]
    if actions.dtype.kind in "US":
        if actions.shape[1] != 1:
            return None
        keys, inverse = np.unique(actions[:, 0], return_inverse=True)
        places = {name: place for place, name in enumerate(names)}
        found = [places.get(_text(key), -1) for key in keys.tolist()]
        return np.array(found, dtype=np.int64)[inverse]
    ids = choice_ids(names)
    if actions.shape[1] == ids.shape[1] and not (ids.shape[1] == len(names) and _is_one_hot(actions)):
        keys, inverse = np.unique(actions, axis=0, return_inverse=True)
        places = {tuple(row): place for place, row in enumerate(ids.tolist())}
        found = [places.get(tuple(row), -1) for row in keys.tolist()]  # 1.0 and 1 are equal keys
        return np.array(found, dtype=np.int64)[inverse.reshape(-1)]
    if actions.shape[1] != len(names):
        return None
    is_choice = one_hot_rows(actions)
    return np.where(is_choice, actions.argmax(1), -1).astype(np.int64)


def _is_one_hot(actions: AnyArray) -> bool:
    return bool(one_hot_rows(actions).all())


def one_hot_rows(actions: AnyArray) -> NDArray[np.bool_]:
    """`[T]`, which rows of `[T, n]` have exactly one 1 and zeros else."""
    ones: NDArray[np.bool_] = actions == 1
    return ((ones | (actions == 0)).all(1)) & (ones.sum(1) == 1)


def choice_problems(
    actions: AnyArray, names: Sequence[str], report: functools.partial[DataError]
) -> Iterator[DataError]:
    """Yields what keeps the actions of an episode from being choices, with the first row of it."""
    found = _places(actions, names)
    shown = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    if found is None:
        if len(actions):
            yield report(
                f"shape {actions.shape}, dtype {actions.dtype}, where each row is one of {len(names)} "
                f"choices ({shown})",
                field="actions",
                remedy="Store one id or label per step, or one-hot vectors. " + _REMEDY,
            )
        return
    is_odd = found < 0
    if not bool(is_odd.any()):
        return
    row = int(is_odd.argmax())
    value: Any = actions[row, 0] if actions.shape[1] == 1 else actions[row]
    value = _text(value) if actions.dtype.kind in "US" else getattr(value, "tolist", lambda: value)()
    yield report(
        f"{value!r} is none of the {len(names)} choices ({shown}; {int(is_odd.sum())} such rows)",
        field="actions",
        row=row,
        remedy=_REMEDY,
    )


def as_text(values: AnyArray) -> AnyArray:
    """Labels that a library reads as objects as an array of text; anything else as it is."""
    if values.dtype.kind != "O" or not all(isinstance(value, (str, bytes)) for value in values.flat):
        return values
    return np.array([_text(value) for value in values.flat], dtype=np.str_).reshape(values.shape)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
