"""The tasks of a comparison, collect -> fit -> train -> evaluate, and how one of them is done."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.progress import Progress
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.open import open_dataset
from mbrl.run.collect import CollectionConfig, collect_dataset, load_collection
from mbrl.run.config import ResolvedConfig, RunConfig, stable_hash
from mbrl.run.evaluate import evaluate_stage
from mbrl.run.files import locked
from mbrl.run.fit import fit_dynamics_stage, fit_judge_stage, judge_dynamics
from mbrl.run.inputs import find_run_task, load_run_dataset
from mbrl.run.judge.judges import judges_identity, open_judges
from mbrl.run.judge.rule import RuleName, SelectRule
from mbrl.run.judge.selection import Candidate, Selection, select_by_judges, select_by_values
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.plan.basis import open_basis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.planning import plan_stage
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from mbrl.study.config import DatasetChoice, StudySource
from mbrl.study.tasks import Site, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectTask(Task):
    """Makes a dataset in a simulator.

    Attributes:
        collection: recipe, name and seed.
        target: where the dataset goes.
    """

    collection: tuple[CollectionConfig, str, int]
    target: Path

    def perform(self, site: Site, progress: Progress) -> Path:
        """Collects it, unless it is there."""
        del site
        config, name, seed = self.collection
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.target.with_name(f".{self.target.name}.lock")):
            if not self.target.exists():
                set_up_torch(1)
                dataset = collect_dataset(config, name=name, seed=seed, progress=progress)
                FORMATS.get("minari").write(dataset, self.target)  # whole or not at all
        return self.target


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudyTask(Task):
    """A fit, a training or an evaluation; its result is a folder of the run store.

    Attributes:
        resolved: config of the run.
        planner: what plans on top of the training where it is evaluated, or None.
        number: of the judge that is fitted.
    """

    resolved: ResolvedConfig
    planner: PlanConfig | None = None
    number: int = 0

    @property
    def run(self) -> RunConfig:
        """The config of its run."""
        return self.resolved.run

    def perform(self, site: Site, progress: Progress) -> Path:
        """Finds the stage's result in the store, or makes it."""
        workspace = Workspace(RunStore(site.runs), progress, site.minari_root).on(self.run.device)
        set_up_torch(self.run.threads, workspace.device)
        if self.kind == "train":
            return train_policy_stage(self.resolved, workspace).path
        dataset = load_run_dataset(self.run, workspace)
        if self.kind == "fit":
            return fit_dynamics_stage(self.resolved, dataset, workspace)[1].path
        if self.kind == "judge":
            return fit_judge_stage(self.resolved, dataset, workspace, number=self.number)[1].path
        if self.kind == "judges":
            return open_judges(self.resolved, dataset, workspace).runs[-1].path
        return _evaluate(self, dataset, site, workspace).path

    def has_result(self, path: Path) -> bool:
        """Whether the stage is done there."""
        return RunFolder(path).is_done


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SelectTask(Task):
    """Chooses one of several trainings by an offline rule; its result is a file.

    Attributes:
        resolved: config of the algorithm without the changes of its grid.
        rule: how it is chosen.
        name: of the rule.
        variants: changes of each training, in the order of `needs`.
    """

    resolved: ResolvedConfig
    rule: SelectRule
    name: RuleName
    variants: tuple[dict[str, Any], ...]

    def perform(self, site: Site, progress: Progress) -> Path:
        """Judges the trainings from their log."""
        run = self.resolved.run
        workspace = Workspace(RunStore(site.runs), progress, site.minari_root).on(run.device)
        set_up_torch(run.threads, workspace.device)
        dataset = load_run_dataset(run, workspace)
        paths = [trained_path(name, site) for name in self.needs]
        candidates = [
            Candidate(changes, path, open_policy(path).policy)
            for changes, path in zip(self.variants, paths, strict=True)
        ]
        folder = site.folder.path / "selections"
        path = folder / f"{self.id}.json"
        if self.name == "judge":
            judges = open_judges(self.resolved, dataset, workspace)
            return select_by_judges(candidates, judges, progress)[0].save(path)
        where = folder / f"{self.id}-{self.fingerprint[:8]}.fits"
        kept = KeptFits(where, self.fingerprint, progress, device=workspace.device)
        found = select_by_values(candidates, dataset, self.rule, rng=RngStreams(run.seed), kept=kept)
        found.save(path)
        kept.drop()
        return path


def trained_path(task: str, site: Site) -> Path:
    """Folder of a training: that of the task itself, or the one that a selection chose.

    Raises:
        ConfigError: the task is not done.
    """
    outcome = site.folder.outcome(task)
    if outcome is None or outcome.path is None:
        raise ConfigError(f"There is no result of {task}. Remedy: run the comparison again.")
    path = Path(outcome.path)
    return Path(Selection.load(path).winner.path) if path.is_file() else path


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


def plan_study(source: StudySource, site: Site, *, evaluates: bool = True) -> StudyPlan:
    """Lays out the tasks. Datasets that exist are opened, so that a wrong name is told before the first hour.

    Args:
        source: the comparison.
        site: where it will be done.
        evaluates: in simulators, where there are any; else every run ends with its training.

    Raises:
        ConfigError: datasets, tasks and algorithms do not go together.
        DataError: a dataset cannot be used.
    """
    planned = [_plan_dataset(label, choice, source, site) for label, choice in source.config.datasets.items()]
    if not evaluates:
        planned = [dataclasses.replace(dataset, has_simulator=False) for dataset in planned]
    tasks: list[Task] = [dataset.collection for dataset in planned if dataset.collection is not None]
    if source.rule == "judge":
        planned = [_with_judges(source, dataset) for dataset in planned]
        tasks += [task for dataset in planned for task in dataset.judges]
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
    collection: CollectTask | None = None
    judges: tuple[StudyTask, ...] = ()

    @property
    def data(self) -> tuple[str, ...]:
        """What has to be there before its fits."""
        return () if self.collection is None else (self.collection.id,)

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be there before its trainings, which ask all judges when they are over."""
        return (*self.data, *(task.id for task in self.judges[-1:]))


def _with_judges(source: StudySource, dataset: _PlannedDataset) -> _PlannedDataset:
    """Judges depend on neither seed nor algorithm: one task fits each, and a last one asks all of them."""
    resolved = source.resolve(_first(source), seed=source.config.seeds[0], dataset=dataset.source)
    make = functools.partial(StudyTask, dataset=dataset.label, resolved=resolved)
    fits = tuple(
        make(
            id=f"judge.{dataset.label}.{number}", kind="judge", number=number, needs=dataset.data,
            fingerprint=_judge_fingerprint(resolved.run, dataset.identity, number),
        )
        for number in range(resolved.run.judges.count)
    )  # fmt: skip
    ready = make(
        id=f"judges.{dataset.label}", kind="judges", needs=(*dataset.data, *(task.id for task in fits)),
        fingerprint=stable_hash({"judges": judges_identity(resolved.run), "dataset": dataset.identity}),
    )  # fmt: skip
    return dataclasses.replace(dataset, judges=(*fits, ready))


def _judge_fingerprint(run: RunConfig, dataset: str, number: int) -> str:
    """Of the fit of one judge.

    Args:
        run: config whose sections `dynamics` and `judges` say which.
        dataset: identity of the log.
        number: which of the judges.
    """
    dynamics = judge_dynamics(run).model_dump(mode="json")
    return stable_hash({"judge": dynamics, "dataset": dataset, "number": number})


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
    collection = plan_collection(label, choice, site)
    return _PlannedDataset(
        label, str(collection.target), collection.fingerprint, has_simulator=True, collection=collection
    )


def plan_collection(label: str, choice: DatasetChoice, site: Site) -> CollectTask:
    """The task that makes a dataset.

    Args:
        label: of the dataset.
        choice: one with `collect`.
        site: below whose root of runs it goes, under a name that tells equal collections.
    """
    assert choice.collect is not None
    config = load_collection(choice.collect)
    if choice.steps is not None:
        config = config.model_copy(update={"steps": choice.steps})
    name = choice.collect.removesuffix(".yaml").removesuffix(".yml")
    identity = stable_hash({"recipe": config.model_dump(mode="json"), "seed": choice.seed, "name": name})
    stem = name.strip("/").replace("/", "-")
    return CollectTask(
        f"collect.{label}",
        "collect",
        label,
        identity,
        collection=(config, name, choice.seed),
        target=site.runs / "collected" / f"{stem}-{config.steps}-s{choice.seed}-{identity[:8]}",
    )


def _plan_runs(source: StudySource, dataset: _PlannedDataset, seed: int) -> Iterator[Task]:
    needs = dataset.needs
    make = functools.partial(StudyTask, dataset=dataset.label, seed=seed)
    fit: StudyTask | None = None
    for label in source.config.algorithms:
        resolved, planner = source.resolve(label, seed=seed, dataset=dataset.source), source.planner(label)
        identity = {"config": resolved.run.tree(), "dataset": dataset.identity}
        before = needs
        if planner is not None or RECIPES.get(resolved.run.recipe).needs_dynamics:
            if fit is None:
                dynamics = resolved.run.dynamics.model_dump(mode="json")
                fit = make(
                    id=f"fit.{dataset.label}.s{seed}", kind="fit", resolved=resolved, needs=dataset.data,
                    fingerprint=stable_hash({"fit": dynamics, "dataset": dataset.identity, "seed": seed}),
                )  # fmt: skip
                yield fit
            before = (*needs, fit.id)
        variants, last = source.variants(label), ""
        trainings: list[tuple[dict[str, Any], StudyTask]] = []
        for index, variant in enumerate(variants):
            changed = source.resolve(label, seed=seed, dataset=dataset.source, variant=variant)
            mark = f"+{index}" if len(variants) > 1 else ""
            train = make(
                id=f"train.{dataset.label}.{label}{mark}.s{seed}", kind="train", algorithm=label,
                resolved=changed, needs=before,
                fingerprint=stable_hash({"train": {**identity, "config": changed.run.tree()}}),
            )  # fmt: skip
            yield train
            trainings.append((variant, train))
            last = train.id
        rule, name = source.config.select, source.rule
        if len(trainings) > 1:
            identity |= {"rule": rule.model_dump(mode="json"), "among": [t.fingerprint for _, t in trainings]}
            select = SelectTask(
                id=f"select.{dataset.label}.{label}.s{seed}", kind="select", dataset=dataset.label, seed=seed,
                algorithm=label, needs=tuple(train.id for _, train in trainings),
                fingerprint=stable_hash({"select": identity}), resolved=resolved, rule=rule,
                name=name, variants=tuple(variant for variant, _ in trainings),
            )  # fmt: skip
            yield select
            last = select.id
        if dataset.has_simulator:
            judged = {"evaluate": identity} | ({} if planner is None else {"planner": planner.tree()})
            if name == "judge" and planner is None:
                yield make(
                    id=f"evaluate-last.{dataset.label}.{label}.s{seed}", kind="evaluate-last",
                    algorithm=label, resolved=resolved, needs=(last,),
                    fingerprint=stable_hash({**judged, "which": "last"}),
                )  # fmt: skip
            yield make(
                id=f"evaluate.{dataset.label}.{label}.s{seed}", kind="evaluate", algorithm=label,
                resolved=resolved, needs=(last,), fingerprint=stable_hash(judged), planner=planner,
            )  # fmt: skip


def _first(source: StudySource) -> str:
    return next(iter(source.config.algorithms))


def _ancestors(task: Task, tasks: dict[str, Task]) -> list[str]:
    return [name for need in task.needs for name in (*_ancestors(tasks[need], tasks), need)]


def _evaluate(task: StudyTask, dataset: Dataset, site: Site, workspace: Workspace) -> RunFolder:
    trained = trained_path(task.needs[0], site)
    workspace.progress.start("evaluate", task.run.evaluation.episodes)
    judge = task.run.evaluation
    simulated = find_run_task(task.run, dataset)
    judgement: dict[str, Any] = {"task": simulated, "episodes": judge.episodes, "seed": judge.seed}
    if task.planner is not None:
        return plan_stage(
            open_basis(trained, workspace, dataset=dataset), task.planner, workspace, **judgement
        )
    which = "last" if task.kind == "evaluate-last" else "selected"
    return evaluate_stage(open_policy(trained, which), workspace, **judgement)
