"""Files that are either whole or absent, and the lock that keeps a second process out."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from mbrl.core.errors import MbrlError

_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 0.02


class BusyError(MbrlError):
    """Another process works in the same folder."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` at once: a reader, or a crash at any moment, sees the old content or the new."""
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the rename itself survive a power failure
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """As `write_bytes`, indented."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_file(path: Path) -> str:
    """Hex digest (blake2b, 16 bytes) of a file's content: the identity of an input of a stage."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds the lock file `path`; the system releases it when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
    """
    with path.open("a+", encoding="ascii") as file:
        if not any(_take(file, attempt) for attempt in range(_ATTEMPTS)):
            file.seek(0)
            raise BusyError(
                f"Process {file.read().strip() or 'unknown'} works in {path.parent}. "
                "Remedy: wait until it is done, or stop it; then run the same command again."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`. Looking takes a free lock for an instant."""
    if not path.exists():
        return False
    with path.open("r", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _take(file: TextIO, attempt: int) -> bool:
    """Tries to lock, after a pause if it is not the first attempt: `is_locked` may be looking right now."""
    time.sleep(_PAUSE_SECONDS if attempt else 0.0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
