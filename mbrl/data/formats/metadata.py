"""Typed reading of what a file says of itself: JSON objects, numbers, names and Gymnasium spaces as JSON."""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from mbrl.core.choices import MAX_INTEGERS, product_names, stated_names
from mbrl.core.errors import DataError
from mbrl.core.types import MAX_DIM
from mbrl.data.formats.limits import MAX_JSON_BYTES, show_bytes
from mbrl.data.spaces import read_bounds

CHOICE_SPACES: Final = ("Discrete", "MultiDiscrete", "MultiBinary")
"""Types of Gymnasium spaces whose values are choices."""

_MAX_DEPTH: Final = 16
_MAX_AXES: Final = 8


class Metadata:
    """Named values of a file; a value of another type than asked for is an error that names it.

    Args:
        values: as read.
        file: where.
    """

    def __init__(self, values: Mapping[str, Any], file: Path) -> None:
        self.values, self._file = values, file

    @classmethod
    def load(cls, path: Path) -> "Metadata":
        """Reads a JSON object.

        Raises:
            DataError: the file is larger than 64 MiB, or no JSON object.
        """
        size = path.stat().st_size
        report = functools.partial(DataError, file=path, remedy="Restore the file from its source.")
        if size > MAX_JSON_BYTES:
            raise report(f"{show_bytes(size)} of JSON, where {show_bytes(MAX_JSON_BYTES)} are the most")
        return cls(_parse_object(path.read_bytes(), report), path)

    def text(self, key: str) -> str | None:
        """A string, None where there is none."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._error(key, value, "a text")

    def number(self, key: str) -> float | None:
        """A number, None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(key, value, "a number")
        return float(value)

    def count(self, key: str) -> int | None:
        """A whole number of 0 or more, None where there is none."""
        value = self.number(key)
        if value is None:
            return None
        if not (0 <= value < 2**63 and value == math.floor(value)):
            raise self._error(key, value, "a count")
        return int(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, None where there is none."""
        value: Any = self.values.get(key)
        if isinstance(value, np.ndarray):  # HDF5 attributes
            value = cast("Any", value).tolist()
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(n, str) for n in cast("list[Any]", value)
        ):
            raise self._error(key, value, "a list of texts")
        return tuple(cast("list[str]", value))

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean, or 0 or 1."""
        value = self.values.get(key, default)
        if value is True or value is False or (isinstance(value, (int, float)) and value in (0, 1)):
            return bool(value)
        raise self._error(key, value, "true or false")

    def part(self, key: str) -> "Metadata | None":
        """An object, also one that is stored as the text of its JSON; None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            report = functools.partial(
                DataError, file=self._file, field=key, remedy="Store the JSON of the space, as Minari does."
            )
            return Metadata(_parse_object(value, report), self._file)
        if isinstance(value, Mapping):
            return Metadata(cast("Mapping[str, Any]", value), self._file)
        raise self._error(key, value, "an object")

    def boxes(self, key: str) -> list["StoredBox"] | None:
        """The parts of a Gymnasium space of vectors, in the order of their names; None where there is none.

        Raises:
            DataError: a part is no `Box`, or has no size.
        """
        space = self.part(key)
        if space is None:
            return None
        boxes = [
            StoredBox.read(name, leaf, key, self._file)
            for name, leaf in _leaves(space.values, self._file, key)
        ]
        if sum(box.size for box in boxes) > MAX_DIM:
            raise self._error(key, f"{sum(box.size for box in boxes):,} dimensions", f"at most {MAX_DIM:,}")
        return boxes

    def choices(self, key: str) -> tuple[str, ...] | None:
        """Names of the choices of a Gymnasium space, its values; None where it is a space of vectors.

        Raises:
            DataError: it is a space of choices without sizes, or of more than 1,024.
        """
        space = self.part(key)
        kind = None if space is None else space.values.get("type")
        if space is None or kind not in CHOICE_SPACES:
            return None
        try:
            sizes, starts = _sizes(space.values, str(kind))
            return product_names(sizes, starts)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._error(key, f"{kind} ({error})", "a space of 1 to 1,024 choices") from error

    def choice_names(self, key: str) -> tuple[str, ...] | None:
        """Names of choices, as a list or as the text of its JSON; None where there are none.

        Raises:
            DataError: they are no names, too many, or two are alike.
        """
        value: Any = self.values.get(key)
        try:
            if isinstance(value, str):
                value = json.loads(value)
            names = Metadata({key: value}, self._file).names(key)
            return None if names is None else stated_names(names)
        except ValueError as error:
            raise self._error(key, value, f"a list of names ({error})") from error

    def _error(self, key: str, value: Any, wanted: str) -> DataError:
        return DataError(
            f"{str(value)[:60]!r} is not {wanted}",
            file=self._file,
            field=key,
            remedy=f"Correct {key}, or leave it out.",
        )


class StoredBox:
    """A `Box` as a file describes it; its bounds are read when they are asked for.

    Attributes:
        name: path in a dictionary of spaces, "" for a plain one.
        size: numbers in a vector of it.
    """

    def __init__(self, name: str, size: int, values: Mapping[str, Any], place: tuple[str, Path]) -> None:
        self.name, self.size = name, size
        self._values, self._place = values, place

    @classmethod
    def read(cls, name: str, values: Mapping[str, Any], field: str, file: Path) -> "StoredBox":
        """Checks type and shape of a description.

        Raises:
            DataError: it is another space, or its shape is none.
        """
        kind = str(values.get("type"))[:40]
        if kind != "Box":
            raise DataError(
                f"the space is {kind}; vectors (Box), and as actions choices (Discrete, MultiDiscrete, "
                "MultiBinary), are supported",
                file=file,
                field=field,
                remedy="Flatten observations to vectors, and actions to vectors or to one choice.",
            )
        shape: Any = values.get("shape")
        sizes: list[Any] = cast("list[Any]", shape) if isinstance(shape, list) else []
        is_shape = len(sizes) <= _MAX_AXES and all(
            isinstance(n, int) and not isinstance(n, bool) and 0 < n <= MAX_DIM for n in sizes
        )
        size = math.prod(sizes) if is_shape and isinstance(shape, list) else 0
        if not 0 < size <= MAX_DIM:
            text = str(cast("object", shape))[:60]
            raise DataError(
                f"a Box of shape {text}",
                file=file,
                field=field,
                remedy=f"Give a shape of positive sizes, {MAX_DIM:,} numbers at most.",
            )
        return cls(name, size, values, (field, file))

    def bound(self, end: str) -> tuple[float, ...]:
        """`size` bounds, `end` being `low` or `high`; infinite where there is none.

        Raises:
            DataError: they are not numbers, or not `size` of them.
        """
        field, file = self._place
        if self._values.get(end) is None:
            return (-math.inf if end == "low" else math.inf,) * self.size
        return read_bounds(self._values[end], file=file, field=field, size=self.size)


def _sizes(space: Mapping[str, Any], kind: str) -> tuple[list[int], list[int] | None]:
    """Sizes and least values of the integers of a choice."""
    if kind == "Discrete":
        return [int(space["n"])], [int(space.get("start") or 0)]
    if kind == "MultiBinary":
        count = math.prod(np.asarray(space["n"], dtype=np.int64).reshape(-1).tolist())
        return [2] * min(count, MAX_INTEGERS + 1), None
    sizes = np.asarray(space["nvec"], dtype=np.int64)
    starts = np.broadcast_to(np.asarray(space.get("start") or 0, dtype=np.int64), sizes.shape)
    return sizes.reshape(-1).tolist(), starts.reshape(-1).tolist()


def _leaves(
    space: Mapping[str, Any], file: Path, field: str, prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Spaces that hold no others, by the path of their names."""
    if space.get("type") != "Dict":
        yield prefix.rstrip("/"), space
        return
    parts: Any = space.get("subspaces")
    named = cast("dict[str, Mapping[str, Any]]", parts) if isinstance(parts, dict) else {}
    are_spaces = bool(named) and all(isinstance(part, dict) for part in named.values())
    if not are_spaces or prefix.count("/") >= _MAX_DEPTH:
        raise DataError(
            f"a Dict space without named parts, or more than {_MAX_DEPTH} deep",
            file=file,
            field=field,
            remedy="Store the JSON of the space, as Minari does.",
        )
    for name in sorted(named):
        yield from _leaves(named[name], file, field, f"{prefix}{name}/")


def _parse_object(text: str | bytes, report: functools.partial[DataError]) -> dict[str, Any]:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise report(f"not readable as JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise report("not a JSON object")
    return cast("dict[str, Any]", content)
