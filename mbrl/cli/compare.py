"""`mbrl compare`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from mbrl.cli.options import DebugFlag, Device, Jobs, JsonFlag, Overrides, Runs, guarded, listener
from mbrl.cli.output import emit

RUNS_FAILED: Final = 3
"""Exit status when the comparison ended, but not all of its runs succeeded."""

EngineName = Literal["local", "ray"]


@guarded
def compare(
    config: Annotated[str, typer.Argument(help="Comparison: a name in configs/experiments or a .yaml file.")],
    *,
    jobs: Jobs = None,
    engine: Annotated[EngineName, typer.Option("--engine", help="Processes, or Ray.")] = "local",
    address: Annotated[str | None, typer.Option("--address", help="Of a running Ray cluster.")] = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of page, tables and figures [RUNS/studies/NAME].")
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare algorithms over datasets and seeds; run again to continue, exit status 3 if a run failed."""
    del debug
    from mbrl.api.comparison import compare as compare_algorithms

    result = compare_algorithms(
        config,
        jobs=jobs,
        engine=engine,
        address=address,
        out=out,
        store=runs,
        progress=listener(is_json=json),
        command=shlex.join(["mbrl", *sys.argv[1:]]),
        overrides=[*(overrides or []), *([] if device is None else [(("device",), device)])],
    )
    emit(result, is_json=json, path=result.path)
    if not result.is_complete:
        raise typer.Exit(RUNS_FAILED)
