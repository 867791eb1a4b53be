"""Which candidate is taken, what it is worth by other evidence, and what off-policy estimates say of it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand, finite_or_none
from mbrl.data.dataset import Dataset
from mbrl.off_policy.judgement.report.documents import DeploymentReport
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.off_policy.value.judged import JudgedValue, honest_value
from mbrl.report.auto.facts import AutoReport, BehaviourResult, CandidateResult, EstimateResult
from mbrl.report.deployment.sentences import verdict_lines
from mbrl.run.files import write_bytes
from mbrl.run.judge.deployment import DEPLOYMENT_FILE, PAGE, deployment_stage
from mbrl.run.judge.forecast import time_value_fit
from mbrl.run.judge.judged_file import JUDGED_FILE, load_judged
from mbrl.run.judge.judges import Judges
from mbrl.run.judge.model import ModelRequest, choose_model
from mbrl.run.judge.ope import OPESettings, ope_stage
from mbrl.run.judge.question import asked_estimand, question_words
from mbrl.run.policies import open_policy
from mbrl.run.records import TrainingSummary
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder
from mbrl.study.auto.choice import Behaviour, choose_candidate, gain_bound
from mbrl.study.auto.config import AutoSource
from mbrl.study.auto.record import POLICY_FILE
from mbrl.study.folder import Outcome


def decide(
    source: AutoSource,
    dataset: Dataset,
    judges: Judges,
    trainings: Mapping[str, Outcome | None],
    *,
    folder: Path,
) -> AutoReport:
    """Every candidate by its best judged policy, and the one that is taken; its file is put into `folder`.

    Args:
        source: the portfolio, with the rule.
        dataset: the log.
        judges: that chose along every training.
        trainings: how each candidate's training ended, the simplest first.
        folder: of the result.

    Raises:
        ConfigError: no training is done, or other judges chose along one of them.
    """
    behaviour, kappa = logged_behaviour(dataset, judges), source.config.judges.pessimism
    done = {label: Path(o.path or "") for label, o in trainings.items() if o and o.status == "done"}
    failed = {
        label: f"its training failed: {o.cause if o else 'it was not run'}"
        for label, o in trainings.items()
        if label not in done
    }
    if not done:
        raise ConfigError(f"No candidate could be trained. {next(iter(failed.values()))}")
    said = {label: _load(path, judges) for label, path in done.items()}
    best = {label: _best(judged, behaviour, kappa) for label, judged in said.items()}
    finalists = [said[label][index] for label, index in best.items()]
    choice = choose_candidate(finalists, behaviour, pessimism=kappa, tie_errors=source.config.tie_errors)
    results = [
        _result(label, done[label], index, said[label], gain)
        for (label, index), gain in zip(best.items(), choice.gains, strict=True)
    ]
    everything = [value for judged in said.values() for value in judged]
    honest = None if choice.taken is None else honest_value(everything, "lower_bound", kappa)
    return AutoReport(
        log=dataset.info.name,
        dataset_hash=dataset.content_hash,
        portfolio=source.name,
        question=question_words(judges.horizon, discount=judges.config.discount),
        minutes=0.0,
        jobs=1,
        seconds={},
        behaviour=None if behaviour is None else BehaviourResult(**dataclasses.asdict(behaviour)),
        candidates=tuple(results),
        left_out=failed,
        best=choice.best,
        taken=choice.taken,
        reason=choice.reason,
        honest=None if honest is None else honest.to_json(),
        facts=judges.facts(),
        warnings=tuple(judges.warnings()),
        policy=None if choice.taken is None else _hand_out(results[choice.taken], folder),
    )


def logged_behaviour(dataset: Dataset, judges: Judges) -> Behaviour | None:
    """What the complete episodes of a log return, and what judges say of a clone of what made them."""
    weights = judges.config.discount ** np.arange(judges.steps)
    complete = [
        episode.logged.rewards[: judges.steps].astype(np.float64)
        for episode, is_cut in zip(dataset.episodes, judges.horizon.censored, strict=True)
        if not is_cut
    ]
    returns = np.array([float(rewards @ weights[: len(rewards)]) for rewards in complete])
    found = judges.backtest
    judged = None if found is None else found.sample if judges.question.samples else found.mean
    return Behaviour.of(returns, judged)


def plan_estimate(
    report: AutoReport, source: AutoSource, dataset: Dataset, *, opened: str, seconds: float
) -> tuple[int, str | None]:
    """Updates of each value fit of the pick that the time permits; 0, and why, where they are too few.

    Args:
        report: of a pick.
        source: the portfolio.
        dataset: the log.
        opened: what opens the log again.
        seconds: for value fits.
    """
    path, estimand = _pick_path(report), _estimand(source, dataset)
    config = FQEConfig()
    step = time_value_fit(dataset, open_policy(path).policy, estimand=estimand, config=config)
    least, affordable = config.least_updates(estimand), int(seconds / step)
    if affordable >= least:
        return min(affordable, config.updates), None
    took = f"{least:,} updates at least, about {least * step / 60:.0f} min"
    return 0, f"Value fits of this task take {took}. Remedy: mbrl ope {path} --dataset {opened}."


def estimate_pick(
    report: AutoReport,
    source: AutoSource,
    dataset: Dataset,
    workspace: Workspace,
    *,
    opened: str,
    updates: int,
    command: str,
) -> AutoReport:
    """The same with off-policy estimates of the pick.

    Args:
        report: of a pick.
        source: the portfolio.
        dataset: the log.
        workspace: where estimates go.
        opened: what opens the log again.
        updates: of each value fit.
        command: that makes the page again.
    """
    path, asked = _pick_path(report), source.config.judges
    settings = OPESettings(
        asked.discount,
        asked.horizon,
        fqe=FQEConfig(updates=updates),
        model=ModelRequest(judges=asked.count),
    )
    chosen = choose_model(path, dataset, settings.model, source=opened, workspace=workspace)
    judged = ope_stage(open_policy(path), dataset, settings, workspace, chosen=chosen)
    folder = deployment_stage([judged], None, dataset, workspace, command=command)
    found = DeploymentReport.load(folder.path / DEPLOYMENT_FILE).proposed_report
    estimate = EstimateResult(
        verdict=found.verdict.final.verdict,
        words=tuple(verdict_lines(found)),
        page=str(folder.path / PAGE),
    )
    return report.model_copy(update={"estimate": estimate})


def _pick_path(report: AutoReport) -> Path:
    assert report.taken is not None
    pick = report.candidates[report.taken]
    return Path(pick.path) / pick.policy


def _estimand(source: AutoSource, dataset: Dataset) -> Estimand:
    asked = source.config.judges
    return asked_estimand(dataset, discount=asked.discount, steps=asked.horizon)


def _load(path: Path, judges: Judges) -> list[JudgedValue]:
    judged, identity = load_judged(path / JUDGED_FILE)
    if identity != judges.identity():
        raise ConfigError(
            f"Other judges chose along {path} than those of this choice. Remedy: delete the folder, and run "
            "the command again."
        )
    return judged


def _hand_out(taken: CandidateResult, folder: Path) -> str:
    """Puts the policy of the pick into the folder of the result."""
    path = folder / POLICY_FILE
    write_bytes(path, (Path(taken.path) / taken.policy).read_bytes())
    return str(path)


def _best(judged: list[JudgedValue], behaviour: Behaviour | None, kappa: float) -> int:
    bounds = [
        value.lower("lower_bound", kappa) if behaviour is None else gain_bound(value, behaviour, kappa)
        for value in judged
    ]
    finite = [bound for bound in bounds if math.isfinite(bound)]
    return bounds.index(max(finite)) if finite else len(bounds) - 1


def _result(label: str, path: Path, index: int, judged: list[JudgedValue], gain: float) -> CandidateResult:
    run, value = RunFolder(path), judged[index]
    summary = run.summary(TrainingSummary)
    contestant = summary["selection"]["contestants"][index]
    low, high = value.interval
    return CandidateResult(
        label=label,
        path=str(path),
        policy=contestant["path"],
        step=int(contestant["changes"]["updates"]),
        updates=int(summary["selection"]["contestants"][-1]["changes"]["updates"]),
        seconds=float(summary["seconds"]),
        mean=finite_or_none(value.mean),
        interval=(finite_or_none(low), finite_or_none(high)),
        gain=finite_or_none(gain),
        by_judge=tuple(finite_or_none(float(one)) for one in value.by_judge),
        last=finite_or_none(judged[-1].mean),
    )
