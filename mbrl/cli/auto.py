"""`mbrl auto`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, Jobs, JsonFlag, Overrides, Runs, guarded, listener
from mbrl.cli.output import emit


@guarded
def auto(
    log: Annotated[str, typer.Argument(help="Path, minari:<id>, or name of a bundled dataset.")],
    *,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Of wall time.")] = 30.0,
    portfolio: Annotated[
        str | None,
        typer.Option(
            "--portfolio", help="What is tried: a name in configs/auto or a .yaml file [by the actions]."
        ),
    ] = None,
    jobs: Jobs = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Give the best policy that a log permits within a given time, or the word that it permits none.

    Several methods are trained, and models that trained none of them choose; run again to continue. Exit
    status 0 if a policy is taken, 10 if none is better than what made the log, 1 error.
    """
    del debug
    from mbrl.api.auto import auto as find_policy

    result = find_policy(
        log,
        minutes=minutes,
        portfolio=portfolio,
        jobs=jobs,
        store=runs,
        progress=listener(is_json=json),
        command=shlex.join(["mbrl", *sys.argv[1:]]),
        overrides=overrides or [],
    )
    emit(result, is_json=json, path=result.path)
    raise typer.Exit(result.exit_code)
