"""The tasks of a benchmark of off-policy evaluation, and how each is done."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import finite_or_none
from mbrl.core.progress import Progress
from mbrl.core.protocols import Policy, StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.off_policy.log.policies import as_deployed
from mbrl.off_policy.value.model_value import EvaluationModel, ModelValueConfig
from mbrl.run.collect import find_policy
from mbrl.run.config import EvaluationConfig, ResolvedConfig
from mbrl.run.files import write_json
from mbrl.run.fit import DYNAMICS_FILE, load_dynamics
from mbrl.run.judge.backtest import backtest_stage, read_backtest
from mbrl.run.judge.model import ChosenModel
from mbrl.run.judge.ope import OPESettings, evaluate_off_policy
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunFolder, RunStore
from mbrl.study.layout import CollectTask
from mbrl.study.ope_bench.config import BenchTaskConfig, PeerConfig
from mbrl.study.ope_bench.peer import PeerRequest, ask_peer
from mbrl.study.tasks import Site, Task

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
            return as_deployed(policy)
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

    def open(self, site: Site) -> Dataset:
        """All of its episodes."""
        return open_dataset(self.source, LoadOptions(), minari_root=site.minari_root)


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
        fit: id of the task that fits the dynamics.
        backtest: id of the task that asks for the behaviour's value, or None.
    """

    candidate: Candidate
    log: Log
    config: BenchTaskConfig
    draws: int
    fit: str
    backtest: str | None

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
        dataset = self.log.open(site)
        model = EvaluationModel.of(load_dynamics(_run_of(self.fit, site)))
        model = dataclasses.replace(model, dataset_hash=dataset.content_hash)  # of the log before its cut
        backtest = None if self.backtest is None else read_backtest(_run_of(self.backtest, site))
        report = evaluate_off_policy(
            self.candidate.open(site), dataset, settings, model=model, backtest=backtest
        )
        return _write_result(self, site, report.named(self.candidate.label).to_json())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BacktestTask(Task):
    """Asks the value and the model family for the known value of the policy that acted in a log.

    Attributes:
        log: which one.
        config: estimand and value fits.
        resolved: config of the dynamics fit.
        draws: seed of the estimators.
        fit: id of the task that fits the dynamics.
    """

    log: Log
    config: BenchTaskConfig
    resolved: ResolvedConfig
    draws: int
    fit: str

    def perform(self, site: Site, progress: Progress) -> Path:
        """What `mbrl ope` asks before a verdict."""
        set_up_torch(1)
        fit = _run_of(self.fit, site)
        return backtest_stage(
            self.log.open(site),
            Workspace(RunStore(site.runs), progress, site.minari_root),
            estimand=self.config.estimand,
            fqe=self.config.fqe,
            rollouts=ModelValueConfig(),
            chosen=ChosenModel(load_dynamics(fit), fit.path / DYNAMICS_FILE, self.resolved, "learned"),
            seed=self.draws,
        ).path

    def has_result(self, path: Path) -> bool:
        """Whether the stage is done there."""
        return RunFolder(path).is_done


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
        answers = ask_peer(policies, self.log.open(site), request, progress)
        facts = {
            label: {**dataclasses.asdict(answer), "value": finite_or_none(answer.value)}
            for label, answer in answers.items()
        }
        return _write_result(self, site, facts)


def _cut_task(task: TaskSpec, horizon: int) -> TaskSpec:
    """The task with its time limit at the horizon: what comes later does not count."""
    limit = task.max_episode_steps
    if limit is not None and limit < horizon:
        raise ConfigError(f"The horizon {horizon} lies beyond the time limit {limit} of task {task.name}.")
    return task.model_copy(update={"max_episode_steps": horizon})


def _run_of(task: str, site: Site) -> RunFolder:
    """Folder of the stage that a task made."""
    outcome = site.folder.outcome(task)
    if outcome is None or outcome.path is None:
        raise ConfigError(f"There is no result of {task}. Remedy: run the benchmark again.")
    return RunFolder(Path(outcome.path))


def _write_result(task: Task, site: Site, facts: dict[str, Any]) -> Path:
    path = site.folder.path / "answers" / f"{task.id}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, facts)
    return path
