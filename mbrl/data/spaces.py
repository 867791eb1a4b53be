"""Sizes and action bounds of a log: what its options and its file say, else what its rows show."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import MAX_DIM, SpaceSpec
from mbrl.data.checks import image_error, is_image
from mbrl.data.choices.infer import find_choices
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

UNBOUNDED: Final = 1e30
"""Bounds from here on bound nothing: libraries write the largest float32 for an open end."""

PIN_WIDTH: Final = 1e-6
"""Half the width of the bounds around an action that never moves, as a share of its value."""

_BOUND_REMEDY: Final = (
    "Give finite bounds, each lower one below its upper one, or action_low and action_high."
)


def infer_spec(
    log: RawLog, raws: Sequence[RawEpisode], options: LoadOptions
) -> tuple[SpaceSpec, dict[str, str]]:
    """Sizes (the most common width), and choices or bounds: by the options, else the file, else the data.

    Returns:
        The spec, and notes for the provenance where bounds or choices had to be taken from the data.

    Raises:
        DataError: no episode has two-dimensional observations and actions, the bounds are of another size,
            not numbers, or upside down, or there are too many labels to be choices.
    """
    obs_dim = _common_width([raw.observations for raw in raws], log, "observations")
    act_dim = _common_width([raw.actions for raw in raws], log, "actions")
    is_stated = options.choices is not None or (log.choices is not None and options.action_low is None)
    bounds = np.full((2, act_dim), np.nan) if is_stated else _given_bounds(log, act_dim, options)
    is_open = ~(np.abs(bounds) < UNBOUNDED).all(axis=0)
    choices, notes = find_choices(log, raws, options, is_bounded=not bool(is_open.any()))
    if choices is not None:
        return SpaceSpec.discrete(obs_dim, choices), notes
    if bool(is_open.any()):
        bounds[:, is_open], notes = _data_bounds(raws, np.flatnonzero(is_open), act_dim)
    spec = SpaceSpec(
        obs_dim=obs_dim,
        act_dim=act_dim,
        act_low=tuple(float(v) for v in bounds[0]),
        act_high=tuple(float(v) for v in bounds[1]),
    )
    return spec, notes


def _given_bounds(log: RawLog, act_dim: int, options: LoadOptions) -> NDArray[np.float64]:
    """`[2, act_dim]`, not finite where neither options nor file say."""
    low, high = log.act_low, log.act_high
    if options.action_low is not None:
        low, high = options.action_low, options.action_high
    unknown = (np.nan,) * act_dim
    low, high = low or unknown, high or unknown
    report = functools.partial(DataError, file=log.file, field="actions")
    if not len(low) == len(high) == act_dim:
        raise report(
            f"{len(low)} action bounds for {act_dim} action dimensions",
            remedy="Give one bound per action dimension.",
        )
    bounds = np.array([low, high], dtype=np.float64)
    is_bad = bounds[0] >= bounds[1]
    if bool(is_bad.any()):
        column = int(is_bad.argmax())
        raise report(
            f"the bounds [{bounds[0, column]}, {bounds[1, column]}] of dimension {column} are empty",
            remedy=_BOUND_REMEDY,
        )
    return bounds


def read_bounds(
    values: object, *, file: object | None, field: str, size: int | None = None
) -> tuple[float, ...]:
    """Bounds as a file stores them: numbers, infinite where there is none.

    Args:
        values: an array, a list or one number.
        file: for messages.
        field: likewise.
        size: how many there must be; one number stands for all of them. None takes as many as there are.

    Raises:
        DataError: they are not numbers, NaN, or not `size` of them.
    """
    report = functools.partial(DataError, file=file, field=field, remedy=_BOUND_REMEDY)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise report(f"the bounds are no list of numbers ({error})") from error
    if array.dtype.kind not in "iuf" or array.size > MAX_DIM:
        raise report(f"the bounds {str(values)[:60]!r} are not numbers, or too many")
    array = array.astype(np.float64).reshape(-1)
    if bool(np.isnan(array).any()):
        raise report("a bound is NaN")
    if size is not None and array.size not in (1, size):
        raise report(f"{array.size} bounds for {size} dimensions")
    return tuple(
        float(value) for value in np.broadcast_to(array, (size,) if size is not None else array.shape)
    )


def _common_width(arrays: Sequence[AnyArray], log: RawLog, field: str) -> int:
    widths = Counter(array.shape[1] for array in arrays if array.ndim == 2 and 0 < array.shape[1] <= MAX_DIM)
    if widths:
        return widths.most_common(1)[0][0]
    report = functools.partial(
        DataError, file=log.file, episode=log.episodes[0].name if log.episodes else None
    )
    images = [array for array in arrays if is_image(array)]
    if images:
        raise image_error(images[0], report, field=field)
    raise report(
        f"no episode holds vectors; shapes found: {sorted({array.shape for array in arrays})[:3]}",
        field=field,
        remedy=f"Store one vector per step, shape [rows, dimensions], of 1 to {MAX_DIM:,} dimensions.",
    )


def _data_bounds(
    raws: Sequence[RawEpisode], open_dims: NDArray[np.int64], act_dim: int
) -> tuple[NDArray[np.float64], dict[str, str]]:
    """`[2, open]` range of the logged actions, and what to note of it; a constant is pinned to its value."""
    rows = [
        raw.actions.astype(np.float64)
        for raw in raws
        if raw.actions.dtype.kind in "fiub" and raw.actions.ndim == 2 and raw.actions.shape[1] == act_dim
    ]
    actions = np.concatenate(rows) if rows else np.zeros((0, act_dim))
    actions = actions[np.isfinite(actions).all(axis=1)][:, open_dims]
    if len(actions) == 0:
        low, high = -np.ones(len(open_dims)), np.ones(len(open_dims))
    else:
        low, high = actions.min(axis=0), actions.max(axis=0)
    is_constant = low == high
    notes: dict[str, str] = {}
    ranged = open_dims[~is_constant]
    if len(ranged):
        listed = f"dimension {', '.join(str(d) for d in ranged)}"
        place = "every dimension" if len(ranged) == act_dim > 8 else listed
        notes["action_bounds"] = f"range of the data in {place}: the log gives no finite bounds"
    if bool(is_constant.any()):
        values = zip(open_dims[is_constant].tolist(), low[is_constant].tolist(), strict=True)
        pinned = ", ".join(f"dimension {dim} to {value:g}" for dim, value in values)
        notes["pinned_actions"] = f"{pinned}: it never moves in the log, which gives no finite bounds"
    # a box needs an inside: this one is a millionth of the value wide, so that no policy can leave it
    width = np.where(low == 0.0, PIN_WIDTH, np.maximum(PIN_WIDTH * np.abs(low), 1e-30)) * is_constant
    return np.stack([low - width, high + width]), notes
