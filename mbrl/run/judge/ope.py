"""Off-policy evaluation as a stage: estimates, diagnostics, baseline and verdict in one JSON."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from mbrl.core.errors import DataError, EstimandError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.ope.estimators.base import ESTIMATORS, refused
from mbrl.ope.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.ope.judgement.active import comparable_actions
from mbrl.ope.judgement.assessment import assess
from mbrl.ope.judgement.backtest import apply_backtest, miscalibrated_ratios
from mbrl.ope.judgement.blend import blend_primaries
from mbrl.ope.judgement.conclusions import conclude
from mbrl.ope.judgement.risk import RiskQuestion
from mbrl.ope.judgement.rule import DEFAULT_RULE
from mbrl.ope.log.diagnostics import ratio_diagnostics
from mbrl.ope.log.layout import OPEArrays
from mbrl.ope.log.policies import DeterministicMode
from mbrl.ope.value.fqe import FitValues, FQEConfig, fit_fqe
from mbrl.ope.value.model_value import EvaluationModel, ModelValueConfig
from mbrl.run.files import write_json
from mbrl.run.judge.backtest import backtest_stage
from mbrl.run.judge.evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.run.judge.model import ChosenModel, ModelRequest
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.policies import StoredPolicy
from mbrl.run.stages import Workspace
from mbrl.run.store import RunFolder, StageKey

_BEHAVIOUR_FACTS: Final = ("behaviour", "fit_nll", "calibration_error", "floored_rows")

_COMPARED_STATES: Final = 500
"""About how many logged states tell how alike two policies act."""

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
        crossfit: folds of the values under doubly robust estimators, see `EstimatorSettings`.
        backtest: ask the pipeline for the behaviour's known value first; a family that misses it is left out.
        risk: event whose probability is estimated.
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
    risk: RiskQuestion = dataclasses.field(default_factory=RiskQuestion)

    def estimand(self, dataset: Dataset) -> Estimand:
        """What is estimated on this log."""
        cut = [len(e) for e in dataset.episodes if not e.terminated]
        horizon = self.horizon if self.horizon is not None or not cut else min(cut)
        return Estimand(self.discount, horizon)


def candidate_label(stored: StoredPolicy) -> str:
    """How a report names a policy: what trained it, and the seed of that."""
    return f"{stored.facts.get('algorithm', stored.path.stem)}-s{stored.facts.get('seed', 0)}"


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
        "risk": settings.risk.to_json(),
        "rule": DEFAULT_RULE.model_dump(mode="json"),
        "rollouts": settings.rollouts.model_dump(mode="json"),
        "dynamics": None if chosen is None else chosen.identity(),
        "crossfit": settings.crossfit,
        "backtest": settings.backtest,
        "estimators": ESTIMATORS.names(),
    }
    identity = {"policy": content, "dataset": dataset.content_hash, **asked}
    label = candidate_label(stored)
    key = StageKey("ope", dataset.info.name, label, settings.seed, identity)
    facts = {"dataset_hash": dataset.content_hash, "policy_facts": dict(stored.facts)}
    config = f"discount: {settings.discount}\nstochastic: {str(settings.stochastic).lower()}\n"
    with workspace.store.open(key, config=config, facts=facts) as run:
        if not run.is_done:
            policy = stored.policy if settings.stochastic else DeterministicMode(stored.policy)
            backtest = _backtest(dataset, settings, workspace, chosen) if settings.backtest else None
            model = None if chosen is None else chosen.for_evaluation(dataset)
            kept = KeptFits(
                run.path / "checkpoints", key.digest, workspace.progress, f"fit values of {label}"
            )
            found, evidence = evaluate_with_evidence(
                policy, dataset, settings, model=model, backtest=backtest, fit_values=kept
            )
            report = {"candidate": label, **found}
            evidence.save(run.path / EVIDENCE_FILE)
            write_json(run.path / REPORT_FILE, report)
            run.finish({"stage": key.stage, **report})
            kept.drop()
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
    return evaluate_with_evidence(policy, dataset, settings, model=model, backtest=backtest)[0]


def evaluate_with_evidence(
    policy: Policy,
    dataset: Dataset,
    settings: OPESettings,
    *,
    model: EvaluationModel | None = None,
    backtest: Mapping[str, Any] | None = None,
    fit_values: FitValues = fit_fqe,
) -> tuple[dict[str, Any], StoredEvidence]:
    """`evaluate_off_policy` by a given way to fit, and the arrays that a comparison of policies needs."""
    estimand, rng = settings.estimand(dataset), RngStreams(settings.seed)
    asked = EstimatorSettings(
        estimand,
        settings.fqe,
        crossfit=settings.crossfit,
        fit_values=fit_values,
        model=model,
        rollouts=settings.rollouts,
    )
    context = EstimatorContext(policy, dataset, asked)
    arrays = _ratios(context)
    problem = None if isinstance(arrays, str) else _problem_of_ratios(arrays)
    estimates: dict[str, Estimate] = {}
    for name in ESTIMATORS.names():
        entry = ESTIMATORS.get(name)
        try:
            estimate = entry.estimate(context, generator=rng.at(name))
        except (UndefinedRatioError, EstimandError, DataError) as error:
            estimate = refused(name, entry.family, estimand, str(error))
        if backtest is not None:
            estimate = apply_backtest(estimate, backtest["z"])
        if problem is not None and estimate.family == "ratio" and np.isfinite(estimate.point):
            estimate = estimate.invalidated(problem).flagged("behaviour_miscalibrated")
        estimates[name] = estimate
    found, reasons = assess(
        policy, dataset, estimates, arrays, question=settings.risk, generator=rng.at("support")
    )
    facts = context.behaviour_facts()
    found["data"] |= {name: facts[name] for name in _BEHAVIOUR_FACTS}
    if backtest is not None:
        found["backtest"] = backtest
    blend = blend_primaries(estimates, least_ess=DEFAULT_RULE.least_ess)
    shown = [*estimates.values(), *([] if blend is None else [blend])]
    report = conclude({"estimates": [estimate.to_json() for estimate in shown], **found}, reasons)
    states = dataset.transitions().observation
    some = torch.tensor(states[:: max(1, len(states) // _COMPARED_STATES)])
    return report, StoredEvidence.of(estimates, arrays, comparable_actions(policy, some, dataset.spec))


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


def _ratios(context: EstimatorContext) -> OPEArrays | str:
    """The log with the policy's ratios, or why there are none."""
    try:
        return context.ratio_arrays()
    except (UndefinedRatioError, DataError) as error:
        return str(error)


def _problem_of_ratios(arrays: OPEArrays) -> str | None:
    """Why no ratio is believed: their means are not 1."""
    z = ratio_diagnostics(arrays).to_json()["mean_ratio_z"]
    return miscalibrated_ratios(np.array(z, dtype=np.float64))
