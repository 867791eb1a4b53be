"""Files that are either whole or absent, reading that expects anything, and the lock of a folder."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from mbrl.core.errors import FileError, MbrlError, StorageError

T = TypeVar("T")

MAX_JSON_BYTES: Final = 2**28
"""Largest JSON file that is read; those of this package take a few MiB at most."""

MAKE_AGAIN: Final = "delete its folder, and run the command that made it again."
"""Remedy for a damaged file of a run: all of them are functions of their inputs."""

_MAX_DEPTH: Final = 100
_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 0.02

_REMEDIES: Final = {
    errno.ENOSPC: "free space on that disk, or name a place on another one.",
    errno.EDQUOT: "free space within your quota, or name a place on another disk.",
    errno.EFBIG: "raise the limit on the size of files, or name a place on another disk.",
    errno.EROFS: "name a place that can be written to.",
    errno.EACCES: "change its permissions, or name another place.",
    errno.EPERM: "change its permissions, or name another place.",
    errno.ENAMETOOLONG: "use a shorter name.",
    errno.ELOOP: "remove the link that leads to itself.",
    errno.ENOTDIR: "a file stands where a folder is needed; name another place.",
    errno.EEXIST: "a file stands where a folder is needed; name another place.",
    errno.EISDIR: "name a file, not a folder.",
    errno.ENOENT: "check the name.",
}


class BusyError(MbrlError):
    """Another process works in the same folder."""


def remedy_of(error: OSError) -> str:
    """What helps against an error of the system."""
    return _REMEDIES.get(error.errno or 0, "check the place and its disk.")


@contextlib.contextmanager
def storing(path: Path, *, size: int | None = None) -> Generator[None]:
    """Turns what the system says while `path` is written into an error for the user.

    Args:
        path: that is written, named in the message.
        size: bytes that it takes, if they are known.

    Raises:
        StorageError: there is no space, no permission or no such place.
    """
    try:
        yield
    except OSError as error:
        parts = [error.strerror or str(error)]
        if size is not None:
            parts.append(f"{size:,} bytes are needed")
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            parts.append(f"{_free_bytes(path):,} are free")
        raise StorageError(path, ", ".join(parts), remedy=remedy_of(error)) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` at once: a reader, or a crash at any moment, sees the old content or the new.

    Raises:
        StorageError: it cannot be written; nothing is left of the attempt.
    """
    partial = path.with_name(f".{path.name}.tmp")
    with storing(path, size=len(data)):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
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


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it.

    Raises:
        StorageError: a file stands there, or it may not be written to.
    """
    with storing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def is_file(path: Path) -> bool:
    """Whether there is a plain file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; a name that none can have is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_file(path: Path, *, remedy: str = MAKE_AGAIN, limit: int | None = None) -> bytes:
    """The whole content of a file.

    Args:
        path: of it.
        remedy: what to do if it cannot be used.
        limit: largest size that is credible, bytes.

    Raises:
        FileError: it is absent, no plain file, unreadable or too large.
    """
    try:
        if path.is_dir():
            raise FileError(path, "it is a folder, not a file", remedy=remedy)
        if not path.exists():
            raise FileError(path, "there is no such file", remedy=remedy)
        if not path.is_file():
            raise FileError(path, "it is no plain file", remedy=remedy)
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise FileError(path, f"it has {size:,} bytes, where {limit:,} are the most", remedy=remedy)
        return path.read_bytes()
    except OSError as error:
        text = error.strerror or str(error)
        raise FileError(path, f"it cannot be read ({text})", remedy=remedy) from error


def read_json(path: Path, *, remedy: str = MAKE_AGAIN) -> dict[str, Any]:
    """Reads an object.

    Args:
        path: of the file.
        remedy: what to do if it cannot be used.

    Raises:
        FileError: the file cannot be read, or holds no JSON object.
    """
    content = read_file(path, remedy=remedy, limit=MAX_JSON_BYTES)
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise FileError(path, f"it is not JSON ({str(error)[:200]})", remedy=remedy) from error
    if not isinstance(values, dict):
        raise FileError(path, "it is not a JSON object", remedy=remedy)
    if is_deep(values):
        raise FileError(path, f"its values are more than {_MAX_DEPTH} deep", remedy=remedy)
    return cast("dict[str, Any]", values)


def check_values(form: type[T], values: Any, *, file: Path, remedy: str = MAKE_AGAIN, field: str = "") -> T:
    """`values`, read from a file, in the form of a pydantic model, dataclass or typed dictionary.

    Types are strict: the text "3" is no number.

    Args:
        form: what they should be.
        values: plain values as JSON gives them.
        file: that they come from.
        remedy: what to do if they are not of this form.
        field: entry of the file that they are, "" for all of it.

    Raises:
        FileError: an entry is missing, of another type, or out of range.
    """
    try:
        # As JSON, since there a list may be a tuple though types are strict.
        return _adapter(form).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        place, text = _first_problem(error)
        where = ".".join(part for part in (field, place) if part)
        raise FileError(file, text, field=where[:200] or None, remedy=remedy) from error


def read_record(path: Path, form: type[T], *, remedy: str = MAKE_AGAIN) -> T:
    """Reads an object of a known form; see `read_json` and `check_values`."""
    return check_values(form, read_json(path, remedy=remedy), file=path, remedy=remedy)


def is_deep(values: Any) -> bool:
    """Whether plain values are nested deeper than any of this package: walking them may overrun the stack."""
    level: list[Any] = [values]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += cast("dict[str, Any]", value).values()
            elif isinstance(value, list):
                below += cast("list[Any]", value)
        if not below:
            return False
        level = below
    return True


def hash_file(path: Path) -> str:
    """Hex digest (blake2b, 16 bytes) of a file's content: the identity of an input of a stage."""
    return hash_bytes(path.read_bytes())


def hash_bytes(content: bytes) -> str:
    """The same of content that was read already."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds the lock file `path`; the system releases it when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
        StorageError: it cannot be made.
    """
    with storing(path):
        file = path.open("a+", encoding="ascii", errors="replace")
    with file:
        if not any(_take(file, attempt) for attempt in range(_ATTEMPTS)):
            file.seek(0)
            raise BusyError(
                f"Process {file.read(20).strip() or 'unknown'} works in {path.parent}. "
                "Remedy: wait until it is done, or stop it; then run the same command again."
            )
        with storing(path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`. Looking takes a free lock for an instant."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or none that a process of ours could hold
        return False
    return False


@functools.cache
def _adapter(form: Any) -> Any:
    return TypeAdapter(form)


def _take(file: TextIO, attempt: int) -> bool:
    """Tries to lock, after a pause if it is not the first attempt: `is_locked` may be looking right now."""
    time.sleep(_PAUSE_SECONDS if attempt else 0.0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_bytes(path: Path) -> int:
    """Of the disk that `path` is to lie on."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free
    return 0


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """Where the first problem is, and what."""
    first = error.errors(include_url=False)[0]
    text = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        text = "the entry is missing"
    elif not isinstance(first["input"], (dict, list)):
        text = f"{str(cast('object', first['input']))[:60]!r}: {text}"
    return ".".join(map(str, first["loc"])), text
