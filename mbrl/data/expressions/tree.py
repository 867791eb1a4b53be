"""A parsed expression: a tree of numbers, names and operations, for NumPy arrays and torch tensors."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.data.expressions.functions import NUMPY, TORCH, TRUTHS, Function


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A column, and where it stands in the text (from 1)."""

    name: str
    position: int


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """An operator or function of `mbrl.data.expressions.functions`, and what it is applied to."""

    name: str
    operands: "tuple[Node, ...]"


Node: TypeAlias = Number | Name | Operation


@dataclasses.dataclass(frozen=True, slots=True)
class Expression:
    """An expression over named columns.

    Attributes:
        text: as it was written.
        root: of its tree.
    """

    text: str
    root: Node

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it reads, each once, in the order of the text."""
        return tuple(dict.fromkeys(leaf.name for leaf in leaves(self.root)))

    def evaluate(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float64]:
        """Its value in each row, `[rows]` float64; a condition is 1 or 0.

        What has no value (the root of a negative number, a division by 0) is NaN or infinite.

        Args:
            columns: `[rows]` by name.
            rows: their length.
        """
        wide = {name: np.asarray(columns[name], dtype=np.float64) for name in self.names}
        with np.errstate(all="ignore"):
            found = _evaluate(self.root, wide, NUMPY, np.float64, lambda x: np.asarray(x, np.float64))
        return np.array(np.broadcast_to(np.asarray(found, dtype=np.float64), (rows,)))

    def evaluate_torch(self, columns: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """The same on tensors, of the shape, dtype and device of `like`.

        Args:
            columns: tensors of that shape, by name.
            like: any of them; or what the result should be like, for an expression without names.
        """

        def number(value: Any) -> Tensor:
            return torch.as_tensor(value, dtype=like.dtype, device=like.device)

        found = number(_evaluate(self.root, columns, TORCH, number, number))
        return found.expand(like.shape)


def _evaluate(
    node: Node,
    columns: Mapping[str, Any],
    functions: Mapping[str, Function],
    constant: Callable[[float], Any],
    to_number: Callable[[Any], Any],
) -> Any:
    if isinstance(node, Number):
        return constant(node.value)
    if isinstance(node, Name):
        return columns[node.name]
    operands = [_evaluate(operand, columns, functions, constant, to_number) for operand in node.operands]
    return to_number(functions[node.name](*operands))


def leaves(node: Node) -> Iterator[Name]:
    """Yields the names of a tree, from left to right."""
    if isinstance(node, Name):
        yield node
    elif isinstance(node, Operation):
        for operand in node.operands:
            yield from leaves(operand)


def substitute(node: Node, replacements: Mapping[str, Node]) -> Node:
    """The tree with some names replaced by trees."""
    if isinstance(node, Name):
        return replacements.get(node.name, node)
    if isinstance(node, Operation):
        return Operation(node.name, tuple(substitute(operand, replacements) for operand in node.operands))
    return node


def write(node: Node) -> str:
    """Text that parses to the same tree; every operation stands in parentheses."""
    if isinstance(node, Number):
        return repr(node.value) if node.value >= 0 else f"(-{-node.value!r})"
    if isinstance(node, Name):
        return node.name if node.name.isidentifier() else f"`{node.name}`"
    parts = [write(operand) for operand in node.operands]
    if node.name == "negative":
        return f"(-{parts[0]})"
    if node.name == "not":
        return f"(not {parts[0]})"
    if node.name[0].isalpha() and node.name not in TRUTHS:
        return f"{node.name}({', '.join(parts)})"
    return f"({f' {node.name} '.join(parts)})"
