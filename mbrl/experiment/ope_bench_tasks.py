"""The tasks of a benchmark of off-policy evaluation: collect -> train -> true value and estimates."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import ConfigError, DataError
from mbrl.core.estimates import finite_or_none
from mbrl.core.protocols import Policy, StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.experiment.behaviour import RANDOM, find_policy
from mbrl.experiment.config import EvaluationConfig, stable_hash
from mbrl.experiment.files import write_json
from mbrl.experiment.ope import OPESettings, evaluate_off_policy
from mbrl.experiment.ope_bench import BenchTaskConfig, OPEBenchSource, PeerConfig
from mbrl.experiment.ope_peer import PeerRequest, ask_peer
from mbrl.experiment.progress import Progress
from mbrl.experiment.stages import open_policy, set_up_torch
from mbrl.experiment.study import DatasetChoice
from mbrl.experiment.study_tasks import CollectTask, StudyTask, plan_collection
from mbrl.experiment.tasks import Site, Task
from mbrl.ope.policies import DeterministicMode

DRAWS: Final = "+noise"
"""Ends the label of a policy whose draws are judged beside its evaluation action."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be evaluated.

    Attributes:
        label: unique within its task.
        task: name of the task, or path of its yaml.
        is_stochastic: its draws are judged, not its evaluation action.
        shipped: name of a behaviour checkpoint, or None.
        training: id of the task that trains it, or None.
    """

    label: str
    task: str
    is_stochastic: bool
    shipped: str | None = None
    training: str | None = None

    def open(self, site: Site) -> Policy:
        """The policy as it is judged.

        Raises:
            ConfigError: there is none, or it has no draws and is to be judged by them.
        """
        if self.shipped is not None:
            policy = find_policy(self.shipped, load_task(self.task))
        else:
            assert self.training is not None
            trained = site.folder.outcome(self.training)
            if trained is None or trained.path is None:
                raise ConfigError(f"There is no training {self.training}. Remedy: run the benchmark again.")
            policy = open_policy(Path(trained.path)).policy
        if not self.is_stochastic:
            return DeterministicMode(policy)
        if not isinstance(policy, StochasticPolicy):
            raise ConfigError(f"The policy {self.label} has no draws; take it out of `stochastic`.")
        return policy


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """A dataset of a benchmark before it exists.

    Attributes:
        label: its name in the benchmark.
        source: what is opened.
        identity: hash of its content, or of its recipe.
        collection: the task that makes it, or None.
    """

    label: str
    source: str
    identity: str
    collection: CollectTask | None = None

    def open(self, site: Site, horizon: int) -> Dataset:
        """The episodes that tell of `horizon` steps."""
        dataset = open_dataset(self.source, LoadOptions(), minari_root=site.minari_root)
        return select_whole(dataset, horizon)


def select_whole(dataset: Dataset, horizon: int) -> Dataset:
    """Without the episodes that were cut before the horizon, as a budget of steps cuts the last one.

    Raises:
        DataError: fewer than two are left.
    """
    whole = [k for k, episode in enumerate(dataset.episodes) if episode.terminated or len(episode) >= horizon]
    if len(whole) < 2:
        raise DataError(
            f"dataset {dataset.info.name!r} has {len(whole)} episodes that end by themselves or last for "
            f"{horizon} steps",
            remedy="Lower the horizon.",
        )
    return dataset if len(whole) == len(dataset) else dataset.select(whole)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TruthTask(Task):
    """Establishes the value of a policy in the simulator.

    Attributes:
        candidate: whose.
        config: estimand.
        truth: episodes and seed.
    """

    candidate: Candidate
    config: BenchTaskConfig
    truth: EvaluationConfig

    def perform(self, site: Site, progress: Progress) -> Path:
        """Mean of the estimand over episodes, with its standard error."""
        set_up_torch(1)
        progress.start("simulate", self.truth.episodes)
        result = evaluate(
            _cut_task(load_task(self.candidate.task), self.config.horizon),
            self.candidate.open(site),
            episodes=self.truth.episodes,
            rng=RngStreams(self.truth.seed),
            is_deterministic=not self.candidate.is_stochastic,
            discount=self.config.discount,
        )
        values = np.array(result.discounted_returns)
        se = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan
        facts = {"value": float(values.mean()), "se": finite_or_none(se), "episodes": values.size}
        return _write_result(self, site, facts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EstimateTask(Task):
    """Asks every registered estimator for the value of a policy, from a log.

    Attributes:
        candidate: whose.
        log: what is known.
        config: estimand and value fits.
        draws: seed of the estimators.
    """

    candidate: Candidate
    log: Log
    config: BenchTaskConfig
    draws: int

    def perform(self, site: Site, progress: Progress) -> Path:
        """The report that `mbrl ope` would write, verdict included."""
        set_up_torch(1)
        progress.start("estimate", 1)
        settings = OPESettings(
            discount=self.config.discount,
            horizon=self.config.horizon,
            stochastic=self.candidate.is_stochastic,
            fqe=self.config.fqe,
            seed=self.draws,
        )
        dataset = self.log.open(site, self.config.horizon)
        return _write_result(self, site, evaluate_off_policy(self.candidate.open(site), dataset, settings))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeerTask(Task):
    """Asks another library for the values of all policies, from the same log.

    Attributes:
        candidates: whose.
        log: what is known.
        config: estimand.
        peer: of its fits.
        python: interpreter in which it is installed.
        draws: seed.
    """

    candidates: tuple[Candidate, ...]
    log: Log
    config: BenchTaskConfig
    peer: PeerConfig
    python: str
    draws: int

    def perform(self, site: Site, progress: Progress) -> Path:
        """Its estimates; every answer is kept as soon as it is there."""
        set_up_torch(1)
        request = PeerRequest(
            python=self.python,
            estimand=self.config.estimand,
            config=self.peer,
            seed=self.draws,
            folder=site.folder.path / "answers" / f"{self.id}-{self.fingerprint[:8]}",
        )
        policies = {candidate.label: candidate.open(site) for candidate in self.candidates}
        answers = ask_peer(policies, self.log.open(site, self.config.horizon), request, progress)
        facts = {
            label: {**dataclasses.asdict(answer), "value": finite_or_none(answer.value)}
            for label, answer in answers.items()
        }
        return _write_result(self, site, facts)


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
    """Lays out the tasks: of each task the datasets and trainings, then true values and estimates.

    Args:
        source: the benchmark.
        site: where it works.
        peer_python: interpreter of the other library; None leaves it out.

    Raises:
        ConfigError: datasets, tasks and policies do not go together.
        DataError: a dataset cannot be used.
    """
    tasks: list[Task] = []
    cases: list[Case] = []
    for label, config in source.config.tasks.items():
        logs = [_plan_log(f"{label}.{name}", choice, site) for name, choice in config.datasets.items()]
        tasks += [log.collection for log in logs if log.collection is not None]
        trainings = [training for log in logs for training in _plan_trainings(label, log, source)]
        tasks += trainings
        layout = _Layout(label, source, tuple(logs), {training.id: training for training in trainings})
        candidates = (*_shipped(config), *_trained(config, trainings))
        truths = [layout.truth(candidate) for candidate in candidates]
        tasks += truths
        for log in logs:
            estimates = [layout.estimate(candidate, log) for candidate in candidates]
            peer = None if peer_python is None else layout.peer(candidates, log, peer_python)
            tasks += [*estimates, *([] if peer is None else [peer])]
            cases += [
                Case(label, log.label, candidate, truth.id, estimate.id, None if peer is None else peer.id)
                for candidate, truth, estimate in zip(candidates, truths, estimates, strict=True)
            ]
    return OPEBenchPlan(source, tuple(tasks), tuple(cases))


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
    logs: tuple[Log, ...]
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

    def estimate(self, candidate: Candidate, log: Log) -> EstimateTask:
        fqe, draws = self.config.fqe.model_dump(mode="json"), self.source.config.seed
        identity = {**self._identity(candidate), "log": log.identity, "draws": draws, "fqe": fqe}
        return EstimateTask(
            f"estimate.{log.label}.{candidate.label}", "estimate", log.label, stable_hash(identity),
            algorithm=candidate.label, needs=(*_collection_of(log), *_training_of(candidate)),
            candidate=candidate, log=log, config=self.config, draws=draws,
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


def _cut_task(task: TaskSpec, horizon: int) -> TaskSpec:
    """The task with its time limit at the horizon: what comes later does not count."""
    limit = task.max_episode_steps
    if limit is not None and limit < horizon:
        raise ConfigError(f"The horizon {horizon} lies beyond the time limit {limit} of task {task.name}.")
    return task.model_copy(update={"max_episode_steps": horizon})


def _write_result(task: Task, site: Site, facts: dict[str, Any]) -> Path:
    path = site.folder.path / "answers" / f"{task.id}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, facts)
    return path


def _ancestors(task: str, needs: dict[str, tuple[str, ...]]) -> list[str]:
    return [name for need in needs[task] for name in (*_ancestors(need, needs), need)]
