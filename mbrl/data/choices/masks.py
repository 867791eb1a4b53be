"""Action masks: which choices were allowed in each state, as Gymnasium's environments tell in their infos."""

import functools
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.raw import AnyArray

MASK_KEY: Final = "action_mask"
"""The info `[T + 1, n]` that holds masks, True or 1 for what is allowed."""


def tidy_mask(mask: AnyArray, steps: int) -> AnyArray:
    """`[T + 1, n]` booleans of a mask; of T rows the last state's is unknown, and allows everything.

    A mask of other values, or of another shape, is left for the checks to name.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "iubf" or not bool(np.isin(mask, (0, 1)).all()):
        return mask
    flags = mask.astype(np.bool_)
    if len(flags) == steps:
        flags = np.concatenate([flags, np.ones((1, flags.shape[1]), dtype=np.bool_)])
    return np.ascontiguousarray(flags)


def mask_problems(
    mask: AnyArray, actions: AnyArray, report: functools.partial[DataError]
) -> Iterator[DataError]:
    """Yields what is wrong with the masks of an episode whose actions are one-hot.

    Args:
        mask: meant to be `[T + 1, n]` flags.
        actions: `[T, n]`.
        report: makes an error.
    """
    shape = (len(actions) + 1, actions.shape[1])
    if mask.shape != shape or mask.dtype.kind != "b":
        yield report(
            f"shape {mask.shape}, dtype {mask.dtype}, where flags of shape {shape} are needed",
            field=f"infos/{MASK_KEY}",
            remedy="Store a 0 or 1 for every choice in every state, T + 1 rows; state choices if the masks "
            "know more of them than were taken.",
        )
        return
    is_empty: NDArray[np.bool_] = np.logical_not(mask.any(1))
    is_empty[-1] = False  # where the task ended nothing may be allowed
    is_forbidden: NDArray[np.bool_] = np.logical_not((mask[:-1] & (actions > 0)).any(1))
    for flags, problem in (
        (is_empty, "no choice is allowed"),
        (is_forbidden, "the mask forbids what was done"),
    ):
        if bool(flags.any()):
            yield report(
                f"{problem} ({int(flags.sum())} such rows)",
                field=f"infos/{MASK_KEY}",
                row=int(flags.argmax()),
                remedy="Log the mask of the state that the choice was made in; leave masks out (infos=none) "
                "if they did not bind.",
            )
            return


def episode_mask(episode: Episode) -> NDArray[np.bool_] | None:
    """`[T + 1, n]`, or None where an episode has no masks."""
    return episode.infos.get(MASK_KEY)
