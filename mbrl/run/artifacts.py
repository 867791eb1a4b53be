"""Tensors in one safetensors file, with everything else as JSON in its header; nothing in it is executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import safetensors
import safetensors.torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.run.files import write_bytes

_HEADER_KEY: Final = "mbrl"


def save_artifact(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, version: int
) -> Path:
    """Writes the file; it appears whole or not at all.

    Args:
        path: ends in `.safetensors`.
        tensors: by name.
        header: plain values.
        version: of the header's and the tensors' meaning.
    """
    owned = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps({"format_version": version, **header})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors.torch.save(owned, {_HEADER_KEY: text}))
    return path


def load_artifact(path: Path, *, version: int, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors.

    Args:
        path: of the file.
        version: the one that the caller reads.
        what: what the file should be, for messages.

    Raises:
        ConfigError: there is no such file, it is damaged, or something else.
    """
    if not path.is_file():
        raise ConfigError(f"There is no {what} file {path}.")
    try:
        with cast("Any", safetensors.safe_open)(path, framework="pt") as reader:
            metadata: dict[str, str] = reader.metadata() or {}
            tensors: dict[str, Tensor] = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        header: dict[str, Any] = json.loads(metadata[_HEADER_KEY])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is not a {what} file of mbrl, or it is damaged ({error}).") from error
    found = header.pop("format_version", None)
    if found != version:
        raise ConfigError(
            f"{path} has format version {found}; this version of mbrl reads version {version} of a {what} "
            "file. Remedy: write it again with this version."
        )
    return header, tensors
