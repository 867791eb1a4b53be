"""Options that commands share, and what every command does around its work."""

import contextlib
import functools
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, ParamSpec, TypeAlias

import typer
from typer.core import TyperCommand

from mbrl.api.progress import stderr

P = ParamSpec("P")

JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DebugFlag: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Jobs: TypeAlias = Annotated[int | None, typer.Option("--jobs", min=1, help="Side by side [all cores].")]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config value; dotted keys; repeatable."),
]
Seed: TypeAlias = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random stream.")]
Threads: TypeAlias = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch [1].")]
Device: TypeAlias = Annotated[
    str | None, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:N [cpu].")
]
Runs: TypeAlias = Annotated[Path, typer.Option("--runs", help="Root of all run folders.")]
ConfigFile: TypeAlias = Annotated[
    str | None, typer.Option("--config", help="Experiment: a name in configs/experiments or a .yaml file.")
]
DatasetNames: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATASET",
        help="Path, minari:<id>, or name of a bundled dataset; several are taken as one.",
    ),
]
Weights: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="W W...", help="Shares of several datasets in a batch [all rows alike]."
    ),
]
AlgorithmName: TypeAlias = Annotated[
    str | None, typer.Option("--algorithm", help="Name in configs/algorithms or a .yaml file.")
]
DynamicsName: TypeAlias = Annotated[
    str | None, typer.Option("--dynamics", help="Name in configs/dynamics or a .yaml file.")
]
WarmStart: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--warm-start",
        metavar="RUN",
        help="Begin with actor and critics of this training; its policy may be taken, too.",
    ),
]
TaskName: TypeAlias = Annotated[
    str | None, typer.Option("--task", help="Name of a task, or path of its yaml.")
]

USER_ERROR = 1
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

TERMINATED = 143
"""Exit status after SIGTERM, likewise."""


class _TerminatedError(KeyboardInterrupt):
    """The system asked the process to end; everything treats it as Ctrl-C."""


@contextlib.contextmanager
def _ends_on_sigterm() -> Generator[None]:
    """Ends as after Ctrl-C when SIGTERM arrives: files are closed, workers are stopped, the status tells."""

    def end(signum: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(signum, signal.SIG_IGN)  # the end must not be interrupted by another
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield  # handlers belong to the main thread
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


class WeightedCommand(TyperCommand):
    """A command whose `--weights` takes as many numbers as follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Joins the numbers to one value, `1,3`, since an option of click has a fixed number of them."""
        joined: list[str] = []
        for arg in args:
            is_weight = len(joined) > 1 and joined[-2] == "--weights" and _is_number(arg)
            if is_weight and _is_number(joined[-1].rpartition(",")[2]):
                joined[-1] += f",{arg}"
            else:
                joined.append(arg)
        return super().parse_args(ctx, joined)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_weights(text: str | None) -> list[float] | None:
    """The numbers of `--weights`, with commas or blanks between them.

    Raises:
        ConfigError: one of them is no number.
    """
    if text is None:
        return None
    parts = text.replace(",", " ").split()
    if not parts or not all(map(_is_number, parts)):
        from mbrl.core.errors import ConfigError

        raise ConfigError(f"--weights {text}: these are no numbers. Remedy: mbrl train A B --weights 1 3.")
    return [float(part) for part in parts]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turns errors into one paragraph on stderr and an exit status; a traceback only with `--debug`."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _ends_on_sigterm():
                command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):  # how to use the command is told as for any other option
            raise
        except KeyboardInterrupt as stop:
            stderr().print("Stopped. What was saved stays: run the same command again to continue.")
            is_asked = isinstance(stop, _TerminatedError)
            raise typer.Exit(TERMINATED if is_asked else INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001 - the border between the program and its user
            if kwargs.get("debug"):
                traceback.print_exc()
            stderr().print(f"Error: {_explain(error)}", markup=False)
            raise typer.Exit(USER_ERROR) from None

    return run


def _explain(error: Exception) -> str:
    """What is wrong, and what to do."""
    from mbrl.core.errors import MbrlError
    from mbrl.run.files import remedy_of

    if isinstance(error, MbrlError):
        return str(error)
    if isinstance(error, OSError):
        return f"{str(error)[:1000]}. Remedy: {remedy_of(error)}"
    if isinstance(error, MemoryError):
        return "The memory does not suffice. Remedy: end other programs, or use a smaller log or batch."
    text = f"Internal error, {type(error).__name__}: {error}."
    return f"{text} Remedy: run again with --debug and report the traceback."


def listener(*, is_json: bool) -> Any:
    """Whom long work tells: bars at a terminal, lines elsewhere and with `--json`."""
    from mbrl.api.progress import LineProgress

    return LineProgress() if is_json else None
