"""Rewards and terminations of the steps of an episode, by the expressions of a schema."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.expressions.parse import parse_expression
from mbrl.data.expressions.steps import NEXT, angle_nodes, step_columns
from mbrl.data.expressions.tree import Expression, Node, leaves, substitute, write
from mbrl.data.flags import first_odd_flag
from mbrl.data.importing.channels import Signals
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.importing.signals import Floats


def channel_names(schema: ImportSchema) -> list[str]:
    """What an expression may read besides columns: channels, angles, and both after the step."""
    here = [*schema.frame_names, *schema.angles]
    return [*here, *(NEXT + name for name in here), *schema.action_names]


def formula_columns(schema: ImportSchema, text: str) -> list[str]:
    """The columns, rather than channels, that an expression reads."""
    channels = set(channel_names(schema))
    names = (name for name in parse_expression(text).names if name not in channels)
    return list(dict.fromkeys(name.removeprefix(NEXT) for name in names))


def known_rule(schema: ImportSchema, text: str | None) -> str | None:
    """The expression over the dimensions of the dataset alone; None where it reads a column besides."""
    if text is None:
        return None
    root = substitute(parse_expression(text).root, _angles(schema))
    dimensions = set(schema.frame_names) | {NEXT + name for name in schema.frame_names}
    commands = {channel.label for channel in schema.actions if channel.choices is None}
    if any(leaf.name not in dimensions | commands for leaf in leaves(root)):
        return None
    return write(root)


def _angles(schema: ImportSchema) -> Mapping[str, Node]:
    return {**angle_nodes(schema.angles), **angle_nodes(schema.angles, NEXT)}


class Steps:
    """The steps of a stretch, for expressions to be asked of.

    Args:
        schema: resolved.
        signals: columns.
        edges: `[T + 1]` times of the observations.
        frames: `[T + 1, d]`.
        actions: `[T, a]`.
    """

    def __init__(
        self, schema: ImportSchema, signals: Signals, edges: Floats, frames: Floats, actions: Floats
    ) -> None:
        self._signals, self._edges, self._angles = signals, edges, _angles(schema)
        self._columns = step_columns(schema.frame_names, schema.action_names, frames, actions)

    def evaluate(self, text: str, *, flags: bool = False) -> NDArray[np.float64]:
        """`[T]` values.

        Args:
            text: the expression.
            flags: a column of 0 and 1 counts as 1 where it is so anywhere within a step.
        """
        expression = parse_expression(text)
        values = {name: self._values(name, flags=flags) for name in expression.names}
        return expression.evaluate(values, len(self._edges) - 1)

    def holds_at_end(self, text: str) -> bool:
        """Whether a condition holds at the end: channels have their values after the last step."""
        expression = parse_expression(text)
        after = {*self._columns, *self._angles}
        values = {
            name: self._values(NEXT + name if NEXT + name in after else name, flags=True)
            for name in expression.names
        }
        return bool(expression.evaluate(values, len(self._edges) - 1)[-1])

    def rewards(self, text: str, *, episode: str) -> NDArray[np.float64]:
        """`[T]` finite rewards.

        Raises:
            DataError: one is not.
        """
        found = self.evaluate(text)
        is_bad = ~np.isfinite(found)
        if bool(is_bad.any()):
            row = int(is_bad.argmax())
            read = {name: self._values(name, flags=False)[row] for name in parse_expression(text).names}
            shown = ", ".join(f"{name} = {value:.6g}" for name, value in list(read.items())[:6])
            raise DataError(
                f"the reward {found[row]} is none ({int(is_bad.sum())} such steps), with {shown}",
                episode=episode,
                field="reward",
                row=row,
                remedy="Correct the expression: no root or logarithm of a negative number, no division by 0.",
            )
        return found

    def _values(self, name: str, *, flags: bool) -> Floats:
        if name in self._columns:
            return self._columns[name]
        if name in self._angles:
            return Expression(name, self._angles[name]).evaluate(self._columns, len(self._edges) - 1)
        signal = self._signals[name.removeprefix(NEXT)]
        if flags and first_odd_flag(signal.value) is None:
            return signal.largest(self._edges)
        edges = self._edges[1:] if name.startswith(NEXT) else self._edges[:-1]
        return signal.held(edges)


def check_formulas(schema: ImportSchema, columns: Collection[str]) -> None:
    """Refuses expressions over names that are neither channels nor columns.

    Raises:
        ExpressionError: the first unknown name, its position and what was meant.
    """
    known = {*channel_names(schema), *columns, *(NEXT + name for name in columns)}
    for text in schema.formulas().values():
        parse_expression(text, known=known)
