"""The work of `mbrl auto`: fits, trainings in the given time, one choice among all, estimates of the pick."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError, FileError, MbrlError
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.report import inspect_dataset
from mbrl.nets.random_policy import random_policy
from mbrl.report.auto.facts import AutoReport
from mbrl.run.config import ResolvedConfig, stable_hash
from mbrl.run.files import read_record, write_json
from mbrl.run.fit import fit_dynamics_stage, judge_dynamics
from mbrl.run.judge.along import check_selection
from mbrl.run.judge.forecast import time_dynamics_fit
from mbrl.run.judge.judges import judges_question, open_judges
from mbrl.run.judge.question import question_words
from mbrl.run.stage import Workspace
from mbrl.study.auto.budget import share_out, time_training
from mbrl.study.auto.config import AutoSource
from mbrl.study.auto.decide import decide, estimate_pick, plan_estimate
from mbrl.study.auto.record import PLAN_FILE, TimePlan, save_report
from mbrl.study.layout import StudyPlan, begin_study, plan_study
from mbrl.study.tasks import Site, Task

Sweep: TypeAlias = Callable[[Sequence[Task]], None]
"""Runs tasks side by side and records how they ended."""

_IDLE: Final = 0.9
"""Share of the cores' time that trainings of unequal length can use."""

_JUDGING_SHARE: Final = 0.25
"""Most of the trainings' time that judging their policies may take; beyond it fewer are kept."""

_JUDGE_PROBE_STEPS: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class AutoJob:
    """What is to be done.

    Attributes:
        source: the portfolio.
        dataset: the log.
        opened: what opens it again.
        site: the run store, and the folder of this job.
        workspace: of the same store.
        minutes: of wall time.
        jobs: side by side.
        sweep: runs tasks.
        command: that makes the result again.
    """

    source: AutoSource
    dataset: Dataset
    opened: str
    site: Site
    workspace: Workspace
    minutes: float
    jobs: int
    sweep: Sweep
    command: str

    @property
    def folder(self) -> Path:
        """Of the result."""
        return self.site.folder.path

    @property
    def seconds(self) -> float:
        """Of wall time."""
        return 60 * self.minutes

    @property
    def identity(self) -> str:
        """Of portfolio, log and time."""
        return stable_hash(
            {
                "config": self.source.config.model_dump(mode="json"),
                "dataset": self.dataset.content_hash,
                "minutes": self.minutes,
                "jobs": self.jobs,
            }
        )

    def tell(self, text: str) -> None:
        """A line for people."""
        self.workspace.progress.message(text)

    def resolved(self, label: str, plan: TimePlan) -> ResolvedConfig:
        """Config of a candidate's training."""
        study = self.source.study(
            self.opened, fit_updates=plan.fit_updates, judge_updates=plan.judge_updates, kept=plan.kept
        )
        return study.resolve(label, seed=self.source.config.seed, dataset=self.opened)

    def plan_tasks(self, plan: TimePlan) -> StudyPlan:
        """Fits and trainings, as a comparison lays them out."""
        study = self.source.study(
            self.opened,
            fit_updates=plan.fit_updates,
            judge_updates=plan.judge_updates,
            updates=plan.updates,
            kept=plan.kept,
        )
        return plan_study(study, self.site, evaluates=False)

    def training_tasks(self, plan: TimePlan) -> list[Task]:
        """One for each candidate that the plan has time for."""
        return [task for task in self.plan_tasks(plan).tasks if task.kind == "train"]


def run_auto(job: AutoJob) -> AutoReport:
    """Does everything that is not done yet.

    Raises:
        ConfigError: the time is too short for a single candidate, or a candidate cannot learn from the log.
        DataError: the log may not be trained on, or has no rewards.
        MbrlError: a fit failed.
    """
    begin = time.perf_counter()
    first = check_job(job)
    plan = _plan_fits(job, first)
    _run(job, plan, ("judge", "judges", "fit"))
    fitted = time.perf_counter()
    if plan.updates is None:
        plan = _plan_trainings(job, plan, elapsed=fitted - begin)
    _run(job, plan, ("train",))
    trained = time.perf_counter()
    judges = open_judges(job.resolved(next(iter(plan.updates or {})), plan), job.dataset, job.workspace)
    trainings = {task.algorithm or "": job.site.folder.outcome(task.id) for task in job.training_tasks(plan)}
    report = decide(job.source, job.dataset, judges, trainings, folder=job.folder)
    report = report.model_copy(
        update={
            "minutes": job.minutes,
            "jobs": job.jobs,
            "left_out": plan.left_out | report.left_out,
            "next_to_log": tuple(judges.fits[0].report.gaps.next_to_log()),
        }
    )
    if report.taken is not None:
        report = _estimate(job, plan, report)
    seconds = {"fits": fitted - begin, "trainings": trained - fitted, "choice": time.perf_counter() - trained}
    report = report.model_copy(update={"seconds": {key: round(value, 1) for key, value in seconds.items()}})
    save_report(report, job.folder)
    return report


def _estimate(job: AutoJob, plan: TimePlan, report: AutoReport) -> AutoReport:
    """Off-policy estimates of the pick, if the time permitted them when it was first asked."""
    config = job.source.config
    if plan.estimate_updates is None:
        seconds = job.seconds * config.estimate_share
        updates, why = plan_estimate(report, job.source, job.dataset, opened=job.opened, seconds=seconds)
        plan = plan.model_copy(update={"estimate_updates": updates, "no_estimate": why})
        _keep(job, plan)
    if not plan.estimate_updates:
        return report.model_copy(update={"no_estimate": plan.no_estimate})
    return estimate_pick(
        report,
        job.source,
        job.dataset,
        job.workspace,
        opened=job.opened,
        updates=plan.estimate_updates,
        command=job.command,
    )


def check_job(job: AutoJob) -> ResolvedConfig:
    """Refuses before the first fit what would be refused after it; returns the config of a candidate.

    Raises:
        MbrlError: see `run_auto`.
    """
    config, plan = job.source.config, TimePlan(identity="")
    job.dataset.require_rewards("mbrl auto")
    inspection = inspect_dataset(job.dataset)
    if not inspection.may_train:
        first = next(finding for finding in inspection.findings if finding.severity == "error")
        raise ConfigError(f"The log may not be trained on: {first.text} Remedy: {first.remedy}")
    resolved = [job.resolved(label, plan) for label in config.algorithms]
    for one in resolved:
        check_selection(one.run, job.dataset)
    needing = [one for one in resolved if RECIPES.get(one.run.recipe).needs_dynamics]
    return (needing or resolved)[0]


def _plan_fits(job: AutoJob, first: ResolvedConfig) -> TimePlan:
    """The plan as it was begun before, or one that caps model fits at their share of the time."""
    path, config = job.folder / PLAN_FILE, job.source.config
    try:
        found = read_record(path, TimePlan)
        if found.identity == job.identity:
            return found
    except FileError:
        pass
    run = first.run
    seconds = time_dynamics_fit(job.dataset, run.dynamics)
    rows = job.dataset.num_transitions
    own, judge = run.dynamics.ensemble_updates(rows), judge_dynamics(run).ensemble_updates(rows)
    most = max(own, judge)
    rounds = math.ceil((config.judges.count + 1) / job.jobs)
    allowed = int(config.fit_share * job.seconds / (rounds * seconds))
    plan = TimePlan(identity=job.identity, kept=config.kept)
    job.tell(question_words(judges_question(run, job.dataset)[0], discount=run.judges.discount))
    if allowed < most:
        cap = max(allowed, 1)
        caps = {"fit_updates": min(own, cap), "judge_updates": min(judge, cap)}
        plan = plan.model_copy(update=caps)
        job.tell(
            f"Model fits end after {allowed:,} of {most:,} updates at most, {config.fit_share:.0%} of the "
            "time: judges may measure less well than they could. Remedy: more --minutes."
        )
    took = rounds * seconds * min(most, allowed) / 60
    job.tell(
        f"{config.judges.count + 1} model fits, about {took:.0f} min at most; then {len(config.algorithms)} "
        f"candidates in what is left of {job.minutes:g} min, {job.jobs} side by side: "
        f"{', '.join(config.algorithms)}."
    )
    _keep(job, plan)
    return plan


def _plan_trainings(job: AutoJob, plan: TimePlan, *, elapsed: float) -> TimePlan:
    """Shares what is left of the time out among the candidates."""
    config = job.source.config
    resolved = {label: job.resolved(label, plan) for label in config.algorithms}
    needing = [one for one in resolved.values() if RECIPES.get(one.run.recipe).needs_dynamics]
    model = fit_dynamics_stage(needing[0], job.dataset, job.workspace)[0] if needing else None
    cost = {label: time_training(one, job.dataset, model) for label, one in resolved.items()}
    left = (job.seconds * (1 - config.estimate_share) - elapsed) * job.jobs * _IDLE
    judging = len(cost) * _judge_seconds(job, next(iter(resolved.values())))
    kept = min(config.kept, max(int(_JUDGING_SHARE * left / judging), 3)) if left > 0 else config.kept
    updates = share_out(
        left - kept * judging,
        cost,
        weights={label: config.weight(label) for label in cost},
        most={label: one.run.algorithm.updates for label, one in resolved.items()},
        least=config.least_updates,
    )
    if not updates:
        cheapest = min(cost.values()) * config.least_updates + kept * judging / len(cost)
        raise ConfigError(
            f"{job.minutes:g} minutes are too few: after the fits ({elapsed / 60:.1f} min) no candidate can "
            f"be trained for {config.least_updates:,} updates. Remedy: --minutes "
            f"{math.ceil((elapsed + cheapest) / 60 / (1 - config.estimate_share)) + 1} or more."
        )
    left_out = {
        label: f"its part of the time permits fewer than {config.least_updates:,} updates"
        for label in cost
        if label not in updates
    }
    plan = plan.model_copy(update={"updates": updates, "kept": kept, "left_out": left_out})
    for label, number in updates.items():
        most = resolved[label].run.algorithm.updates
        job.tell(
            f"{label}: {number:,} of {most:,} updates, about {number * cost[label] / 60:.1f} min, "
            f"{kept} policies kept."
        )
    for label, why in left_out.items():
        job.tell(f"{label} is left out: {why}.")
    _keep(job, plan)
    return plan


def _judge_seconds(job: AutoJob, resolved: ResolvedConfig) -> float:
    """Of one policy, whose episodes last as long as the logged ones or half as long again."""
    judges = open_judges(resolved, job.dataset, job.workspace)
    steps = min(_JUDGE_PROBE_STEPS, judges.steps)
    short = dataclasses.replace(judges, question=dataclasses.replace(judges.question, horizon=steps))
    begin = time.perf_counter()
    short.judge([random_policy(job.dataset.spec)])
    lived = min(1.5 * float(np.mean(job.dataset.episode_lengths)), judges.steps)
    return (time.perf_counter() - begin) / steps * lived


def _keep(job: AutoJob, plan: TimePlan) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / PLAN_FILE, plan.model_dump(mode="json"))


def _run(job: AutoJob, plan: TimePlan, kinds: tuple[str, ...]) -> None:
    """Does the tasks of some kinds; failed fits stop everything, failed trainings nothing but themselves.

    Raises:
        MbrlError: a fit failed.
    """
    whole = job.plan_tasks(plan)
    begin_study(whole, job.site)
    tasks = [task for task in whole.tasks if task.kind in kinds]
    ids = {task.id for task in tasks}
    job.sweep([dataclasses.replace(task, needs=tuple(n for n in task.needs if n in ids)) for task in tasks])
    for task in tasks:
        outcome = job.site.folder.outcome(task.id)
        if task.kind != "train" and (outcome is None or outcome.status != "done"):
            raise MbrlError(f"{task.title} failed: {outcome.cause if outcome else 'nobody knows why'}")
