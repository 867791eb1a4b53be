"""Lays out a benchmark of off-policy evaluation: collect -> fit, train -> true values and estimates."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.off_policy.judgement.report.documents import REPORT_VERSION
from mbrl.run.collect import RANDOM
from mbrl.run.config import stable_hash
from mbrl.study.config import DatasetChoice
from mbrl.study.layout import StudyTask, plan_collection
from mbrl.study.ope_bench.config import BenchTaskConfig, OPEBenchSource
from mbrl.study.ope_bench.tasks import (
    DRAWS,
    BacktestTask,
    Candidate,
    EstimateTask,
    Log,
    PeerTask,
    TruthTask,
)
from mbrl.study.tasks import Site, Task


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One policy evaluated from one log.

    Attributes:
        task: label of the task.
        log: label of the dataset.
        candidate: the policy.
        truth: id of the task that knows its value.
        estimate: id of the task that estimates it.
        peer: id of the task that asks the peer, or None.
    """

    task: str
    log: str
    candidate: Candidate
    truth: str
    estimate: str
    peer: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class OPEBenchPlan:
    """All tasks of a benchmark, every one behind those that it needs.

    Attributes:
        source: the benchmark.
        tasks: in the order in which they are started.
        cases: what is judged.
    """

    source: OPEBenchSource
    tasks: tuple[Task, ...]
    cases: tuple[Case, ...]

    def chain(self, case: Case) -> tuple[str, ...]:
        """Ids of the tasks of a case, in order."""
        needs = {task.id: task.needs for task in self.tasks}
        last = [case.truth, case.estimate, *([] if case.peer is None else [case.peer])]
        return (*dict.fromkeys(name for task in last for name in _ancestors(task, needs)), *last)


def plan_ope_bench(source: OPEBenchSource, site: Site, *, peer_python: str | None) -> OPEBenchPlan:
    """Lays out the tasks: datasets, trainings, true values, estimates; the first log of every task first.

    Args:
        source: the benchmark.
        site: where it works.
        peer_python: interpreter of the other library; None leaves it out.

    Raises:
        ConfigError: datasets, tasks and policies do not go together.
        DataError: a dataset cannot be used.
    """
    rounds: dict[int, list[Task]] = {}
    cases: list[Case] = []
    for label, config in source.config.tasks.items():
        logs = [_plan_log(f"{label}.{name}", choice, site) for name, choice in config.datasets.items()]
        first = rounds.setdefault(0, [])
        first += [log.collection for log in logs if log.collection is not None]
        trainings = [training for log in logs for training in _plan_trainings(label, log, source)]
        first += trainings
        layout = _Layout(label, source, {training.id: training for training in trainings})
        candidates = (*_shipped(config), *_trained(config, trainings))
        truths = [layout.truth(candidate) for candidate in candidates]
        first += truths
        for index, log in enumerate(logs):
            fit = layout.fit(log)
            backtest = layout.backtest(log, fit) if config.backtest else None
            estimates = [layout.estimate(candidate, log, fit, backtest) for candidate in candidates]
            peer = None if peer_python is None else layout.peer(candidates, log, peer_python)
            tasks = (fit, backtest, *estimates, peer)
            rounds.setdefault(index, []).extend(task for task in tasks if task is not None)
            cases += [
                Case(label, log.label, candidate, truth.id, estimate.id, None if peer is None else peer.id)
                for candidate, truth, estimate in zip(candidates, truths, estimates, strict=True)
            ]
    ordered = [task for index in sorted(rounds) for task in rounds[index]]
    return OPEBenchPlan(source, tuple(ordered), tuple(cases))


def begin_ope_bench(plan: OPEBenchPlan, site: Site) -> None:
    """Writes into the folder of the benchmark what it consists of; `mbrl status` reads it."""
    runs = [
        {
            "dataset": case.log,
            "algorithm": case.candidate.label,
            "seed": plan.source.config.seed,
            "tasks": plan.chain(case),
        }
        for case in plan.cases
    ]
    facts = {
        "name": plan.source.name,
        "runs": runs,
        "tasks": {task.id: task.fingerprint for task in plan.tasks},
    }
    site.folder.begin(config=plan.source.to_yaml(), facts=facts)


def _plan_log(label: str, choice: DatasetChoice, site: Site) -> Log:
    if choice.collect is not None:
        task = plan_collection(label, choice, site)
        return Log(label, str(task.target), task.fingerprint, task)
    assert choice.source is not None
    path = Path(choice.source).expanduser()
    opened = str(path.resolve()) if path.exists() else choice.source
    dataset = open_dataset(opened, LoadOptions(), minari_root=site.minari_root)
    return Log(label, opened, dataset.content_hash)


def _plan_trainings(label: str, log: Log, source: OPEBenchSource) -> Iterator[StudyTask]:
    config = source.config.tasks[label]
    study = config.study(source.where)
    needs = () if log.collection is None else (log.collection.id,)
    for algorithm in study.config.algorithms:
        for seed in config.seeds:
            resolved = study.resolve(algorithm, seed=seed, dataset=log.source)
            run = resolved.run.model_copy(update={"diagnostics": False})
            yield StudyTask(
                id=f"train.{log.label}.{algorithm}.s{seed}",
                kind="train",
                dataset=log.label,
                algorithm=algorithm,
                seed=seed,
                resolved=dataclasses.replace(resolved, run=run),
                needs=needs,
                fingerprint=stable_hash({"train": run.tree(), "dataset": log.identity}),
            )


def _shipped(config: BenchTaskConfig) -> Iterator[Candidate]:
    for name in config.shipped:
        if name == RANDOM:
            yield Candidate(name, config.task, is_stochastic=True, shipped=name)
            continue
        yield Candidate(name, config.task, is_stochastic=False, shipped=name)
        yield Candidate(f"{name}{DRAWS}", config.task, is_stochastic=True, shipped=name)


def _trained(config: BenchTaskConfig, trainings: list[StudyTask]) -> Iterator[Candidate]:
    for training in trainings:
        algorithm = str(training.algorithm)
        name = training.dataset.partition(".")[2]
        yield Candidate(
            f"{algorithm}-{name}-s{training.seed}",
            config.task,
            is_stochastic=algorithm.rpartition("-")[0] in config.stochastic,
            training=training.id,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """What the tasks of one task have in common."""

    label: str
    source: OPEBenchSource
    trainings: dict[str, StudyTask]

    @property
    def config(self) -> BenchTaskConfig:
        return self.source.config.tasks[self.label]

    def truth(self, candidate: Candidate) -> TruthTask:
        truth = self.source.config.truth
        return TruthTask(
            f"truth.{self.label}.{candidate.label}", "simulate", self.label, algorithm=candidate.label,
            needs=_training_of(candidate), candidate=candidate, config=self.config, truth=truth,
            fingerprint=stable_hash({**self._identity(candidate), "truth": truth.model_dump(mode="json")}),
        )  # fmt: skip

    def fit(self, log: Log) -> StudyTask:
        resolved = self.config.resolve_fit(self.source.where, log.source)
        identity = {"fit": resolved.run.dynamics.model_dump(mode="json"), "dataset": log.identity}
        return StudyTask(
            id=f"fit.{log.label}", kind="fit", dataset=log.label, needs=_collection_of(log),
            seed=resolved.run.seed, resolved=resolved,
            fingerprint=stable_hash({**identity, "seed": resolved.run.seed}),
        )  # fmt: skip

    def backtest(self, log: Log, fit: StudyTask) -> BacktestTask:
        draws = self.source.config.seed
        identity = {
            "log": log.identity,
            "fit": fit.fingerprint,
            "draws": draws,
            "estimand": self.config.estimand.to_json(),
            "fqe": self.config.fqe.model_dump(mode="json"),
        }
        return BacktestTask(
            f"backtest.{log.label}", "backtest", log.label, stable_hash(identity), needs=(fit.id,),
            log=log, config=self.config, resolved=fit.resolved, draws=draws, fit=fit.id,
        )  # fmt: skip

    def estimate(
        self, candidate: Candidate, log: Log, fit: StudyTask, backtest: BacktestTask | None
    ) -> EstimateTask:
        draws = self.source.config.seed
        identity = {
            **self._identity(candidate),
            "log": log.identity,
            "draws": draws,
            "fqe": self.config.fqe.model_dump(mode="json"),
            "estimators": ESTIMATORS.names(),
            "report": REPORT_VERSION,
            "fit": fit.fingerprint,
            "backtest": None if backtest is None else backtest.fingerprint,
        }
        before = fit.id if backtest is None else backtest.id
        return EstimateTask(
            f"estimate.{log.label}.{candidate.label}", "estimate", log.label, stable_hash(identity),
            algorithm=candidate.label, needs=(before, *_training_of(candidate)), candidate=candidate, log=log,
            config=self.config, draws=draws, fit=fit.id, backtest=None if backtest is None else backtest.id,
        )  # fmt: skip

    def peer(self, candidates: tuple[Candidate, ...], log: Log, python: str) -> PeerTask:
        peer, draws = self.source.config.peer, self.source.config.seed
        identity = {
            "candidates": [self._identity(candidate) for candidate in candidates],
            "log": log.identity,
            "draws": draws,
            "peer": peer.model_dump(mode="json"),
        }
        needs = [name for candidate in candidates for name in _training_of(candidate)]
        return PeerTask(
            f"peer.{log.label}", "peer", log.label, stable_hash(identity),
            needs=(*_collection_of(log), *needs), candidates=candidates, log=log, config=self.config,
            peer=peer, python=python, draws=draws,
        )  # fmt: skip

    def _identity(self, candidate: Candidate) -> dict[str, Any]:
        training = None if candidate.training is None else self.trainings[candidate.training].fingerprint
        return {
            "candidate": dataclasses.asdict(candidate),
            "training": training,
            "estimand": self.config.estimand.to_json(),
        }


def _training_of(candidate: Candidate) -> tuple[str, ...]:
    return () if candidate.training is None else (candidate.training,)


def _collection_of(log: Log) -> tuple[str, ...]:
    return () if log.collection is None else (log.collection.id,)


def _ancestors(task: str, needs: dict[str, tuple[str, ...]]) -> list[str]:
    return [name for need in needs[task] for name in (*_ancestors(need, needs), need)]
