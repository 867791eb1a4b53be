"""Off-policy evaluation as a stage: estimates, diagnostics, baseline and verdict in one JSON."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mbrl.core.errors import DataError, EstimandError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.experiment.backtest import backtest_stage
from mbrl.experiment.files import write_json
from mbrl.experiment.ope_model import ChosenModel, ModelRequest
from mbrl.experiment.policies import StoredPolicy
from mbrl.experiment.stages import Workspace
from mbrl.experiment.store import RunFolder, StageKey
from mbrl.ope.backtest import apply_backtest, miscalibrated_ratios
from mbrl.ope.bounds import student_interval
from mbrl.ope.diagnostics import ratio_diagnostics
from mbrl.ope.estimators import ESTIMATORS, EstimatorContext, refused
from mbrl.ope.fqe import FQEConfig
from mbrl.ope.layout import pad_log
from mbrl.ope.model_value import EvaluationModel, ModelValueConfig, model_diagnostics
from mbrl.ope.policies import DeterministicMode, action_log_prob, is_stochastic
from mbrl.ope.verdict import DEFAULT_RULE, judge

REPORT_FILE = "ope.json"


@dataclasses.dataclass(frozen=True, slots=True)
class OPESettings:
    """What is asked.

    Attributes:
        discount: of the estimand.
        horizon: steps that count; None takes the shortest time-out of the log, so that nothing of what is
            compared has to be bootstrapped, or all steps where no time-out cut an episode.
        stochastic: evaluate the policy's draws in place of its evaluation action.
        fqe: of the value fits.
        seed: of all draws.
        rollouts: of the dynamics model.
        model: which model that is.
        crossfit: folds of the values under doubly robust estimators; 0 fits all to all (see `CriticCache`).
        backtest: ask the pipeline for the behaviour's known value first; a family that misses it is left out.
    """

    discount: float = 0.99
    horizon: int | None = None
    stochastic: bool = False
    fqe: FQEConfig = dataclasses.field(default_factory=FQEConfig)
    seed: int = 0
    rollouts: ModelValueConfig = dataclasses.field(default_factory=ModelValueConfig)
    model: ModelRequest = dataclasses.field(default_factory=ModelRequest)
    crossfit: int = 0
    backtest: bool = True

    def estimand(self, dataset: Dataset) -> Estimand:
        """What is estimated on this log."""
        cut = [len(e) for e in dataset.episodes if not e.terminated]
        horizon = self.horizon if self.horizon is not None or not cut else min(cut)
        return Estimand(self.discount, horizon)


def ope_stage(
    stored: StoredPolicy,
    dataset: Dataset,
    settings: OPESettings,
    workspace: Workspace,
    *,
    chosen: ChosenModel | None = None,
) -> RunFolder:
    """Estimates a stored policy's value from a log, or finds the result of before.

    Args:
        stored: the candidate.
        dataset: the log.
        settings: what is asked.
        workspace: where the result goes.
        chosen: the dynamics model (`choose_model`), or None.
    """
    content = hashlib.blake2b(stored.path.read_bytes(), digest_size=16).hexdigest()
    estimand = settings.estimand(dataset)
    asked = {
        "estimand": estimand.to_json(),
        "stochastic": settings.stochastic,
        "fqe": settings.fqe.model_dump(mode="json"),
        "rule": DEFAULT_RULE.model_dump(mode="json"),
        "rollouts": settings.rollouts.model_dump(mode="json"),
        "dynamics": None if chosen is None else chosen.identity(),
        "crossfit": settings.crossfit,
        "backtest": settings.backtest,
    }
    identity = {"policy": content, "dataset": dataset.content_hash, **asked}
    label = str(stored.facts.get("algorithm", stored.path.stem))
    key = StageKey(
        "ope", dataset.info.name, f"{label}-s{stored.facts.get('seed', 0)}", settings.seed, identity
    )
    facts = {"dataset_hash": dataset.content_hash, "policy_facts": dict(stored.facts)}
    config = f"discount: {settings.discount}\nstochastic: {str(settings.stochastic).lower()}\n"
    with workspace.store.open(key, config=config, facts=facts) as run:
        if not run.is_done:
            policy = stored.policy if settings.stochastic else DeterministicMode(stored.policy)
            backtest = _backtest(dataset, settings, workspace, chosen) if settings.backtest else None
            model = None if chosen is None else chosen.for_evaluation(dataset)
            found = evaluate_off_policy(policy, dataset, settings, model=model, backtest=backtest)
            report = {"candidate": label, **found}
            write_json(run.path / REPORT_FILE, report)
            run.finish({"stage": key.stage, **report})
    return run


def evaluate_off_policy(
    policy: Policy,
    dataset: Dataset,
    settings: OPESettings,
    *,
    model: EvaluationModel | None = None,
    backtest: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Every registered estimator, the diagnostics, the baseline and the verdict, as plain values.

    Args:
        policy: the candidate.
        dataset: the log.
        settings: what is asked.
        model: fitted dynamics, or None.
        backtest: `Backtest.to_json` of the same pipeline; it takes families that failed out of the verdict.
    """
    estimand = settings.estimand(dataset)
    context = EstimatorContext.make(estimand, settings.fqe, crossfit=settings.crossfit)
    context = dataclasses.replace(context, model=model, rollouts=settings.rollouts)
    diagnostics, rng = _diagnostics(policy, dataset, estimand), RngStreams(settings.seed)
    estimates: list[dict[str, Any]] = []
    for name in ESTIMATORS.names():
        estimator = ESTIMATORS.get(name)(context)
        try:
            estimate = estimator.estimate(policy, dataset, generator=rng.at(name))
        except (UndefinedRatioError, EstimandError, DataError) as error:
            estimate = refused(name, "ratio", estimand, str(error))
        if backtest is not None:
            estimate = apply_backtest(estimate, backtest["z"])
        diagnostics |= model_diagnostics(estimate)
        estimates.append(_with_believed_ratios(estimate, diagnostics).to_json())
    terminated = sum(e.terminated for e in dataset.episodes)
    report: dict[str, Any] = {
        "estimand": estimand.to_json(),
        "data": {
            "name": dataset.info.name,
            "episodes": len(dataset),
            "steps": dataset.num_transitions,
            "terminals": terminated,
            "time_outs": len(dataset) - terminated,
            "length_quantiles": np.quantile(dataset.episode_lengths, [0, 0.25, 0.5, 0.75, 1]).tolist(),
            "behaviour": "given" if _is_behaviour_logged(dataset) else None,
        },
        "estimates": estimates,
        "diagnostics": diagnostics,
        "backtest": backtest,
        "baseline": _behaviour_value(dataset, estimand),
    }
    judgement = judge(report)
    return {
        **report,
        "agreement": {"families_used": list(judgement.families), "z": judgement.disagreement},
        "verdict": {
            "verdict": judgement.verdict,
            "reasons": list(judgement.reasons),
            "thresholds": DEFAULT_RULE.model_dump(mode="json"),
        },
    }


def _backtest(
    dataset: Dataset, settings: OPESettings, workspace: Workspace, chosen: ChosenModel | None
) -> Mapping[str, Any]:
    run = backtest_stage(
        dataset,
        workspace,
        estimand=settings.estimand(dataset),
        fqe=settings.fqe,
        rollouts=settings.rollouts,
        chosen=chosen,
        seed=settings.seed,
    )
    return run.summary()["backtest"]


def _with_believed_ratios(estimate: Estimate, diagnostics: Mapping[str, Any]) -> Estimate:
    """The estimate, out of the verdict if it stands on ratios whose mean is not 1."""
    z = diagnostics.get("mean_ratio_z")
    if estimate.family != "ratio" or z is None or not np.isfinite(estimate.point):
        return estimate
    problem = miscalibrated_ratios(np.array(z, dtype=np.float64))
    return estimate if problem is None else estimate.invalidated(problem).flagged("behaviour_miscalibrated")


def _behaviour_value(dataset: Dataset, estimand: Estimand) -> dict[str, Any]:
    """Mean logged return of the policy that acted; null where time-outs hide a part of it."""
    arrays = pad_log(dataset.episodes, None, estimand=estimand)
    if arrays.truncated.any():
        return {"policy": "behaviour", "value": None, "ci95": None, "reason": "time-outs cut its return"}
    returns = arrays.returns() * estimand.scale
    interval = student_interval(returns).ends
    ends = list(interval) if np.isfinite(interval).all() else None
    return {"policy": "behaviour", "value": float(returns.mean()), "ci95": ends}


def _diagnostics(policy: Policy, dataset: Dataset, estimand: Estimand) -> dict[str, Any]:
    if not is_stochastic(policy) or not _is_behaviour_logged(dataset):
        return {}
    rows = dataset.transitions()
    log_prob = action_log_prob(policy, torch.tensor(rows.observation), torch.tensor(rows.action))
    return ratio_diagnostics(pad_log(dataset.episodes, log_prob.numpy(), estimand=estimand)).to_json()


def _is_behaviour_logged(dataset: Dataset) -> bool:
    return all(e.behaviour_log_prob is not None for e in dataset.episodes)
