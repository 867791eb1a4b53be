"""`mbrl compare`."""

import contextlib
import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Runs, guarded, minari_root
from mbrl.cli.output import emit

if TYPE_CHECKING:
    from mbrl.report.study.facts import Study
    from mbrl.study.sweep import Engine
    from mbrl.study.tasks import Site

RUNS_FAILED: Final = 3
"""Exit status when the comparison ended, but not all of its runs succeeded."""

EngineName = Literal["local", "ray"]


@guarded
def compare(
    config: Annotated[str, typer.Argument(help="Comparison: a name in configs/experiments or a .yaml file.")],
    *,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Runs side by side [all cores].")] = None,
    engine: Annotated[EngineName, typer.Option("--engine", help="Processes, or Ray.")] = "local",
    address: Annotated[str | None, typer.Option("--address", help="Of a running Ray cluster.")] = None,
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
    from mbrl.cli.board import make_board
    from mbrl.core.errors import ConfigError
    from mbrl.report.study.page import write_study
    from mbrl.run.stage import set_up_torch
    from mbrl.study.config import load_study
    from mbrl.study.facts import gather_study
    from mbrl.study.folder import StudyFolder
    from mbrl.study.layout import begin_study, plan_study
    from mbrl.study.sweep import run_sweep
    from mbrl.study.tasks import Site

    if address is not None and engine != "ray":
        raise ConfigError("--address belongs to --engine ray.")
    set_up_torch(1)
    source = load_study(config, overrides=overrides or [])
    root = runs.resolve()
    site = Site(StudyFolder(root / "studies" / source.name), root, minari_root())
    plan = plan_study(source, site)
    begin_study(plan, site)
    with _open_engine(engine, site, jobs=jobs, address=address) as workers, make_board(is_json=json) as board:
        run_sweep(plan.tasks, site.folder, workers, board)
    study = gather_study(plan, site, command=shlex.join(["mbrl", *sys.argv[1:]]))
    page = write_study(study, out or site.folder.path)
    _print(study, page, is_json=json)
    if any(run.status != "done" for run in study.runs):
        raise typer.Exit(RUNS_FAILED)


@contextlib.contextmanager
def _open_engine(
    name: EngineName, site: "Site", *, jobs: int | None, address: str | None
) -> "Generator[Engine]":
    """The engine, closed whatever happens."""
    if name == "ray":
        from mbrl.study.ray_engine import RayEngine

        engine: Engine = RayEngine(site, address=address, jobs=jobs)
    else:
        from mbrl.study.local_engine import LocalEngine

        engine = LocalEngine(site, jobs=jobs or len(os.sched_getaffinity(0)))
    try:
        yield engine
    finally:
        engine.close()


def _print(study: "Study", page: Path, *, is_json: bool) -> None:
    from mbrl.report.study.tables import study_table
    from mbrl.study.facts import summarise_means, summarise_run

    unfinished = [run for run in study.runs if run.status != "done"]
    messages = [
        f"{run.status}: {run.algorithm} on {run.dataset}, seed {run.seed}: {run.cause or 'not run'}"
        for run in unfinished
    ]
    if unfinished:
        messages.append(f"{len(unfinished)} of {len(study.runs)} runs are missing: run it again to try them.")
    values: dict[str, Any] = {
        "study": study.name,
        "selection": study.selection,
        "runs": [summarise_run(run) for run in study.runs],
        "means": summarise_means(study),
        "plannings": study.plannings,
    }
    emit(values, study_table(study), messages=messages, is_json=is_json, path=page)
