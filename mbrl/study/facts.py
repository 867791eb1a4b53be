"""Gathers what the runs of a comparison left in their folders into plain facts for the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import MbrlError
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.report import DataFinding, Inspection, inspect_dataset
from mbrl.data.open import open_dataset
from mbrl.dynamics.report import DynamicsReport
from mbrl.envs.specs import TaskSpec
from mbrl.evaluation.scores import normalised_score
from mbrl.report.study.facts import RunStatus, Study, StudyAlgorithm, StudyDataset, StudyRun
from mbrl.run.config import algorithm_tree, stable_hash
from mbrl.run.files import read_record
from mbrl.run.inputs import find_run_task
from mbrl.run.judge.selection import Selection
from mbrl.run.metrics import read_metrics
from mbrl.run.records import EvaluationSummary, TrainingSummary
from mbrl.run.store import RunFolder, code_facts
from mbrl.study.folder import Outcome
from mbrl.study.layout import StudyPlan, StudyTask, trained_path
from mbrl.study.plans import gather_study_plans
from mbrl.study.tasks import Site, Task, is_current

MAX_RECORDS: Final = 200
"""Rows of metrics that a report gets of each run; more would not be seen in a figure."""

T = TypeVar("T")


def gather_study(plan: StudyPlan, site: Site, *, command: str) -> Study:
    """All facts of a comparison, complete or not.

    Args:
        plan: what was to be done.
        site: where it was done.
        command: the one that does it again.
    """
    config = plan.source.config
    algorithms = {label: _algorithm(label, plan) for label in config.algorithms}
    datasets = tuple(_dataset(label, plan, site) for label in config.datasets)
    runs = tuple(
        _run(plan.chain(dataset, algorithm, seed), site)
        for dataset in config.datasets
        for algorithm in config.algorithms
        for seed in config.seeds
    )
    return Study(
        name=plan.source.name,
        datasets=datasets,
        algorithms=algorithms,
        seeds=config.seeds,
        runs=runs,
        selection=config.select.rule,
        plannings=gather_study_plans(plan, site),
        provenance=_provenance(plan, datasets, command),
    )


def _algorithm(label: str, plan: StudyPlan) -> StudyAlgorithm:
    run = plan.source.resolve(label, seed=plan.source.config.seeds[0]).run
    planner = plan.source.planner(label)
    planning = {} if planner is None else {"planner": planner.tree()}
    return StudyAlgorithm(
        label=label,
        recipe=run.recipe,
        learner=run.algorithm.learner.name,
        needs_dynamics=planner is not None or RECIPES.get(run.recipe).needs_dynamics,
        config={**algorithm_tree(run), **planning},
    )


def _dataset(label: str, plan: StudyPlan, site: Site) -> StudyDataset:
    run = next(task.run for task in plan.tasks if task.dataset == label and isinstance(task, StudyTask))
    try:
        dataset = open_dataset(plan.sources[label], run.dataset_options, minari_root=site.minari_root)
    except MbrlError as error:
        return _absent_dataset(label, str(error))
    task = find_run_task(run, dataset)
    return StudyDataset(
        label=label,
        content_hash=dataset.content_hash,
        report=inspect_dataset(dataset),
        returns=tuple(map(float, dataset.episode_returns)) if dataset.has_rewards else (),
        scores=_scores(dataset, task) if dataset.has_rewards else (),
        dynamics={
            seed: read_record(folder / "report.json", DynamicsReport)
            for seed, folder in _fits(label, plan, site)
        },
    )


def _absent_dataset(label: str, problem: str) -> StudyDataset:
    finding = DataFinding(severity="error", text=problem, remedy="Run the comparison again.")
    report = Inspection(name=label, findings=(finding,), dropped={}, stats=None)
    return StudyDataset(label, content_hash="", report=report, returns=(), scores=None, dynamics={})


def _fits(label: str, plan: StudyPlan, site: Site) -> list[tuple[int, Path]]:
    found: list[tuple[int, Path]] = []
    for task in plan.tasks:
        outcome = site.folder.outcome(task.id) if (task.kind, task.dataset) == ("fit", label) else None
        if outcome is not None and task.seed is not None and is_current(task, outcome):
            found.append((task.seed, Path(outcome.path or "")))
    return found


def _scores(dataset: Dataset, task: TaskSpec | None) -> tuple[float, ...] | None:
    if task is None or task.ref_min_score is None or task.ref_max_score is None:
        return None
    returns = np.asarray(dataset.episode_returns, dtype=np.float64)
    return tuple(map(float, normalised_score(returns, task.ref_min_score, task.ref_max_score)))


def _run(chain: Sequence[Task], site: Site) -> StudyRun:
    """The facts of one run; a failed or missing one has those that there are."""
    outcomes = {task.id: site.folder.outcome(task.id) for task in chain}
    done = {task.id: found for task in chain if is_current(task, found := outcomes[task.id]) and found}
    last = chain[-1]
    failure = next((found for task in chain if (found := _failure(task, outcomes[task.id]))), None)
    status: RunStatus = "done" if last.id in done else "failed" if failure is not None else "missing"
    of_kind = {kind: [task.id for task in chain if task.kind == kind] for kind in ("fit", "train", "select")}
    facts: dict[str, Any] = {}
    chosen = (of_kind["select"] or of_kind["train"])[-1]
    if chosen in done:
        facts = _training_facts(trained_path(chosen, site), [done[name] for name in of_kind["train"]])
    if of_kind["select"] and chosen in done:
        facts["choice"] = _choice(done[chosen])
    for name in of_kind["fit"]:
        facts |= {"fit_seconds": _seconds(done[name])} if name in done else {}
    if last.kind == "evaluate" and last.id in done:
        facts |= _evaluation_facts(done[last.id])
    assert last.algorithm is not None
    assert last.seed is not None
    cause = None if failure is None or status != "failed" else failure.cause
    return StudyRun(last.dataset, last.algorithm, last.seed, status, cause=cause, **facts)


def _failure(task: Task, outcome: Outcome | None) -> Outcome | None:
    """The outcome if it is a failure of this very task, not of one with another config."""
    if outcome is None or outcome.fingerprint != task.fingerprint:
        return None
    return outcome if outcome.status == "failed" else None


def _choice(outcome: Outcome) -> str:
    """What the rule chose, in words."""
    found = Selection.load(Path(outcome.path or ""))
    changes = ", ".join(f"{key}={value}" for key, value in found.winner.changes.items())
    problem = "" if found.winner.problem is None else f"; not to be trusted: {found.winner.problem}"
    return f"{changes} of {len(found.contestants)}, lower bound {found.winner.low:.4g}{problem}"


def _training_facts(path: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of the reported training; its seconds are those of all that it was chosen from."""
    run = RunFolder(path)
    summary, rows = run.summary(TrainingSummary), read_metrics(run.path)
    return {
        "updates": int(summary["updates"]),
        "train_seconds": sum(map(_seconds, outcomes)),
        "records": thin([row for row in rows if "event" not in row], MAX_RECORDS),
        "shift": summary.get("shift"),
        "alarms": tuple(str(row["text"]) for row in rows if "event" in row and "text" in row),
        "path": str(run.path),
    }


def _evaluation_facts(outcome: Outcome) -> dict[str, Any]:
    summary = RunFolder(Path(outcome.path or "")).summary(EvaluationSummary)
    scores = summary["normalised_scores"]
    return {
        "returns": tuple(map(float, summary["episode_returns"])),
        "scores": None if scores is None else tuple(map(float, scores)),
    }


def _seconds(outcome: Outcome) -> float:
    """Wall time of the stage itself, over all its attempts."""
    return float(RunFolder(Path(outcome.path or "")).manifest()["wall_seconds"])


def thin(rows: Sequence[T], most: int) -> list[T]:
    """At most `most` of the rows, evenly spaced, the first and the last among them.

    Args:
        rows: in order.
        most: at least 2.
    """
    if len(rows) <= most:
        return list(rows)
    return [rows[index] for index in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _provenance(plan: StudyPlan, datasets: Sequence[StudyDataset], command: str) -> dict[str, str]:
    facts = code_facts()
    return {
        "command": command,
        "comparison": f"{plan.source.name} {stable_hash(plan.source.config.model_dump(mode='json'))[:8]}",
        **{f"dataset hash {dataset.label}": dataset.content_hash for dataset in datasets},
        "version": f"{facts['version']} {facts['commit'] or ''}".strip(),
        "torch": str(facts["packages"]["torch"]),
        "machine": f"{facts['machine']}, {facts['cpus']} CPUs",
        "threads per run": str(next(task.run.threads for task in plan.tasks if isinstance(task, StudyTask))),
    }


def summarise_run(run: StudyRun) -> dict[str, Any]:
    """Plain values of one run, for `--json`."""
    return {
        "dataset": run.dataset,
        "algorithm": run.algorithm,
        "seed": run.seed,
        "status": run.status,
        "cause": run.cause,
        "mean_return": float(np.mean(run.returns)) if run.returns else None,
        "mean_score": float(np.mean(run.scores)) if run.scores else None,
        "updates": run.updates,
        "train_seconds": run.train_seconds,
        "fit_seconds": run.fit_seconds,
        "path": run.path,
        "choice": run.choice,
    }


def summarise_means(study: Study) -> dict[str, dict[str, dict[str, Any]]]:
    """For each dataset and algorithm, means over the seeds that are done, for `--json`."""
    return {
        dataset.label: {label: _means(study.of(dataset.label, label)) for label in study.algorithms}
        for dataset in study.datasets
    }


def _means(runs: Sequence[StudyRun]) -> dict[str, Any]:
    done = [summarise_run(run) for run in runs if run.status == "done"]
    means: dict[str, Any] = {"seeds": len(done)}
    for key in ("mean_return", "mean_score"):
        values = [run[key] for run in done if run[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means
