"""What every operator and function of the language computes, on NumPy arrays and on torch tensors."""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch

Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """A function as users write it.

    Attributes:
        least: arguments that it takes at least.
        most: and at most.
        usage: how it is written.
    """

    least: int
    most: int
    usage: str


MANY: Final = 64
"""Most arguments of `min` and `max`."""

SIGNATURES: Final[Mapping[str, Signature]] = {
    **{name: Signature(1, 1, f"{name}(x)") for name in ("sin", "cos", "tan", "abs", "sqrt", "exp", "log")},
    "sign": Signature(1, 1, "sign(x)"),
    "wrap": Signature(1, 1, "wrap(angle), to [-pi, pi)"),
    "atan2": Signature(2, 2, "atan2(y, x)"),
    "hypot": Signature(2, 2, "hypot(x, y)"),
    "min": Signature(2, MANY, "min(x, y, ...)"),
    "max": Signature(2, MANY, "max(x, y, ...)"),
    "clip": Signature(3, 3, "clip(x, low, high)"),
    "where": Signature(3, 3, "where(condition, x, y)"),
}
"""Functions by name. Angles are in radians, `log` is the natural logarithm."""

CONSTANTS: Final[Mapping[str, float]] = {"pi": math.pi}

TRUTHS: Final = frozenset({"<", "<=", ">", ">=", "==", "!=", "and", "or", "not"})
"""Operators whose result is true or false; as a number it is 1 or 0."""


def wrapped(angle: Any) -> Any:
    """The same angle in [-pi, pi), rad."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def _fold(function: Function) -> Function:
    def fold(first: Any, *others: Any) -> Any:
        for other in others:
            first = function(first, other)
        return first

    return fold


def _backend(library: Any, names: Mapping[str, str]) -> Mapping[str, Function]:
    """The functions of a library of arrays; `names` are those that it calls otherwise."""
    least, most, choose = library.minimum, library.maximum, library.where

    def clip(x: Any, low: Any, high: Any) -> Any:
        return least(most(x, low), high)

    def where(condition: Any, x: Any, y: Any) -> Any:
        return choose(condition != 0, x, y)

    same = ("sin", "cos", "tan", "abs", "sqrt", "exp", "log", "sign", "hypot")
    return {
        **_ARITHMETIC,
        **{name: getattr(library, name) for name in same},
        **{name: getattr(library, own) for name, own in names.items()},
        "min": _fold(least),
        "max": _fold(most),
        "clip": clip,
        "where": where,
    }


_ARITHMETIC: Final[Mapping[str, Function]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "negative": operator.neg,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "wrap": wrapped,
}
_LOGICAL: Final = {"and": "logical_and", "or": "logical_or", "not": "logical_not"}

NUMPY: Final = _backend(np, {**_LOGICAL, "/": "divide", "%": "mod", "**": "power", "atan2": "arctan2"})
"""On float64 arrays."""

TORCH: Final = _backend(torch, {**_LOGICAL, "/": "div", "%": "remainder", "**": "pow", "atan2": "atan2"})
"""On tensors of one dtype."""
