"""Typed access to HDF5 files; the only module that imports h5py. Not a format of its own."""

import contextlib
import importlib
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import h5py
import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.raw import AnyArray

Group: TypeAlias = h5py.Group
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

_COMPRESS_FROM: Final = 256
# The compiled half of h5py carries no types. Opening a data set by its id skips the lookups of `group[key]`,
# which dominate the reading of logs of many short episodes.
_h5d = cast("Any", importlib.import_module("h5py.h5d"))
_open_dataset_id = cast("Callable[[object, bytes], Any]", _h5d.open)


def is_hdf5(path: Path) -> bool:
    """Whether `path` is a file that starts as HDF5 files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


@contextlib.contextmanager
def open_hdf5(path: Path) -> Generator[Group]:
    """Opens for reading; damage found on opening or on reading becomes an error that names the file.

    Raises:
        DataError: the file is truncated or otherwise damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the HDF5 file cannot be read ({error})",
            file=path,
            remedy="The file is truncated or damaged: copy or download it again.",
        ) from error


@contextlib.contextmanager
def create_hdf5(path: Path) -> Generator[Group]:
    """Opens a new file for writing."""
    with h5py.File(path, "w") as file:
        yield file


def names(group: Group) -> list[str]:
    """Names in a group, sorted."""
    return sorted(cast("list[str]", list(group)))


def require(group: Group, key: str, *, file: Path, episode: str | None = None) -> AnyArray:
    """Reads the array `key`.

    Raises:
        DataError: the key is missing or is a group.
    """
    values = optional(group, key)
    if values is None:
        raise DataError(
            f"the key is missing; present: {', '.join(names(group)) or 'nothing'}",
            file=file,
            episode=episode,
            field=key,
            remedy="Write the key, or check that the file is of the format that its layout suggests.",
        )
    return values


def optional(group: Group, key: str) -> AnyArray | None:
    """Reads the array `key`, or returns None where there is none."""
    try:
        dataset = _open_dataset_id(cast("object", group.id), key.encode())
    except KeyError:
        return None
    dtype = cast("np.dtype[Any]", dataset.dtype)
    if dtype.kind == "O":
        return np.asarray(cast("Any", group[key])[()])
    values = np.empty(cast("tuple[int, ...]", dataset.shape), dtype=dtype)
    if values.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def subgroup(group: Group, key: str) -> Group | None:
    """The group `key`, or None."""
    item = cast("object", group.get(key))
    return item if isinstance(item, h5py.Group) else None


def numeric_leaves(group: Group, prefix: str = "") -> dict[str, AnyArray]:
    """All numeric arrays with rows below `group`, by path."""
    leaves: dict[str, AnyArray] = {}
    for key in names(group):
        values = optional(group, key)
        if values is None:
            below = subgroup(group, key)
            leaves |= {} if below is None else numeric_leaves(below, f"{prefix}{key}/")
        elif values.ndim and values.dtype.kind in "fiub":
            leaves[prefix + key] = values
    return leaves


def attributes(group: Group) -> dict[str, Any]:
    """The attributes of a group as Python values."""
    items = cast("Mapping[str, Any]", group.attrs)
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in items.items()}


def text(group: Group, key: str) -> str | None:
    """A stored string, or None where there is none."""
    values = optional(group, key)
    if values is None or values.ndim or values.dtype.kind not in "OSU":
        return None
    value: object = values.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def store(group: Group, key: str, values: AnyArray) -> None:
    """Writes an array, compressed where that pays."""
    is_large = values.size >= _COMPRESS_FROM
    compression = "gzip" if is_large else None
    group.create_dataset(
        key, data=values, compression=compression, shuffle=is_large or None, track_times=False
    )


def set_attribute(group: Group, key: str, value: int | float | str | AnyArray) -> None:
    """Sets one attribute."""
    group.attrs[key] = value


def load_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DataError: the file is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"not readable as JSON ({error})", file=path, remedy="Restore the file from its source."
        ) from error
    if not isinstance(content, dict):
        raise DataError("not a JSON object", file=path, remedy="Restore the file from its source.")
    return cast("dict[str, Any]", content)
