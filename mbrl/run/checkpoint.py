"""Checkpoints: written whole or not at all, checked by digest, loaded without running code."""

import dataclasses
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import torch

from mbrl.core.errors import ConfigError
from mbrl.core.types import StateDict
from mbrl.run.files import make_folder, storing, write_bytes

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"MBRLCKPT"
_DIGEST_SIZE: Final = 16
_TYPES: Final = {"format_version": int, "config_hash": str, "step": int, "content": dict}


class UnusableError(Exception):
    """A checkpoint that nothing can be continued from; the one before it may still serve."""


UNUSABLE: Final = (
    UnusableError, OSError, EOFError, zipfile.BadZipFile, ArithmeticError,
    KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, MemoryError, AssertionError,
)  # fmt: skip
"""What reading a file and loading states of other keys, types and sizes raises."""


class CheckpointFolder:
    """The checkpoints of one run, the newest few.

    A file is a magic word, a digest of the rest, and a `torch.save` of plain dicts with `format_version`,
    `config_hash`, `step` and `content`.

    Args:
        folder: where the files are; made when the first one is written.
        config_hash: of the run; a checkpoint of another config is refused.
        keep: how many are kept: one to continue from, and older ones in case it is damaged.
    """

    def __init__(self, folder: Path, config_hash: str, *, keep: int = 2) -> None:
        self._folder, self._config_hash, self._keep = folder, config_hash, keep

    def files(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(self._folder.glob("step-*.pt"))

    def save(self, step: int, content: StateDict) -> Path:
        """Writes the checkpoint of `step`, then drops the oldest beyond `keep`."""
        buffer = io.BytesIO()
        fields = {"format_version": FORMAT_VERSION, "config_hash": self._config_hash, "step": step}
        torch.save({**fields, "content": content}, buffer)
        data = buffer.getvalue()
        make_folder(self._folder)
        path = self._folder / _file_name(step)
        write_bytes(path, _MAGIC + _digest(data) + data)
        for old in self.files()[: -self._keep]:
            with storing(old):
                old.unlink(missing_ok=True)
        return path

    def load_latest(
        self,
        warn: Callable[[str], None],
        *,
        accept: Callable[[StateDict], object] | None = None,
        most: int | None = None,
    ) -> tuple[int, StateDict] | None:
        """Step and content of the newest checkpoint that can be used, or None without any.

        Args:
            warn: told of every checkpoint that is passed over.
            accept: loads the content, and raises what loading raises where keys, types or sizes are not those
                that it needs; whatever it changed until then is its own to undo.
            most: checkpoints of later steps are not looked at; None for all.

        Raises:
            ConfigError: a whole checkpoint belongs to another config or to a newer version of this package.
        """
        files = [path for path in self.files() if most is None or path.name <= _file_name(most)]
        for path in reversed(files):
            try:
                fields = _read(path)
                self._check(path, fields)
                content = fields.content
                bad = next(non_finite_names(content.get("learner")), None)
                if bad is not None:
                    raise UnusableError(f"{bad} is not finite")
                if accept is not None:
                    accept(content)
            except UNUSABLE as error:
                problem = " ".join(str(error).split())[:200]
                warn(f"Checkpoint {path} cannot be used ({problem}); trying the one before it.")
                continue
            return fields.step, content
        if files:
            warn(f"No checkpoint in {self._folder} can be used; starting from the beginning.")
        return None

    def _check(self, path: Path, fields: "_Fields") -> None:
        if fields.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"Checkpoint {path} has format version {fields.format_version}; this version of mbrl "
                f"reads {FORMAT_VERSION}. Remedy: continue with the version that wrote it, or start anew."
            )
        if fields.config_hash != self._config_hash:
            raise ConfigError(
                f"Checkpoint {path} belongs to a run with another config ({fields.config_hash[:8]}, not "
                f"{self._config_hash[:8]}). Remedy: remove it, or use another runs folder."
            )


@dataclasses.dataclass(frozen=True, slots=True)
class _Fields:
    """What a checkpoint's file holds."""

    format_version: int
    config_hash: str
    step: int
    content: StateDict


def non_finite_names(values: Any, name: str = "") -> Iterator[str]:
    """Names of floating-point tensors in nested plain containers that hold a NaN or an infinity."""
    if isinstance(values, torch.Tensor):
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            yield name
    elif isinstance(values, (dict, list, tuple)):
        container = cast("dict[Any, Any] | list[Any]", values)
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            yield from non_finite_names(value, f"{name}.{key}" if name else str(key))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_SIZE).digest()


def _read(path: Path) -> _Fields:
    """The file's content, its types checked; nothing of it is executed, or larger than the file.

    Raises:
        UnusableError: it is damaged, or no checkpoint of this package.
    """
    if not path.is_file():
        raise UnusableError("it is no plain file")
    raw = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_SIZE
    data = raw[start:]
    if raw[: len(_MAGIC)] != _MAGIC or raw[len(_MAGIC) : start] != _digest(data):
        raise UnusableError(f"it is damaged: {len(raw):,} bytes")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > len(data):
        raise UnusableError(f"it claims {size:,} bytes, and has {len(data):,}")
    try:
        fields: Any = torch.load(io.BytesIO(data), weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnusableError("it holds more than tensors and plain values") from error
    if not isinstance(fields, dict):
        raise UnusableError("it holds no fields")
    found: dict[str, Any] = {name: cast("dict[str, Any]", fields).get(name) for name in _TYPES}
    for name, kind in _TYPES.items():
        if type(found[name]) is not kind:
            raise UnusableError(f"its {name} is no {kind.__name__}")
    if found["step"] < 0 or path.name != _file_name(found["step"]):
        raise UnusableError(f"it is of step {found['step']}")
    return _Fields(**found)


def _file_name(step: int) -> str:
    return f"step-{step:012d}.pt"
