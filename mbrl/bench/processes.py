"""The other end of a worker's pipe: contenders are started, asked for windows of work, and ended."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import mbrl.bench.peers
from mbrl.core.errors import MbrlError

OWN_COMMAND: Final = (sys.executable, "-m", "mbrl.bench.worker")
PEER_SCRIPT: Final = Path(mbrl.bench.peers.__file__).with_name("worker.py")
_QUOTED: Final = 300
_PATIENCE_SECONDS: Final = 5.0


class WorkerError(MbrlError):
    """A contender could not be made, or its process ended."""


class MissingLibraryError(MbrlError):
    """The library of a contender is not installed where it was looked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A piece of work against the clock.

    Attributes:
        units: of work that were done.
        seconds: that they took.
        resident: memory in use afterwards, bytes, or None.
    """

    units: int
    seconds: float
    resident: int | None

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.units / self.seconds


class WorkerProcess:
    """A contender that runs elsewhere; `open_worker` makes one.

    Args:
        process: the worker.
        errors: what it writes to standard error.
        name: of the contender, for messages.
    """

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str], name: str) -> None:
        self._process, self._errors, self._name = process, errors, name
        self.modes: tuple[str, ...] = ()
        self.version = ""

    def build(self, options: Mapping[str, Any]) -> None:
        """Lets it make its work.

        Raises:
            MissingLibraryError: its library is not installed.
            WorkerError: it failed.
        """
        reply = self._ask({"build": dict(options)})
        self.modes, self.version = tuple(reply["modes"]), reply["version"]

    def window(self, mode: str, seconds: float) -> Window:
        """Lets it work for `seconds`.

        Raises:
            WorkerError: it failed.
        """
        return Window(**self._ask({"window": {"mode": mode, "seconds": seconds}}))

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("a worker needs pipes")
        try:
            pipes[0].write(json.dumps(request) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self._name}: the process ended. {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "missing" in reply:
            raise MissingLibraryError(f"{self._name}: the package {reply['missing']} is not installed.")
        if "error" in reply:
            raise WorkerError(f"{self._name}: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-_QUOTED:].strip()


@contextlib.contextmanager
def open_worker(command: Sequence[str], name: str) -> Generator[WorkerProcess]:
    """Starts a worker, and ends it when the block is left.

    Args:
        command: program and arguments.
        name: of the contender, for messages.

    Raises:
        WorkerError: the program cannot be started.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except OSError as error:
            raise WorkerError(f"{name}: {command[0]} cannot be started: {error}") from error
        stack.callback(_end, process)
        yield WorkerProcess(process, errors, name)


def _end(process: "subprocess.Popen[str]") -> None:
    """The end of its input ends a worker; one that works on is stopped."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
