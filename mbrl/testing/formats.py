"""What every dataset format must keep to.

A format that is only read (`ReadOnlyFormat`) refuses to write, and says what to write instead; the laws about
what is read hold for a sample of the format, which its tests bring.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.formats.base import FORMATS, Format, ReadOnlyFormat
from mbrl.data.options import LoadOptions
from mbrl.testing.checks import CheckError, Checks, Subject, expect, run_checks
from mbrl.testing.samples import make_dataset

_ARRAYS = ("observations", "actions", "rewards")


@dataclasses.dataclass(frozen=True, slots=True)
class FormatCase:
    """A format.

    Attributes:
        format: as it is registered.
        make: writes a file of the format into a folder; None for a format that writes one itself.
    """

    format: Format
    make: Callable[[Path], Path] | None = None

    @property
    def is_written(self) -> bool:
        """Whether the format writes."""
        return not isinstance(self.format, ReadOnlyFormat)

    def write(self, folder: Path) -> Path:
        """The small log in this format."""
        return self.format.write(make_dataset(), folder / "log")

    def sample(self, folder: Path) -> Path | None:
        """A file of the format, None where there is none."""
        if self.make is not None:
            return self.make(folder)
        return self.write(folder) if self.is_written else None


def check_format(
    format_: str | Format,
    *,
    sample: Callable[[Path], Path] | None = None,
    checks: Sequence[str] | None = None,
) -> None:
    """Checks a format: what it writes it knows again and reads as it was; what it does not know it refuses.

    Args:
        format_: name in the registry, or the format itself.
        sample: writes a sound file of the format into a folder that is given, and returns its path: for a
            format that is only read, or another example of one that writes.
        checks: names from `FORMAT_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no format, or no check, of that name.
    """
    found = FORMATS.get(format_) if isinstance(format_, str) else format_
    name = format_ if isinstance(format_, str) else type(format_).__name__
    run_checks(FORMAT_CHECKS, FormatCase(found, sample), Subject("dataset format", name), checks)


def what_is_written_is_known_again(case: FormatCase) -> None:
    """`sniff` accepts what `write` wrote."""
    if not case.is_written:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder))
        refusal = case.format.sniff(path)
    expect(refusal is None, "sniff to accept what write wrote", came=f"the refusal {refusal!r}")


def what_is_written_is_read_as_it_was(case: FormatCase) -> None:
    """Every episode comes back: arrays to the last bit, and how it ended."""
    if not case.is_written:
        return
    with tempfile.TemporaryDirectory() as folder:
        read = case.format.read(case.write(Path(folder)), LoadOptions())
        before, after = make_dataset().episodes, read.episodes
        expect(len(after) == len(before), f"{len(before)} episodes", came=len(after))
        for index, (first, second) in enumerate(zip(before, after, strict=True)):
            _expect_same_episode(first, second, index)


def a_second_write_keeps_the_first(case: FormatCase) -> None:
    """Nothing is overwritten, not even by a format that would refuse to write."""
    with tempfile.TemporaryDirectory() as folder:
        if case.is_written:
            case.write(Path(folder))
        else:
            (Path(folder) / "log").touch()
        try:
            case.write(Path(folder))
        except FileExistsError:
            return
    raise CheckError("expected a FileExistsError where something lies already; came a written file")


def other_files_are_refused_with_a_reason(case: FormatCase) -> None:
    """`sniff` says why it refuses: the message about an unknown file quotes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.txt"
        path.write_text("not a log\n", encoding="utf-8")
        refusal: Any = case.format.sniff(path)
    is_reason = isinstance(refusal, str) and bool(refusal)
    expect(is_reason, "a reason to refuse a text that is no log", came=repr(refusal))


def what_is_only_read_says_what_to_write(case: FormatCase) -> None:
    """A format that does not write refuses, names a remedy, and leaves nothing behind."""
    if case.is_written:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            case.write(Path(folder))
        except DataError as error:
            expect(bool(error.remedy), "a remedy with the refusal to write", came=error)
        else:
            raise CheckError("expected a DataError from a format that is only read; came a written file")
        left = sorted(entry.name for entry in Path(folder).iterdir())
        expect(not left, "nothing behind a refusal to write", came=left)


def a_sample_is_read_the_same_each_time(case: FormatCase) -> None:
    """`sniff` accepts a sample, and two readings of it are equal."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.sample(Path(folder))
        if path is None:
            return
        refusal = case.format.sniff(path)
        expect(refusal is None, "sniff to accept the sample", came=f"the refusal {refusal!r}")
        first, second = (case.format.read(path, LoadOptions()) for _ in range(2))
        expect(first.content_hash == second.content_hash, "two equal readings", came="two others")
        expect(len(first) > 0, "at least one episode", came=0)


def a_sample_is_of_one_format(case: FormatCase) -> None:
    """No registered format but this one accepts a sample: which one reads it is no matter of order."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.sample(Path(folder))
        if path is None:
            return
        others = [name for name in FORMATS.names() if type(FORMATS.get(name)) is not type(case.format)]
        claimed = [name for name in others if FORMATS.get(name).refuse(path) is None]
        expect(not claimed, "every other format to refuse the sample", came=f"accepted by {claimed}")


def _expect_same_episode(first: Episode, second: Episode, index: int) -> None:
    for name in _ARRAYS:
        ours, theirs = getattr(first, name), getattr(second, name)
        where = f"{name} of episode {index} as they were written"
        expect(ours.shape == theirs.shape, f"{where}, {list(ours.shape)}", came=list(theirs.shape))
        expect(bool(np.array_equal(ours, theirs)), where, came="other values")
    for name in ("terminated", "truncated"):
        expected = f"{name}={getattr(first, name)} of episode {index}"
        expect(getattr(first, name) == getattr(second, name), expected, came=getattr(second, name))


FORMAT_CHECKS: Final[Checks[FormatCase]] = {
    check.__name__: check
    for check in (
        what_is_written_is_known_again,
        what_is_written_is_read_as_it_was,
        a_second_write_keeps_the_first,
        other_files_are_refused_with_a_reason,
        what_is_only_read_says_what_to_write,
        a_sample_is_read_the_same_each_time,
        a_sample_is_of_one_format,
    )
}
"""Checks of `check_format` by name."""
