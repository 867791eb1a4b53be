"""The tasks of a comparison, collect -> fit -> train -> evaluate, and how one of them is done."""

import dataclasses
import functools
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError, MbrlError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.open import open_dataset
from mbrl.experiment.behaviour import CollectionConfig, collect_dataset, load_collection
from mbrl.experiment.config import ResolvedConfig, RunConfig, stable_hash
from mbrl.experiment.files import BusyError, locked
from mbrl.experiment.planner_config import PlanConfig
from mbrl.experiment.planning import plan_stage
from mbrl.experiment.progress import Progress
from mbrl.experiment.stages import (
    Workspace,
    evaluate_stage,
    find_run_task,
    fit_dynamics_stage,
    load_run_dataset,
    set_up_torch,
    train_policy_stage,
)
from mbrl.experiment.store import RunFolder, RunStore
from mbrl.experiment.study import DatasetChoice, StudySource
from mbrl.experiment.study_folder import FileProgress, Outcome, StudyFolder

TaskKind = Literal["collect", "fit", "train", "evaluate"]
T = TypeVar("T")

_BUSY_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One step of a comparison; everything that a worker has to know about it.

    Attributes:
        id: unique in the comparison; names its files.
        kind: which step.
        dataset: label.
        fingerprint: of everything that the result depends on.
        needs: ids of the tasks that must be done before.
        algorithm: label, or None if several share the task.
        seed: of the run, or None likewise.
        resolved: config of the run; None for a collection.
        collection: recipe, name and seed of a dataset to be made, or None.
        target: where that dataset goes, or None.
        planner: what plans on top of the training where it is evaluated, or None.
    """

    id: str
    kind: TaskKind
    dataset: str
    fingerprint: str
    needs: tuple[str, ...] = ()
    algorithm: str | None = None
    seed: int | None = None
    resolved: ResolvedConfig | None = None
    collection: tuple[CollectionConfig, str, int] | None = None
    target: Path | None = None
    planner: PlanConfig | None = None

    @property
    def title(self) -> str:
        """What a person calls it: `train mopo on mixed, seed 3`."""
        what = f"{self.kind} {self.algorithm}" if self.algorithm else self.kind
        return f"{what} on {self.dataset}" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def run(self) -> RunConfig:
        """The config of its run."""
        assert self.resolved is not None
        return self.resolved.run


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Where the tasks of a comparison work; plain values that reach any process.

    Attributes:
        folder: of the comparison.
        runs: root of the run store.
        minari_root: folder of Minari's local datasets; None for its default.
    """

    folder: StudyFolder
    runs: Path
    minari_root: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StudyPlan:
    """All tasks of a comparison, every one behind those that it needs, seed by seed.

    Attributes:
        source: the comparison.
        sources: for each label of a dataset, what its runs open.
        tasks: in the order in which they are started.
    """

    source: StudySource
    sources: dict[str, str]
    tasks: tuple[Task, ...]

    def chain(self, dataset: str, algorithm: str, seed: int) -> tuple[Task, ...]:
        """The tasks of one run, in order: those it shares with others, training, evaluation."""
        tasks = {task.id: task for task in self.tasks}
        cell = (dataset, algorithm, seed)
        found = [task for task in self.tasks if (task.dataset, task.algorithm, task.seed) == cell]
        shared = dict.fromkeys(_ancestors(found[0], tasks))
        return (*(tasks[name] for name in shared), *found)


def plan_study(source: StudySource, site: Site) -> StudyPlan:
    """Lays out the tasks. Datasets that exist are opened, so that a wrong name is told before the first hour.

    Raises:
        ConfigError: datasets, tasks and algorithms do not go together.
        DataError: a dataset cannot be used.
    """
    planned = [_plan_dataset(label, choice, source, site) for label, choice in source.config.datasets.items()]
    tasks = [dataset.collection for dataset in planned if dataset.collection is not None]
    for seed in source.config.seeds:
        for dataset in planned:
            tasks += _plan_runs(source, dataset, seed)
    return StudyPlan(source, {dataset.label: dataset.source for dataset in planned}, tuple(tasks))


def begin_study(plan: StudyPlan, site: Site) -> None:
    """Writes into the folder of the comparison what it consists of; `mbrl status` reads it."""
    config = plan.source.config
    runs = [
        {
            "dataset": dataset,
            "algorithm": algorithm,
            "seed": seed,
            "tasks": [task.id for task in plan.chain(dataset, algorithm, seed)],
        }
        for seed in config.seeds
        for dataset in config.datasets
        for algorithm in config.algorithms
    ]
    facts = {
        "name": plan.source.name,
        "runs": runs,
        "tasks": {task.id: task.fingerprint for task in plan.tasks},
    }
    site.folder.begin(config=plan.source.to_yaml(), facts=facts)


@dataclasses.dataclass(frozen=True, slots=True)
class _PlannedDataset:
    label: str
    source: str
    identity: str
    has_simulator: bool
    collection: Task | None = None


def _plan_dataset(label: str, choice: DatasetChoice, source: StudySource, site: Site) -> _PlannedDataset:
    if choice.source is not None:
        path = Path(choice.source).expanduser()
        opened = str(path.resolve()) if path.exists() else choice.source
        run = source.resolve(_first(source), seed=source.config.seeds[0], dataset=opened).run
        dataset = open_dataset(opened, run.dataset_options, minari_root=site.minari_root)
        task = find_run_task(run, dataset)
        return _PlannedDataset(
            label, opened, dataset.content_hash, task is not None and task.env_id is not None
        )
    assert choice.collect is not None
    config = load_collection(choice.collect)
    if choice.steps is not None:
        config = config.model_copy(update={"steps": choice.steps})
    name = choice.collect.removesuffix(".yaml").removesuffix(".yml")
    identity = stable_hash({"recipe": config.model_dump(mode="json"), "seed": choice.seed, "name": name})
    stem = name.strip("/").replace("/", "-")
    target = site.runs / "collected" / f"{stem}-{config.steps}-s{choice.seed}-{identity[:8]}"
    task = Task(
        f"collect.{label}", "collect", label, identity, collection=(config, name, choice.seed), target=target
    )
    return _PlannedDataset(label, str(target), identity, has_simulator=True, collection=task)


def _plan_runs(source: StudySource, dataset: _PlannedDataset, seed: int) -> Iterator[Task]:
    needs = () if dataset.collection is None else (dataset.collection.id,)
    make = functools.partial(Task, dataset=dataset.label, seed=seed)
    fit: Task | None = None
    for label in source.config.algorithms:
        resolved = source.resolve(label, seed=seed, dataset=dataset.source)
        planner = source.planner(label)
        identity = {"config": resolved.run.tree(), "dataset": dataset.identity}
        before = needs
        if planner is not None or RECIPES.get(resolved.run.recipe).needs_dynamics:
            if fit is None:
                dynamics = resolved.run.dynamics.model_dump(mode="json")
                fit = make(
                    id=f"fit.{dataset.label}.s{seed}", kind="fit", resolved=resolved, needs=needs,
                    fingerprint=stable_hash({"fit": dynamics, "dataset": dataset.identity, "seed": seed}),
                )  # fmt: skip
                yield fit
            before = (fit.id,)
        train = make(
            id=f"train.{dataset.label}.{label}.s{seed}", kind="train", algorithm=label, resolved=resolved,
            needs=before, fingerprint=stable_hash({"train": identity}),
        )  # fmt: skip
        yield train
        if dataset.has_simulator:
            judged = {"evaluate": identity} | ({} if planner is None else {"planner": planner.tree()})
            yield make(
                id=f"evaluate.{dataset.label}.{label}.s{seed}", kind="evaluate", algorithm=label,
                resolved=resolved, needs=(train.id,), fingerprint=stable_hash(judged), planner=planner,
            )  # fmt: skip


def _first(source: StudySource) -> str:
    return next(iter(source.config.algorithms))


def _ancestors(task: Task, tasks: dict[str, Task]) -> list[str]:
    return [name for need in task.needs for name in (*_ancestors(tasks[need], tasks), need)]


def is_current(task: Task, outcome: Outcome | None) -> bool:
    """Whether a task is done with the same config and data, and its result is still there."""
    if outcome is None or outcome.status != "done" or outcome.fingerprint != task.fingerprint:
        return False
    path = Path(outcome.path or "")
    return path.exists() if task.kind == "collect" else RunFolder(path).is_done


def execute(task: Task, site: Site) -> Outcome:
    """Does a task in this process, continuing from its checkpoints; never raises what the task raised.

    If another process works on the same result, waits for it.

    Returns:
        How it ended; it is on disk as well.
    """
    progress = FileProgress(site.folder.progress_path(task.id))
    try:
        return _wait_for_others(functools.partial(_execute_locked, task, site, progress), progress)
    finally:
        progress.remove()


def _wait_for_others(work: Callable[[], T], progress: Progress) -> T:
    while True:
        try:
            return work()
        except BusyError as error:
            progress.message(str(error))
            time.sleep(_BUSY_SECONDS)


def _execute_locked(task: Task, site: Site, progress: Progress) -> Outcome:
    with locked(site.folder.lock_path(task.id)):
        found = site.folder.outcome(task.id)
        if found is not None and is_current(task, found):
            return found
        begin, trace = time.perf_counter(), None
        outcome = Outcome(task.id, "done", task.fingerprint)
        try:
            outcome = dataclasses.replace(outcome, path=str(_perform(task, site, progress)))
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - a failed run must not take the others with it
            is_known = isinstance(error, (MbrlError, OSError))
            cause = str(error) if is_known else f"{type(error).__name__}: {error}"
            outcome, trace = (
                dataclasses.replace(outcome, status="failed", cause=cause),
                traceback.format_exc(),
            )
        seconds = round(time.perf_counter() - begin, 3)
        return site.folder.record(dataclasses.replace(outcome, seconds=seconds), trace)


def _perform(task: Task, site: Site, progress: Progress) -> Path:
    """The result of a task: found in the store, or made."""
    if task.kind == "collect":
        return _collect(task, progress)
    set_up_torch(task.run.threads)
    workspace = Workspace(RunStore(site.runs), progress, site.minari_root)
    assert task.resolved is not None
    if task.kind == "train":
        return train_policy_stage(task.resolved, workspace).path
    dataset = load_run_dataset(task.run, workspace)
    if task.kind == "fit":
        return fit_dynamics_stage(task.resolved, dataset, workspace)[1].path
    return _evaluate(task, dataset, site, workspace).path


def _evaluate(task: Task, dataset: Dataset, site: Site, workspace: Workspace) -> RunFolder:
    trained = site.folder.outcome(task.needs[0])
    if trained is None or trained.path is None:
        raise ConfigError(f"There is no training of {task.title}. Remedy: run the comparison again.")
    workspace.progress.start("evaluate", task.run.evaluation.episodes)
    judge = task.run.evaluation
    simulated = find_run_task(task.run, dataset)
    judgement: dict[str, Any] = {"task": simulated, "episodes": judge.episodes, "seed": judge.seed}
    if task.planner is not None:
        return plan_stage(Path(trained.path), task.planner, workspace, **judgement)
    return evaluate_stage(Path(trained.path), workspace, **judgement)


def _collect(task: Task, progress: Progress) -> Path:
    assert task.collection is not None
    assert task.target is not None
    config, name, seed = task.collection
    task.target.parent.mkdir(parents=True, exist_ok=True)
    with locked(task.target.with_name(f".{task.target.name}.lock")):
        if not task.target.exists():
            set_up_torch(1)
            dataset = collect_dataset(config, name=name, seed=seed, progress=progress)
            FORMATS.get("minari").write(dataset, task.target)  # whole or not at all
    return task.target
