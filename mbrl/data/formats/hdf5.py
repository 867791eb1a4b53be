"""Typed access to HDF5 files; the only module that imports h5py. Not a format of its own.

Nothing outside of the file is followed: links to other files, external storage and virtual data sets are
refused, and so is whatever claims more memory than the size of the file makes credible.
"""

import contextlib
import importlib
import io
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import h5py
import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.formats.base import only_file
from mbrl.data.formats.limits import ReadBudget, reading
from mbrl.data.raw import AnyArray

Group: TypeAlias = h5py.Group
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
HDF5_SUFFIXES: Final = (".hdf5", ".h5")

_COMPRESS_FROM: Final = 256
_MAX_DEPTH: Final = 16
_MAX_LEAVES: Final = 10_000
_MAX_ATTRIBUTE: Final = 100_000
# The compiled half of h5py carries no types. Opening a data set by its id skips the lookups of `group[key]`,
# which dominate the reading of logs of many short episodes.
_h5d = cast("Any", importlib.import_module("h5py.h5d"))
_h5l = cast("Any", importlib.import_module("h5py.h5l"))
_h5o = cast("Any", importlib.import_module("h5py.h5o"))
_h5s = cast("Any", importlib.import_module("h5py.h5s"))
_open_dataset_id = cast("Callable[[object, bytes], Any]", _h5d.open)


class StoredGroup:
    """A group of a file that is open for reading.

    Args:
        group: of h5py.
        file: for messages.
        budget: counts what is read from the file.
        depth: groups above this one.
    """

    def __init__(self, group: Group, file: Path, budget: ReadBudget, depth: int = 0) -> None:
        self._group, self._file, self._budget, self._depth = group, file, budget, depth
        self._id = cast("Any", group.id)

    def names(self) -> list[str]:
        """Names in the group, sorted."""
        return sorted(cast("list[str]", list(self._group)))

    def require(self, key: str, *, episode: str | None = None) -> AnyArray:
        """Reads the array `key`.

        Raises:
            DataError: the key is missing or is a group.
        """
        values = self.optional(key)
        if values is None:
            present = ", ".join(self.names()[:20]) or "nothing"
            raise DataError(
                f"the key is missing; present: {present}",
                file=self._file,
                episode=episode,
                field=key,
                remedy="Write the key, or check that the file is of the format that its layout suggests.",
            )
        return values

    def optional(self, key: str) -> AnyArray | None:
        """Reads the array `key`, or returns None where there is none.

        Raises:
            DataError: it lies in another file, or is larger than the file makes credible.
        """
        if not self._is_own(key):
            return None
        try:
            dataset = _open_dataset_id(self._id, key.encode())
        except KeyError:  # a group, or a named type
            return None
        self._refuse_foreign_storage(dataset, key)
        if dataset.get_space().get_simple_extent_type() == _h5s.NULL:
            return None
        dtype = cast("np.dtype[Any]", dataset.dtype)
        shape = cast("tuple[int, ...]", dataset.shape)
        self._budget.take(math.prod(shape) * dtype.itemsize, field=key)
        if dtype.kind == "O":
            return np.asarray(cast("Any", self._group[key])[()])
        values = np.empty(shape, dtype=dtype)
        if values.size:
            dataset.read(_h5s.ALL, _h5s.ALL, values)
        return values

    def subgroup(self, key: str) -> "StoredGroup | None":
        """The group `key`, or None.

        Raises:
            DataError: it lies in another file, or groups contain each other.
        """
        if not self._is_own(key):
            return None
        item = cast("object", self._group.get(key))
        if not isinstance(item, h5py.Group):
            return None
        if self._depth >= _MAX_DEPTH:
            raise self._error(
                key,
                f"groups within groups, {_MAX_DEPTH} deep",
                "Flatten the groups; none may contain itself.",
            )
        return StoredGroup(item, self._file, self._budget, self._depth + 1)

    def numeric_leaves(self) -> dict[str, AnyArray]:
        """All numeric arrays with rows below the group, by path.

        Raises:
            DataError: a group contains itself, or there are more than 10,000 arrays.
        """
        leaves: dict[str, AnyArray] = {}
        self._collect_leaves("", leaves, frozenset())
        return leaves

    def _collect_leaves(self, prefix: str, leaves: dict[str, AnyArray], above: frozenset[int]) -> None:
        address = int(_h5o.get_info(self._id).addr)
        if address in above:
            raise self._error(prefix.rstrip("/"), "the group contains itself", "Store every group once.")
        for key in self.names():
            values = self.optional(key)
            if values is None:
                below = self.subgroup(key)
                if below is not None:
                    below._collect_leaves(f"{prefix}{key}/", leaves, above | {address})
            elif values.ndim and values.dtype.kind in "fiub":
                leaves[prefix + key] = values
            if len(leaves) > _MAX_LEAVES:
                raise self._error(
                    prefix + key, f"more than {_MAX_LEAVES:,} arrays", "Store few arrays of many rows."
                )

    def attributes(self) -> dict[str, Any]:
        """The attributes of the group as Python values; arrays of more than 100,000 entries are refused."""
        return {key: self._attribute(key) for key in cast("list[str]", list(self._group.attrs))}

    def attribute(self, key: str) -> dict[str, Any]:
        """One attribute by its name, nothing where there is none."""
        return {key: self._attribute(key)} if key in self._group.attrs else {}

    def _attribute(self, key: str) -> Any:
        attrs = cast("Any", self._group.attrs)
        if math.prod(attrs.get_id(key).shape or ()) > _MAX_ATTRIBUTE:
            raise self._error(key, "the attribute is too large", "Store large arrays as data sets.")
        value: Any = attrs[key]
        return cast("Any", value.item()) if isinstance(value, np.generic) else value

    def text(self, key: str) -> str | None:
        """A stored string, or None where there is none."""
        values = self.optional(key)
        if values is None or values.ndim or values.dtype.kind not in "OSU":
            return None
        value: object = values.item()
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _is_own(self, key: str) -> bool:
        """Whether `key` is there; a link that leads away from it is an error."""
        try:
            kind = int(self._id.links.get_info(key.encode()).type)
        except (KeyError, RuntimeError):
            return False
        if kind != _h5l.TYPE_HARD:
            what = "another file" if kind == _h5l.TYPE_EXTERNAL else "another place"
            raise self._error(
                key, f"it is a link to {what}, which is not followed", "Store the data themselves."
            )
        return True

    def _refuse_foreign_storage(self, dataset: Any, key: str) -> None:
        properties = dataset.get_create_plist()
        if properties.get_layout() == _h5d.VIRTUAL or properties.get_external_count():
            raise self._error(
                key, "its data lie in other files, which are not read", "Store the data in the file itself."
            )

    def _error(self, field: str, problem: str, remedy: str) -> DataError:
        return DataError(problem, file=self._file, field=field or None, remedy=remedy)


def is_hdf5(path: Path) -> bool:
    """Whether `path` is a file that starts as HDF5 files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def hdf5_at(path: Path) -> Path:
    """`path` itself, or the only HDF5 file of a folder."""
    return only_file(path, HDF5_SUFFIXES) or path


def refuse_hdf5(path: Path, refuse: Callable[[StoredGroup], str | None]) -> str | None:
    """Why `path` is no HDF5 file, nor a folder with exactly one, or what `refuse` says of its content.

    Raises:
        DataError: the file is damaged.
    """
    file = only_file(path, HDF5_SUFFIXES)
    if file is None:
        return "not a file, nor a folder with exactly one .hdf5 file"
    if not is_hdf5(file):
        return "does not start as HDF5 files do"
    with open_hdf5(file) as content:
        return refuse(content)


@contextlib.contextmanager
def open_hdf5(path: Path) -> Generator[StoredGroup]:
    """Opens for reading; damage found on opening or on reading becomes an error that names the file.

    Raises:
        DataError: the file is truncated or otherwise damaged.
    """
    with reading(path), h5py.File(path, "r") as file:
        yield StoredGroup(file, path, ReadBudget(path))


def make_hdf5(fill: Callable[[Group], None]) -> memoryview:
    """The bytes of a new file that `fill` writes into.

    The library must not meet a full disk: it crashes the process where it cannot close a file. So it writes
    to memory, where compressed logs are small.
    """
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fill(file)
    return stream.getbuffer()


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
