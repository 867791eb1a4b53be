"""`mbrl ope-bench`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.compare import RUNS_FAILED
from mbrl.cli.options import DebugFlag, Jobs, JsonFlag, Overrides, Runs, guarded, listener
from mbrl.cli.output import emit


@guarded
def ope_bench(
    config: Annotated[str, typer.Argument(help="Benchmark: a name in configs/ope-bench or a .yaml file.")],
    *,
    jobs: Jobs = None,
    peer_python: Annotated[
        str | None, typer.Option("--peer-python", help="Interpreter with d3rlpy, for its FQE beside ours.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of tables and figures [RUNS/ope-bench/NAME].")
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Judge estimators by policies of known value; run again to continue, exit status 3 if a task failed."""
    del debug
    from mbrl.api.benchmarks import benchmark_ope

    outcome = benchmark_ope(
        config,
        jobs=jobs,
        peer_python=peer_python,
        out=out,
        store=runs,
        progress=listener(is_json=json),
        command=shlex.join(["mbrl", *sys.argv[1:]]),
        overrides=overrides or [],
    )
    emit(outcome.result, is_json=json, path=outcome.path)
    if not outcome.is_complete:
        raise typer.Exit(RUNS_FAILED)
