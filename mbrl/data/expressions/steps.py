"""What an expression over a step reads: dimensions before it and after it, and angles that became two."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from mbrl.core.types import Episode
from mbrl.data.expressions.parse import parse_expression
from mbrl.data.expressions.tree import Expression, Name, Node, Operation, substitute, write

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


@dataclasses.dataclass(frozen=True, slots=True)
class StepNames:
    """What expressions over a step call the dimensions of a log, and angles that became two of them.

    Attributes:
        obs: of the observation dimensions.
        act: of the action dimensions.
    """

    obs: tuple[str, ...]
    act: tuple[str, ...]

    def parse(self, text: str | None) -> Expression | None:
        """The expression over dimensions alone.

        Raises:
            ExpressionError: it is none, or reads another name.
        """
        if text is None:
            return None
        angles = self._angles()
        dimensions = [*self.obs, *(NEXT + name for name in self.obs), *self.act]
        root = parse_expression(text, known=[*dimensions, *angles]).root
        root = substitute(root, angles)
        return Expression(write(root), root)

    def _angles(self) -> dict[str, Node]:
        roots = (name.removesuffix(COSINE) for name in self.obs if name.endswith(COSINE))
        angles = [name for name in roots if name + SINE in self.obs and name not in self.obs]
        return {**angle_nodes(angles), **angle_nodes(angles, NEXT)}

    def columns(self, episode: Episode) -> dict[str, NDArray[Any]]:
        """`[T]` by name."""
        return step_columns(self.obs, self.act, episode.observations, episode.actions)
