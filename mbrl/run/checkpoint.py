"""Checkpoints: written whole or not at all, checked by digest, loaded without running code."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import torch

from mbrl.core.errors import ConfigError
from mbrl.core.types import StateDict
from mbrl.run.files import write_bytes

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"MBRLCKPT"
_DIGEST_SIZE: Final = 16


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
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{step:012d}.pt"
        write_bytes(path, _MAGIC + _digest(data) + data)
        for old in self.files()[: -self._keep]:
            old.unlink()
        return path

    def load_latest(self, warn: Callable[[str], None]) -> tuple[int, StateDict] | None:
        """Step and content of the newest checkpoint that is whole, or None without any.

        Args:
            warn: told of every damaged file that is passed over.

        Raises:
            ConfigError: a whole checkpoint belongs to another config or to a newer version of this package.
        """
        for path in reversed(self.files()):
            fields = _read(path, warn)
            if fields is None:
                continue
            self._check(path, fields)
            return int(fields["step"]), cast("StateDict", fields["content"])
        return None

    def _check(self, path: Path, fields: dict[str, Any]) -> None:
        if fields["format_version"] != FORMAT_VERSION:
            raise ConfigError(
                f"Checkpoint {path} has format version {fields['format_version']}; this version of mbrl "
                f"reads {FORMAT_VERSION}. Remedy: continue with the version that wrote it, or start anew."
            )
        if fields["config_hash"] != self._config_hash:
            raise ConfigError(
                f"Checkpoint {path} belongs to a run with another config ({fields['config_hash'][:8]}, not "
                f"{self._config_hash[:8]}). Remedy: remove it, or use another runs folder."
            )


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


def _read(path: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    raw = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_SIZE
    data = raw[start:]
    if raw[: len(_MAGIC)] != _MAGIC or raw[len(_MAGIC) : start] != _digest(data):
        warn(f"Checkpoint {path} is damaged ({len(raw)} bytes); using the one before it.")
        return None
    return torch.load(io.BytesIO(data), weights_only=True)
