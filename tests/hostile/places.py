"""Paths that hold no dataset."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case


def place(name: str, make: Callable[[Path], object], words: str = "", *, at: str = "log") -> Case:
    """A path below an empty folder, after `make` did something to it."""

    def prepare(folder: Path) -> Path:
        path = folder / at
        make(path)
        return path

    return Case(f"place: {name}", prepare, words=words)


def loop(path: Path) -> None:
    path.symlink_to(path)


def two(path: Path) -> None:
    path.mkdir()
    for name in ("a.npz", "b.npz"):
        (path / name).write_bytes(b"PK")


def cases() -> tuple[Case, ...]:
    """The table."""
    return (
        place("nothing", lambda path: None, "no dataset"),
        place("a name of 5,000 characters", lambda path: None, "no dataset", at="n" * 5000),
        place("an empty folder", Path.mkdir, "no format reads it"),
        place("two archives", two, "no format reads it"),
        place("a pipe", os.mkfifo, "no format reads it"),
        place("a link to itself", loop),
        place("a table of values", lambda path: path.write_text("t;x;u\n0;1;2\n"), "no format reads it"),
        place("a pickle", lambda path: path.write_bytes(b"\x80\x04N."), "no format reads it"),
        place("a folder with metadata alone", lambda path: (path / "data").mkdir(parents=True)),
        place("a folder that is called like an archive", Path.mkdir, at="log.npz"),
    )
