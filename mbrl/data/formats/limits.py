"""What a strange file may cost: memory, and errors that are no error of the program."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from mbrl.core.errors import DataError, MbrlError

FREE_BYTES: Final = 2**30
"""Any file may hold this much, however small it is on disk."""

MAX_INFLATION: Final = 100
"""Beyond `FREE_BYTES`, arrays may take this many times the size of their file: real logs compress 2 to 10
times, a file of zeros 1,000 times."""

MAX_JSON_BYTES: Final = 2**26
"""Largest description of a dataset."""

_MEMORY_SHARE: Final = 0.9  # of the free memory that one file may claim


class ReadBudget:
    """Counts what is read from a file, before it is read.

    Args:
        file: the file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._size = file, file.stat().st_size
        self._taken = 0

    def take(self, count: int, *, field: str) -> None:
        """Counts `count` bytes more.

        Raises:
            DataError: the arrays of the file are larger than its size makes credible, or than the memory.
        """
        self._taken += count
        if self._taken <= FREE_BYTES:
            return
        if self._taken > MAX_INFLATION * self._size:
            raise DataError(
                f"its arrays claim {show_bytes(self._taken)} of memory, "
                f"{self._taken // max(self._size, 1):,} times the size of the file",
                file=self._file,
                field=field,
                remedy="The file is damaged, or made to fill the memory. If its content is real, store the "
                "arrays without compression.",
            )
        free = free_memory()
        if free is not None and count > _MEMORY_SHARE * free:
            raise DataError(
                f"the array takes {show_bytes(count)} of memory, and {show_bytes(free)} are free",
                file=self._file,
                field=field,
                remedy="Free memory, store float32 instead of float64, or split the log.",
            )


def free_memory() -> int | None:
    """Bytes of memory that a process may still take, None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def show_bytes(count: int) -> str:
    """A size for people: `4.0 GiB`."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


@contextlib.contextmanager
def reading(file: Path) -> Generator[None]:
    """Turns whatever the parsers of a file raise into an error that names the file.

    Libraries that parse bytes of strangers raise what they like (`KeyError`, `OverflowError`,
    `RecursionError`, ...). None of it is an error of the program, and the cause stays attached.

    Raises:
        DataError: the file is truncated or damaged, or larger than the memory.
    """
    try:
        yield
    except MbrlError:
        raise
    except MemoryError as error:
        raise DataError(
            "its content does not fit into the memory",
            file=file,
            remedy="Free memory or split the log; if the file is small, it is damaged: copy it again.",
        ) from error
    except PermissionError as error:
        raise DataError(
            "it may not be read", file=file, remedy="Change the permissions of the file."
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise DataError(
            f"the file cannot be read ({type(error).__name__}: {text})",
            file=file,
            remedy="The file is truncated or damaged: copy, download or write it again.",
        ) from error
