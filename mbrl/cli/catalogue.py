"""`mbrl list` and `mbrl status`."""

import importlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Runs, guarded
from mbrl.cli.output import emit

if TYPE_CHECKING:
    from mbrl.core.registry import Registry
    from mbrl.study.folder import StudyFolder

Kind = Literal[
    "algorithms", "learners", "recipes", "formats", "measures", "tasks", "estimators", "planners", "rows"
]

_REGISTRIES: Final = {
    "learners": "mbrl.learners.base:LEARNERS",
    "recipes": "mbrl.algorithms.base:RECIPES",
    "formats": "mbrl.data.formats.base:FORMATS",
    "measures": "mbrl.uncertainty.measures:MEASURES",
    "estimators": "mbrl.ope.estimators.context:ESTIMATORS",
    "planners": "mbrl.planning.base:PLANNERS",
    "rows": "mbrl.bench.registry:ROWS",
}
"""Where the registry of each kind lives; imported when it is asked for."""


@guarded
def list_entries(
    kind: Annotated[Kind, typer.Argument(help="Of what kind.")],
    *,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List what can be named in configs, one line each."""
    del debug
    from mbrl.report.kit.table import Table

    entries, origins = _describe(kind)
    headings, rows = ("id", "what"), list(entries.items())
    if origins:
        headings = (*headings, "from")
        rows = [(*row, origins.get(row[0], "")) for row in rows]
    emit(
        {"kind": kind, "entries": entries, "names": list(entries), "origins": origins},
        [Table(kind, headings, rows)],
        is_json=json,
    )


def _describe(kind: Kind) -> tuple[dict[str, str], dict[str, str]]:
    """One line for each entry, and where those come from that are not ours."""
    if kind == "tasks":
        from mbrl.envs.specs import list_tasks, load_task

        return {name: load_task(name).description for name in list_tasks()}, {}
    if kind == "algorithms":
        from mbrl.run.config import describe_parts

        return describe_parts("algorithms"), {}
    module, _, registry = _REGISTRIES[kind].partition(":")
    entries: "Registry[Any]" = getattr(importlib.import_module(module), registry)
    origins = {name: origin for name in entries.names() if (origin := entries.origin(name)) is not None}
    return entries.describe(), origins


@guarded
def status(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of a comparison, or of runs [--runs].")
    ] = None,
    *,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show every run: stage, seed, how far it is, wall time; of a comparison, what is done and missing."""
    del debug
    from mbrl.study.folder import StudyFolder

    study = StudyFolder(folder or runs)
    if study.is_study:
        _show_study(study, is_json=json)
    else:
        _show_runs(folder or runs, is_json=json)


def _show_runs(root: Path, *, is_json: bool) -> None:
    from mbrl.report.kit.table import Table
    from mbrl.run.files import is_locked
    from mbrl.run.metrics import read_metrics
    from mbrl.run.store import RunStore

    entries: list[dict[str, Any]] = []
    for run in RunStore(root).runs():
        manifest = run.manifest()
        rows = read_metrics(run.path)
        is_running = is_locked(run.path / ".lock")
        entries.append(
            {
                **{key: manifest[key] for key in ("dataset", "stage", "label", "seed", "wall_seconds")},
                "is_done": run.is_done,
                "status": "running" if is_running else "done" if run.is_done else "stopped",
                "updates": rows[-1]["step"] if rows else None,
                "path": str(run.path),
            }
        )
    columns = ("dataset", "stage", "label", "seed", "status", "updates", "wall_seconds")
    rows = [(*(entry[column] for column in columns), entry["path"].rpartition("-")[2]) for entry in entries]
    headings = ("dataset", "stage", "what", "seed", "status", "updates", "seconds", "hash")
    emit({"runs": entries}, [Table(f"runs in {root}", headings, rows)], is_json=is_json)


def _show_study(study: "StudyFolder", *, is_json: bool) -> None:
    from mbrl.report.kit.table import Table

    name, states, runs = study.facts()["name"], study.task_states(), study.run_states()
    columns = ("done", "running", "failed", "missing")
    totals = Counter((run["dataset"], run["algorithm"], run["status"]) for run in runs)
    cells = dict.fromkeys((run["dataset"], run["algorithm"]) for run in runs)
    rows = [(*cell, *(totals[*cell, column] for column in columns)) for cell in cells]
    tables = [Table(f"runs of {name}", ("dataset", "algorithm", *columns), rows)]
    running = [(task, *_progress(study, task)) for task, state in states.items() if state == "running"]
    causes = {task: study.cause(task) for task, state in states.items() if state == "failed"}
    if running:
        tables.append(Table("running", ("task", "now", "steps"), running))
    if causes:
        tables.append(Table("failed", ("task", "cause"), list(causes.items())))
    counts = {column: sum(run["status"] == column for run in runs) for column in columns}
    values = {"study": name, "runs": runs, "counts": counts, "tasks": states, "causes": causes}
    emit(values, tables, is_json=is_json)


def _progress(study: "StudyFolder", task: str) -> tuple[str, str]:
    progress = study.progress(task)
    return ("", "") if progress is None else (progress.label, f"{progress.done} of {progress.total}")
