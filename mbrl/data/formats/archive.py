"""NumPy archives: safe reading, and which of the layouts that share the container an archive has."""

import functools
import math
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from mbrl.core.choices import MAX_CHOICES, stated_names
from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.flat import FLAT_NAMES
from mbrl.data.formats.base import only_file
from mbrl.data.formats.limits import ReadBudget, reading
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray
from mbrl.data.spaces import read_bounds

Layout: TypeAlias = Literal["npz", "flat_npz", "neorl", "ogbench"]

_SIGNATURE: Final = b"PK\x03\x04"
_NEORL: Final = frozenset({"index", "obs", "next_obs", "action"})
_OGBENCH: Final = frozenset({"observations", "actions", "terminals"})
_OGBENCH_STATES: Final = frozenset({"qpos", "qvel"})
_REWARDS: Final = frozenset(FLAT_NAMES["rewards"])
_FLAT: Final = frozenset(name for names in FLAT_NAMES.values() for name in names)
_SUFFIX: Final = ".npy"


def refuse_archive(path: Path, layout: Layout) -> str | None:
    """Why the archive at `path` has not the given layout, or None if it has.

    An archive that cannot be looked into counts as `npz`, whose reader says what is wrong with it.
    """
    file = only_file(path, (".npz",))
    if file is None:
        return "not a file, nor a folder with exactly one .npz file"
    with file.open("rb") as stream:
        if stream.read(len(_SIGNATURE)) != _SIGNATURE:
            return "does not start as a NumPy archive does"
    keys = _keys(file)
    if keys is not None and not keys:
        return "a zip archive without NumPy arrays"
    found = _layout(keys or frozenset())
    return None if found == layout else f"its keys are those of {found}"


def _keys(file: Path) -> frozenset[str] | None:
    """Names of the arrays, None where the archive is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # noqa: BLE001 - whatever is wrong with it is told by the reader
        return None
    return frozenset(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def _layout(keys: Set[str]) -> Layout:
    if "lengths" in keys:
        return "npz"
    if keys >= _NEORL:
        return "neorl"
    if keys >= _OGBENCH and keys & _OGBENCH_STATES and not keys & _REWARDS:
        return "ogbench"
    return "flat_npz" if keys & _FLAT else "npz"


def load_archive(file: Path) -> dict[str, AnyArray]:
    """All arrays of an archive, without unpickling anything.

    Raises:
        DataError: the archive is a folder, truncated or otherwise damaged, holds pickled objects, or claims
            more memory than its size makes credible.
    """
    if file.is_dir():
        raise DataError("it is a folder", file=file, remedy="Name the .npz file in it.")
    arrays: dict[str, AnyArray] = {}
    with reading(file), zipfile.ZipFile(file) as archive:
        budget = ReadBudget(file)
        for member in archive.infolist():
            key = member.filename.removesuffix(".npy")
            if key == member.filename:
                continue
            if key in arrays:
                raise DataError(
                    "the key is there twice", file=file, field=key, remedy="Write the file again."
                )
            claimed = _claimed_bytes(archive, member, file)
            if claimed > member.file_size:
                raise DataError(
                    f"the array claims {claimed:,} bytes, and {member.file_size:,} are there",
                    file=file,
                    field=key,
                    remedy="The file is truncated or damaged: copy or write it again.",
                )
            budget.take(claimed, field=key)
            with archive.open(member) as stream:
                arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _claimed_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path) -> int:
    """Size of an array by its header, read before memory is taken for it."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    report = functools.partial(DataError, file=file, field=member.filename.removesuffix(".npy"))
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in headers:
            raise report(f"an array of format {version}", remedy="Store plain numeric arrays.")
        shape, _, dtype = headers[version](stream)
    if dtype.hasobject:
        raise report(
            "the array is of dtype object",
            remedy="Store plain numeric arrays; ragged episodes go one after the other, with their lengths.",
        )
    return math.prod(shape) * dtype.itemsize


def archive_info(arrays: Mapping[str, AnyArray], file: Path, options: LoadOptions) -> DatasetInfo:
    """The description under the key `info`, else the name of the file.

    Raises:
        DataError: it is no text, or does not describe a dataset.
    """
    text = arrays.get("info")
    if text is None:
        return DatasetInfo(name=file.stem, max_episode_steps=options.max_episode_steps)
    if text.dtype.kind != "U" or text.size != 1:
        raise DataError(
            f"shape {text.shape}, dtype {text.dtype}, where one text is needed",
            file=file,
            field="info",
            remedy="Store the JSON of DatasetInfo as text, or leave the key out.",
        )
    return DatasetInfo.from_json(str(text.reshape(-1)[0]), file=file)


def archive_choices(arrays: Mapping[str, AnyArray], file: Path) -> tuple[str, ...] | None:
    """Names of the choices under the key `choices`, or as many as a number there says; None without it.

    Raises:
        DataError: they are neither names nor a number, too many, or named twice.
    """
    values = arrays.get("choices")
    if values is None:
        return None
    report = functools.partial(
        DataError, file=file, field="choices", remedy="Store their number, or one name for each as text."
    )
    if values.size > MAX_CHOICES or values.dtype.kind not in "iuU":
        raise report(
            f"shape {values.shape}, dtype {values.dtype}, where at most {MAX_CHOICES:,} names are possible"
        )
    try:
        return stated_names(
            int(values) if values.ndim == 0 and values.dtype.kind != "U" else values.reshape(-1).tolist()
        )
    except ValueError as error:
        raise report(str(error)) from error


def archive_bounds(
    arrays: Mapping[str, AnyArray], file: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The action bounds under the keys `act_low` and `act_high`, None where there are none.

    Raises:
        DataError: they are no vectors of numbers.
    """
    low, high = (
        read_bounds(arrays[key], file=file, field=key) if key in arrays else None
        for key in ("act_low", "act_high")
    )
    return low, high


def archive_space(spec: SpaceSpec) -> dict[str, AnyArray]:
    """What an archive says of actions: their bounds, or the names of the choices."""
    if spec.choices is not None:
        return {"choices": np.array(spec.choices)}
    return {"act_low": np.array(spec.act_low), "act_high": np.array(spec.act_high)}
