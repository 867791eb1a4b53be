"""`mbrl ope-bench`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.compare import RUNS_FAILED
from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Runs, guarded, minari_root
from mbrl.cli.output import emit


@guarded
def ope_bench(
    config: Annotated[str, typer.Argument(help="Benchmark: a name in configs/ope-bench or a .yaml file.")],
    *,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Tasks side by side [all cores].")] = None,
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
    from mbrl.cli.board import make_board
    from mbrl.report.ope_bench.tables import total_table, verdict_table
    from mbrl.run.stages import set_up_torch
    from mbrl.study.folder import StudyFolder
    from mbrl.study.local_engine import LocalEngine
    from mbrl.study.ope_bench.config import FOLDER, load_ope_bench
    from mbrl.study.ope_bench.facts import gather_ope_bench, write_ope_bench
    from mbrl.study.ope_bench.plan import begin_ope_bench, plan_ope_bench
    from mbrl.study.sweep import run_sweep
    from mbrl.study.tasks import Site

    set_up_torch(1)
    source = load_ope_bench(config, overrides=overrides or [])
    root = runs.resolve()
    site = Site(StudyFolder(root / FOLDER / source.name), root, minari_root())
    plan = plan_ope_bench(source, site, peer_python=peer_python)
    begin_ope_bench(plan, site)
    engine = LocalEngine(site, jobs=jobs or len(os.sched_getaffinity(0)))
    try:
        with make_board(is_json=json) as board:
            run_sweep(plan.tasks, site.folder, engine, board)
    finally:
        engine.close()
    bench = gather_ope_bench(plan, site, command=shlex.join(["mbrl", *sys.argv[1:]]))
    folder = out or site.folder.path
    values = write_ope_bench(bench, folder)
    messages = [f"failed: {task}: {cause}" for task, cause in bench.failures.items()]
    tables = [total_table(bench), verdict_table(bench)]
    emit(values, tables, messages=messages, is_json=json, path=folder / "ope-bench.md")
    if not bench.is_complete:
        raise typer.Exit(RUNS_FAILED)
