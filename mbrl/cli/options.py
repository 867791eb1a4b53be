"""Options that commands share, and what every command does around its work."""

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeAlias

import typer

from mbrl.api.progress import stderr

P = ParamSpec("P")

JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DebugFlag: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config value; dotted keys; repeatable."),
]
Seed: TypeAlias = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random stream.")]
Threads: TypeAlias = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch [1].")]
Device: TypeAlias = Annotated[str | None, typer.Option("--device", help="Where tensors live [cpu].")]
Runs: TypeAlias = Annotated[Path, typer.Option("--runs", help="Root of all run folders.")]
ConfigFile: TypeAlias = Annotated[
    str | None, typer.Option("--config", help="Experiment: a name in configs/experiments or a .yaml file.")
]
DatasetName: TypeAlias = Annotated[
    str | None, typer.Argument(help="Path, minari:<id>, or name of a bundled dataset.")
]
AlgorithmName: TypeAlias = Annotated[
    str | None, typer.Option("--algorithm", help="Name in configs/algorithms or a .yaml file.")
]
DynamicsName: TypeAlias = Annotated[
    str | None, typer.Option("--dynamics", help="Name in configs/dynamics or a .yaml file.")
]
TaskName: TypeAlias = Annotated[
    str | None, typer.Option("--task", help="Name of a task, or path of its yaml.")
]

USER_ERROR = 1
INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turns errors into one paragraph on stderr and an exit status; a traceback only with `--debug`."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from mbrl.core.errors import MbrlError

        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            stderr().print("Stopped. What was saved stays: run the same command again to continue.")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001 - the border between the program and its user
            if kwargs.get("debug"):
                traceback.print_exc()
            is_known = isinstance(error, (MbrlError, OSError))
            text = str(error) if is_known else f"Internal error, {type(error).__name__}: {error}."
            hint = "" if is_known else " Remedy: run again with --debug and report the traceback."
            stderr().print(f"Error: {text}{hint}", markup=False)
            raise typer.Exit(USER_ERROR) from None

    return run


def listener(*, is_json: bool) -> Any:
    """Whom long work tells: bars at a terminal, lines elsewhere and with `--json`."""
    from mbrl.api.progress import LineProgress

    return LineProgress() if is_json else None
