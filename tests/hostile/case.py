"""Hostile inputs: how a case is written, run and judged.

A table is a tuple of `Case`. `run_case` makes the input and runs the command line on it, in this process;
`judge` says what is wrong with the outcome: nothing, if the command refused in words that serve the user.
"""

import contextlib
import dataclasses
import resource
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Final, Literal, TypeAlias

from typer.testing import CliRunner

from mbrl.cli.app import app

SECONDS: Final = 60
"""A command that takes longer hangs; far above what a loaded machine needs."""

MEMORY: Final = 6 * 2**30
"""Bytes of address space that a command may take beyond what the tests hold already."""

MAX_MESSAGE: Final = 3000

PLACE: Final = "PATH"
"""Stands in a command for the input, `OUT` for a free path beside it, `STORE` for the root of its runs."""

Ending: TypeAlias = Literal["refused", "answered", "either"]
"""How a command must end: by a clear refusal, by its answer, or by one of the two."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An input that is hostile.

    Attributes:
        name: unique in its table.
        make: writes the input into an empty folder, and returns its path.
        command: arguments of `mbrl`, with `PATH` and `OUT`.
        words: what the message must say, lower case; empty if any clear message will do.
        ending: how the command must end.
        about: what the message names instead of the input, where the input itself only names it.
    """

    name: str
    make: Callable[[Path], Path]
    command: tuple[str, ...] = ("import", PLACE, "--out", "OUT")
    words: str = ""
    ending: Ending = "refused"
    about: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        code: exit status.
        message: on the error stream.
        seconds: processor time.
        path: of the input.
        problem: an exception that reached the top, or a time-out; None if there was none.
    """

    code: int
    message: str
    seconds: float
    path: Path
    problem: str | None


class HangError(BaseException):
    """The command did not end; no handler of errors may catch this."""


@contextlib.contextmanager
def limits() -> Generator[None]:
    """Bounds time and memory."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise HangError

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def run_case(case: Case, folder: Path) -> Outcome:
    """Makes the input in `folder`, which is empty, and runs the command."""
    path = case.make(folder)
    places = {PLACE: str(path), "OUT": str(folder / "written"), "STORE": str(folder / "store")}
    places["OUT.safetensors"] = str(folder / "written.safetensors")
    arguments = [places.get(argument, argument) for argument in case.command]
    start = time.process_time()
    try:
        with limits():
            result = CliRunner().invoke(app, arguments)
    except HangError:
        return Outcome(-1, "", time.process_time() - start, path, f"it still ran after {SECONDS} s")
    seconds = time.process_time() - start
    is_exit = result.exception is None or isinstance(result.exception, SystemExit)
    problem = None if is_exit else f"{type(result.exception).__name__}: {result.exception}"
    return Outcome(result.exit_code, result.stderr, seconds, path, problem)


def judge(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with an outcome: empty if the command ended as it must, and a refusal is clear."""
    if outcome.problem is None and outcome.code == 0 and case.ending != "refused":
        return []
    message = " ".join(outcome.message.split())
    names = {outcome.path.name, *(entry.name for entry in _inside(outcome.path))}
    rules = {
        f"it ended with {outcome.problem}": outcome.problem is not None,
        f"exit status {outcome.code}": outcome.code != 1 or case.ending == "answered",
        "an internal error": "Internal error" in message or "Traceback" in message,
        "no error": "Error: " not in message,
        "no file is named": not any(name[:100] in message for name in names)
        and not (case.about and case.about in message),
        "no remedy": "Remedy: " not in message and "Legal " not in message,
        f"a message of {len(message)} characters": len(message) > MAX_MESSAGE,
        f"{case.words!r} is not said": case.words not in message.lower(),
        "something was left behind": any(outcome.path.parent.glob(".*.partial")),
    }
    return [text for text, is_broken in rules.items() if is_broken]


def _inside(path: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [entry for entry in path.rglob("*") if entry.is_file()]
    return []
