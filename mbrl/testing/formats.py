"""What every dataset format must keep to."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.types import Episode
from mbrl.data.formats.base import FORMATS, Format
from mbrl.data.options import LoadOptions
from mbrl.testing.checks import CheckError, Checks, Subject, expect, run_checks
from mbrl.testing.samples import make_dataset

_ARRAYS = ("observations", "actions", "rewards")


@dataclasses.dataclass(frozen=True, slots=True)
class FormatCase:
    """A format.

    Attributes:
        format: as it is registered.
    """

    format: Format

    def write(self, folder: Path) -> Path:
        """The small log in this format."""
        return self.format.write(make_dataset(), folder / "log")


def check_format(format_: str | Format, *, checks: Sequence[str] | None = None) -> None:
    """Checks a format: what it writes it knows again and reads as it was; what it does not know it refuses.

    Args:
        format_: name in the registry, or the format itself.
        checks: names from `FORMAT_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no format, or no check, of that name.
    """
    found = FORMATS.get(format_) if isinstance(format_, str) else format_
    name = format_ if isinstance(format_, str) else type(format_).__name__
    run_checks(FORMAT_CHECKS, FormatCase(found), Subject("dataset format", name), checks)


def what_is_written_is_known_again(case: FormatCase) -> None:
    """`sniff` accepts what `write` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder))
        refusal = case.format.sniff(path)
    expect(refusal is None, "sniff to accept what write wrote", came=f"the refusal {refusal!r}")


def what_is_written_is_read_as_it_was(case: FormatCase) -> None:
    """Every episode comes back: arrays to the last bit, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        read = case.format.read(case.write(Path(folder)), LoadOptions())
        before, after = make_dataset().episodes, read.episodes
        expect(len(after) == len(before), f"{len(before)} episodes", came=len(after))
        for index, (first, second) in enumerate(zip(before, after, strict=True)):
            _expect_same_episode(first, second, index)


def a_second_write_keeps_the_first(case: FormatCase) -> None:
    """Nothing is overwritten."""
    with tempfile.TemporaryDirectory() as folder:
        case.write(Path(folder))
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
    )
}
"""Checks of `check_format` by name."""
