"""What an expression over a step reads: dimensions before it and after it, and angles that became two."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from mbrl.data.expressions.tree import Name, Node, Operation

NEXT: Final = "next_"
"""Begins the name of an observation after the step."""

COSINE, SINE = "_cos", "_sin"
"""End the names of the two dimensions of an angle that wraps."""


def angle_nodes(angles: Sequence[str], prefix: str = "") -> Mapping[str, Node]:
    """What the own name of an angle stands for that is observed as `q_cos`, `q_sin`: `atan2(q_sin, q_cos)`.

    Args:
        angles: their names.
        prefix: of all names, `NEXT` for those after the step.
    """
    return {
        prefix + name: Operation("atan2", (Name(prefix + name + SINE, 1), Name(prefix + name + COSINE, 1)))
        for name in angles
    }


def step_columns(
    obs_names: Sequence[str], act_names: Sequence[str], obs: NDArray[Any], act: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """`[T]` by name: observations before and after each step, and its action.

    Args:
        obs_names: of the dimensions.
        act_names: likewise.
        obs: `[T + 1, obs_dim]`.
        act: `[T, act_dim]`.
    """
    columns: dict[str, NDArray[Any]] = {name: obs[:-1, k] for k, name in enumerate(obs_names)}
    columns |= {NEXT + name: obs[1:, k] for k, name in enumerate(obs_names)}
    return columns | {name: act[:, k] for k, name in enumerate(act_names)}
