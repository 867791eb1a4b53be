"""The behaviour back-test as a stage: made once for a log, and shared by every candidate judged by it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.nets.random_policy import random_policy
from mbrl.off_policy.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.off_policy.judgement.backtest import backtest_config, run_backtest
from mbrl.off_policy.judgement.report.measured import Backtest
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.off_policy.value.model_value import ModelValueConfig
from mbrl.run.judge.clone import clone_behaviour, clone_identity
from mbrl.run.judge.forecast import forecast_backtest, time_dynamics_fit, time_value_fit
from mbrl.run.judge.model import ChosenModel
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

FOLDS: Final = 2
"""Halves of the episodes: more would leave each fit more data, and take as many fits more."""


def backtest_stage(
    dataset: Dataset,
    workspace: Workspace,
    *,
    estimand: Estimand,
    fqe: FQEConfig,
    rollouts: ModelValueConfig,
    chosen: ChosenModel | None,
    seed: int,
) -> RunFolder:
    """Asks the pipeline for the behaviour's value, or finds what it answered before.

    The dynamics of each fold are a fit of their own in the run store.

    Args:
        dataset: the log.
        workspace: where results go.
        estimand: what is estimated.
        fqe: of the candidates' value fits; those of the test make no more updates than they must.
        rollouts: of the model.
        chosen: the candidates' model; None leaves the model family untested.
        seed: of all draws, those of the fits included: the pipeline is tested, not one candidate's fit.
    """
    dataset.require_rewards("A back-test")
    fqe = backtest_config(fqe, estimand)
    identity = {
        "dataset": dataset.content_hash,
        "estimand": estimand.to_json(),
        "fqe": fqe.model_dump(mode="json"),
        "rollouts": rollouts.model_dump(mode="json"),
        "dynamics": None if chosen is None else _fit_identity(chosen),
        "clone": clone_identity(dataset.spec),
        "folds": FOLDS,
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        work.progress.message(_forecast(dataset, estimand, fqe, chosen))
        kept = KeptFits.of(work, "back-test: fit values", workspace.device)
        asked = EstimatorSettings(estimand, fqe, fit_values=kept, rollouts=rollouts)
        found = _ask(dataset, workspace, asked, chosen, seed)
        kept.drop()
        return {"backtest": found.model_dump(mode="json")}

    stage = Stage(
        key=StageKey("backtest", dataset.info.name, "behaviour", seed, identity),
        config={"folds": FOLDS, "seed": seed},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
    )
    return perform(stage, workspace)


def _forecast(dataset: Dataset, estimand: Estimand, fqe: FQEConfig, chosen: ChosenModel | None) -> str:
    # Who acts is no matter of time; half of the log is to be learned from.
    seconds = time_value_fit(dataset, random_policy(dataset.spec), estimand=estimand, config=fqe)
    config = None if chosen is None else chosen.fit_config
    rows = dataset.num_transitions // FOLDS
    return forecast_backtest(
        folds=FOLDS,
        updates=fqe.updates,
        seconds=seconds,
        dynamics_updates=None if config is None else config.ensemble_updates(rows),
        dynamics_seconds=0.0 if config is None else time_dynamics_fit(dataset, config),
    )


def read_backtest(run: RunFolder) -> Backtest:
    """What a finished stage found.

    Raises:
        DataError: its summary holds no back-test.
    """
    try:
        return Backtest.model_validate(run.summary().get("backtest"))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            first["msg"],
            file=run.path / "summary.json",
            field=".".join(map(str, ("backtest", *first["loc"]))),
            remedy="Delete the folder, and run mbrl ope again.",
        ) from None


def _ask(
    dataset: Dataset,
    workspace: Workspace,
    asked: EstimatorSettings,
    chosen: ChosenModel | None,
    seed: int,
) -> Backtest:
    def context_for(policy: Policy, train: Dataset) -> EstimatorContext:
        model = None if chosen is None else chosen.refitted(train, workspace, seed=seed)
        return EstimatorContext(policy, train, dataclasses.replace(asked, model=model))

    untested = _untestable(asked.fqe, asked.estimand, chosen)
    found = run_backtest(
        dataset,
        clone_behaviour,
        context_for,
        estimand=asked.estimand,
        names=[name for name in ("fqe", "model_value") if name not in untested],
        rng=RngStreams(seed).child("backtest"),
        folds=FOLDS,
    )
    z = {**found.z, **dict.fromkeys(untested)}
    return found.model_copy(update={"z": z, "why_no_z": {**found.why_no_z, **untested}})


def _untestable(fqe: FQEConfig, estimand: Estimand, chosen: ChosenModel | None) -> dict[str, str]:
    """What is not worth asking, with reasons: a fit that is too short is known to be wrong beforehand."""
    reasons: dict[str, str] = {}
    if fqe.updates < fqe.least_updates(estimand):
        reasons["fqe"] = f"{fqe.updates} updates cannot carry values over the horizon"
    if chosen is None:
        reasons["model_value"] = "no dynamics model was given"
    return reasons


def _fit_identity(chosen: ChosenModel) -> dict[str, Any]:
    config = chosen.fit_config.model_dump(mode="json")
    found = {"config" if chosen.judges is None else "judge": config, "termination": chosen.termination}
    return found if chosen.judges is None else {**found, "samples": chosen.judges.question.samples}
