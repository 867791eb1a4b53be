"""What can be named, where one registers more, and what a run store holds."""

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from mbrl.api.result import PlainResult, Result, jsonable
from mbrl.core.errors import ConfigError, FileError
from mbrl.core.registry import Registry

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table
    from mbrl.run.store import RunFolder
    from mbrl.study.folder import StudyFolder

RegistryName: TypeAlias = Literal[
    "learners", "recipes", "formats", "measures", "estimators", "planners", "rows"
]
Kind: TypeAlias = Literal[RegistryName, "algorithms", "tasks"]

_REGISTRIES: Final[dict[str, str]] = {
    "learners": "mbrl.learners.base:LEARNERS",
    "recipes": "mbrl.algorithms.base:RECIPES",
    "formats": "mbrl.data.formats.base:FORMATS",
    "measures": "mbrl.uncertainty.measures:MEASURES",
    "estimators": "mbrl.off_policy.estimators.base:ESTIMATORS",
    "planners": "mbrl.planning.base:PLANNERS",
    "rows": "mbrl.bench.registry:ROWS",
}
"""Where the registry of each kind lives; imported when it is asked for."""


class Catalogue(Result):
    """Names of one kind, with a line on each.

    Attributes:
        kind: of what.
        entries: line by name.
        origins: distribution or module by name, of entries that are not this package's.
    """

    def __init__(self, kind: Kind, entries: dict[str, str], origins: dict[str, str] | None = None) -> None:
        self.kind, self.entries, self.origins = kind, entries, origins or {}

    def to_dict(self) -> dict[str, Any]:
        """Kind, entries, names and origins."""
        names = list(self.entries)
        return jsonable({"kind": self.kind, "entries": self.entries, "names": names, "origins": self.origins})

    def tables(self) -> "Sequence[Table]":
        """One line each; a column says where they come from if some are not this package's."""
        from mbrl.report.kit.table import Table

        if not self.origins:
            return [Table(self.kind, ("id", "what"), list(self.entries.items()))]
        rows = [(name, line, self.origins.get(name, "mbrl")) for name, line in self.entries.items()]
        return [Table(self.kind, ("id", "what", "from"), rows)]

    def _headline(self) -> str:
        return f"{self.kind}: {', '.join(self.entries)}"


def catalogue(kind: Kind) -> Catalogue:
    """What can be named in configs and arguments.

    Args:
        kind: `algorithms`, `learners`, `recipes`, `formats`, `measures`, `tasks`, `estimators`, `planners` or
            `rows` (of benchmarks).

    Example:
        >>> import mbrl
        >>> "mopo" in mbrl.catalogue("recipes").entries
        True
    """
    if kind == "tasks":
        from mbrl.envs.specs import list_tasks, load_task

        return Catalogue(kind, {name: load_task(name).description for name in list_tasks()})
    if kind == "algorithms":
        from mbrl.run.config import describe_parts

        return Catalogue(kind, describe_parts("algorithms"))
    table = registry(kind)
    origins = {name: origin for name in table.names() if (origin := table.origin(name)) is not None}
    return Catalogue(kind, table.describe(), origins)


def registry(kind: RegistryName) -> Registry[Any]:
    """The table of one kind of parts, to register one's own: `@mbrl.registry("learners").register("mine")`.

    What is registered can be named in every config, until the process ends. An installed package registers
    by an entry point, such as `[project.entry-points."mbrl.learners"]`, and its parts are always found.

    Args:
        kind: which table.

    Raises:
        ConfigError: there is none of this kind.

    Example:
        >>> import mbrl
        >>> "bc" in mbrl.registry("learners").names()
        True
    """
    if kind not in _REGISTRIES:
        raise ConfigError(f"There is no registry {kind!r}. Legal names: {', '.join(get_args(RegistryName))}.")
    module, _, name = _REGISTRIES[kind].partition(":")
    return getattr(importlib.import_module(module), name)


class StoreStatus(Result):
    """The runs of a store.

    Attributes:
        root: of the store.
        runs: stage, seed, how far each is, wall time; `problem` of a run whose files are damaged.
    """

    def __init__(self, root: Path, runs: Sequence[dict[str, Any]]) -> None:
        self.root, self.runs = root, runs

    def to_dict(self) -> dict[str, Any]:
        """The runs."""
        return jsonable({"runs": list(self.runs)})

    def tables(self) -> "Sequence[Table]":
        """One row a run."""
        from mbrl.report.kit.table import Table

        columns = ("dataset", "stage", "label", "seed", "status", "updates", "wall_seconds")
        rows = [(*(run[c] for c in columns), run["path"].rpartition("-")[2]) for run in self.runs]
        headings = ("dataset", "stage", "what", "seed", "status", "updates", "seconds", "hash")
        return [Table(f"runs in {self.root}", headings, rows)]

    def messages(self) -> Sequence[str]:
        """What is wrong with the damaged runs."""
        return [run["problem"] for run in self.runs if run["problem"] is not None]

    def _headline(self) -> str:
        done = sum(run["is_done"] for run in self.runs)
        return f"{done} of {len(self.runs)} runs done in {str(self.root)!r}"


def status(store: str | Path = "runs") -> Result:
    """Every run of a store: stage, seed, how far it is, wall time; of a comparison, what is done and missing.

    Args:
        store: root of the run folders, or the folder of a comparison in it.

    Raises:
        ConfigError: there is no such folder.

    Example:
        >>> run = mbrl.train("pendulum-mixed", "bc", updates=50, store="runs", progress=False)
        >>> [one["stage"] for one in mbrl.status("runs").to_dict()["runs"]]
        ['train_policy']
    """
    from mbrl.study.folder import StudyFolder

    root = Path(store)
    if not root.is_dir():
        raise ConfigError(
            f"{root} is no folder. Remedy: name the root of the runs (--runs), or of a comparison."
        )
    study = StudyFolder(root)
    return _study_status(study) if study.is_study else _store_status(root)


def _store_status(root: Path) -> StoreStatus:
    from mbrl.run.store import RunStore

    return StoreStatus(root, [_run_status(run) for run in RunStore(root).runs()])


def _run_status(run: "RunFolder") -> dict[str, Any]:
    """How one run stands; damaged files cost what they would have told, and nothing else."""
    from mbrl.run.files import is_locked
    from mbrl.run.metrics import read_metrics

    keys = ("dataset", "stage", "label", "seed", "wall_seconds")
    told: dict[str, Any] = {**dict.fromkeys(keys), "dataset": run.path.parent.name, "label": run.path.name}
    updates, problem = None, None
    try:
        manifest = run.manifest()
        told = {key: manifest[key] for key in keys}
        rows = read_metrics(run.path)
        updates = rows[-1]["step"] if rows else None
        if run.is_done:
            run.summary()
    except FileError as error:
        problem = str(error)
    state = "done" if run.is_done else "stopped"
    if is_locked(run.path / ".lock"):
        state = "running"
    elif problem is not None:
        state = "damaged"
    return {
        **told,
        "is_done": run.is_done,
        "status": state,
        "updates": updates,
        "path": str(run.path),
        "problem": problem,
    }


def _study_status(study: "StudyFolder") -> PlainResult:
    """How a comparison stands."""
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
    return PlainResult(values, tables, title=repr(name))


def _progress(study: "StudyFolder", task: str) -> tuple[str, str]:
    progress = study.progress(task)
    return ("", "") if progress is None else (progress.label, f"{progress.done} of {progress.total}")
