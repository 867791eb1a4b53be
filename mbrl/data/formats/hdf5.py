"""Typed access to HDF5 files; the only module that imports h5py. Not a format of its own."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.raw import AnyArray

Group = h5py.Group
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_COMPRESS_FROM = 256


def is_hdf5(path: Path) -> bool:
    """Whether `path` is a file that starts as HDF5 files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
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


def top_keys(path: Path) -> tuple[str, ...]:
    """Names at the top of a file."""
    with open_hdf5(path) as file:
        return tuple(file.keys())


def require(group: Group, key: str, *, file: Path, episode: str | None = None) -> AnyArray:
    """Reads the array `key`.

    Raises:
        DataError: the key is missing or is a group.
    """
    values = optional(group, key)
    if values is None:
        present = ", ".join(sorted(group.keys())) or "nothing"
        raise DataError(
            f"the key is missing; present: {present}",
            file=file,
            episode=episode,
            field=key,
            remedy="Write the key, or check that the file is of the format that its layout suggests.",
        )
    return values


def optional(group: Group, key: str) -> AnyArray | None:
    """Reads the array `key`, or returns None where there is none."""
    item = group.get(key)
    return np.asarray(item[()]) if isinstance(item, h5py.Dataset) else None


def subgroup(group: Group, key: str) -> Group | None:
    """The group `key`, or None."""
    item = group.get(key)
    return item if isinstance(item, h5py.Group) else None


def numeric_leaves(group: Group, prefix: str = "") -> dict[str, AnyArray]:
    """All numeric arrays below `group`, by path."""
    leaves: dict[str, AnyArray] = {}
    for key in group:
        item = group[key]
        if isinstance(item, h5py.Group):
            leaves |= numeric_leaves(item, f"{prefix}{key}/")
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and item.ndim:
            leaves[prefix + key] = np.asarray(item[()])
    return leaves


def attributes(group: Group) -> dict[str, Any]:
    """The attributes of a group as Python values."""
    items = cast("Mapping[str, Any]", group.attrs)
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in items.items()}


def store(group: Group, key: str, values: AnyArray) -> None:
    """Writes an array, compressed where that pays."""
    is_large = values.size >= _COMPRESS_FROM
    group.create_dataset(
        key,
        data=values,
        compression="gzip" if is_large else None,
        shuffle=is_large or None,
        track_times=False,
    )


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
