"""`mbrl list` and `mbrl status`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Runs, guarded
from mbrl.cli.output import emit

Kind = Literal["learners", "recipes", "formats", "measures", "tasks", "rows"]


@guarded
def list_entries(
    kind: Annotated[Kind, typer.Argument(help="Which registry.")],
    *,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List what can be named in configs, one line each."""
    del debug
    from mbrl.report.table import Table

    entries = _describe(kind)
    emit(
        {"kind": kind, "entries": entries, "names": list(entries)},
        [Table(kind, ("id", "what"), list(entries.items()))],
        is_json=json,
    )


def _describe(kind: Kind) -> dict[str, str]:
    if kind == "tasks":
        from mbrl.envs.specs import list_tasks, load_task

        return {name: load_task(name).description for name in list_tasks()}
    if kind == "formats":
        from mbrl.data.formats.base import FORMATS

        return FORMATS.describe()
    if kind == "measures":
        from mbrl.uncertainty.measures import MEASURES

        return MEASURES.describe()
    if kind == "learners":
        from mbrl.learners.base import LEARNERS

        return LEARNERS.describe()
    if kind == "rows":
        from mbrl.bench.registry import ROWS

        return ROWS.describe()
    from mbrl.algorithms.base import RECIPES

    return RECIPES.describe()


@guarded
def status(*, runs: Runs = Path("runs"), json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Show every run: stage, seed, how far it is, wall time."""
    del debug
    from mbrl.experiment.metrics import read_metrics
    from mbrl.experiment.store import RunStore
    from mbrl.report.table import Table

    entries: list[dict[str, Any]] = []
    for run in RunStore(runs).runs():
        manifest = run.manifest()
        rows = read_metrics(run.path)
        entries.append(
            {
                **{key: manifest[key] for key in ("dataset", "stage", "label", "seed", "wall_seconds")},
                "is_done": run.is_done,
                "updates": rows[-1]["step"] if rows else None,
                "path": str(run.path),
            }
        )
    columns = ("dataset", "stage", "label", "seed", "is_done", "updates", "wall_seconds")
    rows = [(*(entry[column] for column in columns), entry["path"].rpartition("-")[2]) for entry in entries]
    headings = ("dataset", "stage", "what", "seed", "done", "updates", "seconds", "hash")
    table = Table(f"runs in {runs}", headings, rows)
    emit({"runs": entries}, [table], is_json=json)
