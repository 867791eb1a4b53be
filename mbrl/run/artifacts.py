"""Tensors in one safetensors file, with everything else as JSON in its header; nothing in it is executed.

A file of strangers is believed step by step: the header's size is held against the file, the claimed tensors
against the bytes that are there, the entries against a schema, and the network that they describe against the
tensors, all before anything of a claimed size is allocated.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import safetensors.torch
import torch
from torch import Tensor

from mbrl.core.errors import FileError
from mbrl.run.files import check_values, hash_bytes, is_deep, make_folder, read_file, write_bytes

T = TypeVar("T")
Shape = tuple[int, ...]

MAX_HEADER_BYTES: Final = 2**26
"""Largest header; that of a policy takes a few KiB."""

_HEADER_KEY: Final = "mbrl"
_LENGTH_BYTES: Final = 8
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Of the tensors that this package stores, by their names in a file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """A file that was read.

    Attributes:
        path: of the file.
        what: it should be, for messages.
        header: plain values.
        tensors: by name; every number is finite.
        content: hash of the file, see `hash_file`.
    """

    path: Path
    what: str
    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    content: str

    def error(self, problem: str, *, field: str | None = None) -> FileError:
        """That the file is not what it should be."""
        return FileError(self.path, problem, field=field, remedy=_remedy(self.what))

    def entry(self, key: str, form: type[T]) -> T:
        """An entry of the header, in the form of a pydantic model or dataclass.

        Raises:
            FileError: it is missing, or of another form.
        """
        if key not in self.header:
            names = ", ".join(map(str, self.header))[:200] or "none"
            raise self.error(f"it holds no {self.what}: its header has no {key!r}, but the entries {names}")
        remedy = _remedy(self.what)
        return check_values(form, self.header[key], file=self.path, remedy=remedy, field=key)

    def check_shapes(self, shapes: Mapping[str, Shape], *, prefix: str = "") -> None:
        """Holds the tensors below `prefix` against what the header claims.

        Args:
            shapes: of float32 tensors, by name without the prefix.
            prefix: of their names in the file.

        Raises:
            FileError: one is missing, too many, or of another shape or type.
        """
        names = {name.removeprefix(prefix) for name in self.tensors if name.startswith(prefix)}
        for name in sorted(names ^ shapes.keys()):
            problem = "the tensor is missing" if name in shapes else "there is no such tensor in a"
            suffix = "" if name in shapes else f" {self.what}"
            raise self.error(problem + suffix, field=(prefix + name)[:200])
        for name, shape in shapes.items():
            tensor = self.tensors[prefix + name]
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise self.error(
                    f"the tensor is {tensor.dtype} {list(tensor.shape)}, and the header describes "
                    f"{torch.float32} {list(shape)}",
                    field=prefix + name,
                )

    def check_positive(self, names: Iterable[str]) -> None:
        """Refuses deviations that are not.

        Raises:
            FileError: an entry of a tensor is zero or negative.
        """
        for name in names:
            if not bool((self.tensors[name] > 0).all()):
                raise self.error("the tensor has entries that are not positive", field=name)


def save_artifact(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, version: int
) -> Path:
    """Writes the file; it appears whole or not at all.

    Args:
        path: ends in `.safetensors`.
        tensors: by name.
        header: plain values.
        version: of the header's and the tensors' meaning.

    Raises:
        StorageError: it cannot be written.
    """
    owned = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps({"format_version": version, **header})
    make_folder(path.parent)
    write_bytes(path, safetensors.torch.save(owned, {_HEADER_KEY: text}))
    return path


def load_artifact(path: Path, *, version: int, what: str) -> Artifact:
    """Header and tensors.

    Args:
        path: of the file.
        version: the one that the caller reads.
        what: what the file should be, for messages.

    Raises:
        FileError: there is no such file, it is damaged, or something else.
    """
    content = read_file(path, remedy=_remedy(what))
    try:
        metadata = _check_layout(content)
        header: Any = json.loads(metadata)
        if not isinstance(header, dict) or is_deep(header):
            raise _LayoutError("its header is not a JSON object, or deeper than any")
        fields = cast("dict[str, Any]", header)
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except (_LayoutError, safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        problem = f"it is not a {what} file of mbrl, or it is damaged ({str(error)[:200]})"
        raise FileError(path, problem, remedy=_remedy(what)) from error
    found = fields.pop("format_version", None)
    if isinstance(found, bool) or found != version:
        shown = str(found)[:40]
        raise FileError(
            path,
            f"it has format version {shown}; this version of mbrl reads version {version} of a {what} file",
            remedy="write it again with this version.",
        )
    artifact = Artifact(path, what, fields, tensors, hash_bytes(content))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise artifact.error("the tensor holds a NaN or an infinity", field=name[:200])
    return artifact


class _LayoutError(Exception):
    """The bytes are no safetensors file that this package wrote."""


def _check_layout(content: bytes) -> str:
    """The text of our entry of the header, once every claim of the header was held against the bytes.

    A safetensors file is the length of its header (8 bytes, little-endian), the header as JSON, and the bytes
    of the tensors, each at the offsets that the header gives.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    size = len(content) - _LENGTH_BYTES - length
    if len(content) < _LENGTH_BYTES or size < 0 or length > MAX_HEADER_BYTES:
        raise _LayoutError(f"it has {len(content):,} bytes, and claims a header of {length:,}")
    entries: Any = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if not isinstance(entries, dict):
        raise _LayoutError("its header is not a JSON object")
    fields = cast("dict[str, Any]", entries)
    metadata: Any = fields.pop("__metadata__", None)
    for name, entry in fields.items():
        _check_tensor(name[:60], entry, size)
    text: Any = cast("dict[str, Any]", metadata).get(_HEADER_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _LayoutError(f"its header has no entry {_HEADER_KEY!r}")
    return text


def _check_tensor(name: str, entry: Any, size: int) -> None:
    """Type, shape and place of a tensor among the `size` bytes of the file."""
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    dtype = _DTYPES.get(str(fields.get("dtype")))
    shape, offsets = _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise _LayoutError(f"the tensor {name!r} has no type, shape or place that this package stores")
    needed, (begin, end) = math.prod(shape) * dtype.itemsize, offsets
    if not 0 <= begin <= end <= size or end - begin != needed:
        raise _LayoutError(
            f"the tensor {name!r} claims {needed:,} bytes at {begin:,} to {end:,} of {size:,} that there are"
        )


def _counts(value: Any) -> list[int] | None:
    """A list of whole numbers of 0 or more, else None."""
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    is_sound = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in numbers)
    return numbers if is_sound and len(numbers) <= 8 else None


def _remedy(what: str) -> str:
    return f"name a {what} file that mbrl wrote, or make it again."
