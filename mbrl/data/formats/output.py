"""Writes files and folders that are either whole or absent, and says so plainly when the disk is full."""

import contextlib
import errno
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

from mbrl.core.errors import DataError
from mbrl.data.formats.limits import show_bytes

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_file(path: Path, content: bytes | memoryview) -> Path:
    """Writes `content` to `path`, which must be free.

    Raises:
        FileExistsError: something is there.
        DataError: it cannot be written; nothing is left behind.
    """
    with partial_path(path, memoryview(content).nbytes) as partial:
        _write(partial, content)
    return path


def write_folder(path: Path, files: Mapping[str, bytes | memoryview]) -> Path:
    """Writes the folder `path`, which must be free, with `files` by their paths in it.

    Raises:
        FileExistsError: something is there.
        DataError: it cannot be written; nothing is left behind.
    """
    needed = sum(memoryview(content).nbytes for content in files.values())
    with partial_path(path, needed) as partial:
        for name, content in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, content)
    return path


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # some file systems tell only now that they are full


@contextlib.contextmanager
def partial_path(path: Path, needed: int) -> Generator[Path]:
    """A name beside `path` to write to; it takes the place of `path` in the end, or vanishes."""
    if path.exists():
        raise FileExistsError(f"{path} exists already. Remedy: give another name, or remove it.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of a run that was killed
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise _explain(error, path, needed) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _explain(error: OSError, path: Path, needed: int) -> DataError:
    if error.errno not in _FULL:
        return DataError(
            f"it cannot be written ({error.strerror or error})",
            file=path,
            remedy="Check the folder and its permissions, or write elsewhere.",
        )
    free = "an unknown number of bytes"
    with contextlib.suppress(OSError):
        free = show_bytes(shutil.disk_usage(path.parent).free)
    return DataError(
        f"the disk is full: {show_bytes(needed)} ({needed:,} bytes) are needed, {free} are free",
        file=path,
        remedy="Free space, or write to another disk.",
    )
