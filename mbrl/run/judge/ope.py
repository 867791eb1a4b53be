"""Off-policy evaluation as a stage: estimates, diagnostics, baseline and verdict in one JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from mbrl.core.errors import DataError, EstimandError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.base import ESTIMATORS, refused
from mbrl.off_policy.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.off_policy.judgement.active import comparable_actions
from mbrl.off_policy.judgement.assessment import assess
from mbrl.off_policy.judgement.backtest import apply_backtest, miscalibrated_ratios
from mbrl.off_policy.judgement.blend import blend_primaries
from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.paired import evidence_of, paired_z
from mbrl.off_policy.judgement.report.documents import REPORT_VERSION, OPEReport
from mbrl.off_policy.judgement.report.measured import Backtest, ReportedEstimate
from mbrl.off_policy.judgement.risk import RiskQuestion
from mbrl.off_policy.judgement.rule import DEFAULT_RULE
from mbrl.off_policy.log.diagnostics import ratio_diagnostics
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.policies import as_deployed
from mbrl.off_policy.log.weights import PLAIN, WeightTransform
from mbrl.off_policy.value.fqe import FitValues, FQEConfig, fit_fqe
from mbrl.off_policy.value.model_value import EvaluationModel, ModelValueConfig
from mbrl.run.files import write_json
from mbrl.run.judge.backtest import backtest_stage, read_backtest
from mbrl.run.judge.evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.run.judge.forecast import forecast_estimates, time_value_fit
from mbrl.run.judge.model import ChosenModel, ModelRequest
from mbrl.run.judge.question import RETURN_DISCOUNT, asked_estimand, asked_horizon
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.policies import StoredPolicy
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

_COMPARED_STATES: Final = 500
"""About how many logged states tell how alike two policies act."""

REPORT_FILE: Final = "ope.json"
"""The report of one candidate."""


@dataclasses.dataclass(frozen=True, slots=True)
class OPESettings:
    """What is asked.

    Attributes:
        discount: of the estimand.
        horizon: steps that count; None takes the whole task (`asked_horizon`).
        stochastic: evaluate the policy's draws in place of its evaluation action.
        fqe: of the value fits.
        seed: of all draws.
        rollouts: of the dynamics model.
        model: which model that is.
        crossfit: folds of the values under doubly robust estimators, see `EstimatorSettings`.
        backtest: ask the pipeline for the behaviour's known value first; a family that misses it is left out.
        risk: event whose probability is estimated.
        weights: changes of the weights of all estimators that have some.
    """

    discount: float = RETURN_DISCOUNT
    horizon: int | None = None
    stochastic: bool = False
    fqe: FQEConfig = dataclasses.field(default_factory=FQEConfig)
    seed: int = 0
    rollouts: ModelValueConfig = dataclasses.field(default_factory=ModelValueConfig)
    model: ModelRequest = dataclasses.field(default_factory=ModelRequest)
    crossfit: int = 0
    backtest: bool = False
    risk: RiskQuestion = dataclasses.field(default_factory=RiskQuestion)
    weights: WeightTransform = PLAIN

    def estimand(self, dataset: Dataset) -> Estimand:
        """What is estimated on this log."""
        return asked_estimand(dataset, discount=self.discount, steps=self.horizon)


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
    dataset.require_rewards("Off-policy evaluation")
    asked = _asked(settings, dataset, chosen)
    identity = {"policy": stored.content, "dataset": dataset.content_hash, **asked}
    label = stored.title

    def work(work: StageWork) -> Mapping[str, Any]:
        policy = stored.policy if settings.stochastic else as_deployed(stored.policy)
        backtest = _backtest(dataset, settings, workspace, chosen) if settings.backtest else None
        if not (work.path / "checkpoints").exists():  # what goes on was told before
            work.progress.message(_forecast(label, policy, dataset, settings))
        model = None if chosen is None else chosen.for_evaluation(dataset)
        kept = KeptFits.of(work, f"fit values of {label}", workspace.device)
        found, evidence = evaluate_with_evidence(
            policy, dataset, settings, model=model, backtest=backtest, fit_values=kept
        )
        report = found.named(label).to_json()
        evidence.save(work.path / EVIDENCE_FILE)
        write_json(work.path / REPORT_FILE, report)
        kept.drop()
        return report

    stage = Stage(
        key=StageKey("ope", dataset.info.name, label, settings.seed, identity),
        config={"discount": settings.discount, "stochastic": settings.stochastic},
        facts={"dataset_hash": dataset.content_hash, "policy_facts": dict(stored.facts)},
        work=work,
        results=(EVIDENCE_FILE, REPORT_FILE),
    )
    return perform(stage, workspace)


def _asked(settings: OPESettings, dataset: Dataset, chosen: ChosenModel | None) -> dict[str, Any]:
    """The part of a stage's identity that says what is asked."""
    return {
        "report": REPORT_VERSION,
        "estimand": settings.estimand(dataset).to_json(),
        "stochastic": settings.stochastic,
        "fqe": settings.fqe.model_dump(mode="json"),
        "risk": settings.risk.to_json(),
        "rule": DEFAULT_RULE.model_dump(mode="json"),
        "rollouts": settings.rollouts.model_dump(mode="json"),
        "dynamics": None if chosen is None else chosen.identity(),
        "crossfit": settings.crossfit,
        "backtest": settings.backtest,
        "weights": settings.weights.model_dump(mode="json"),
        "estimators": ESTIMATORS.names(),
    }


def evaluate_off_policy(
    policy: Policy,
    dataset: Dataset,
    settings: OPESettings,
    *,
    model: EvaluationModel | None = None,
    backtest: Backtest | None = None,
) -> OPEReport:
    """Every registered estimator, the diagnostics, the baseline and the verdict.

    Args:
        policy: the candidate.
        dataset: the log.
        settings: what is asked.
        model: fitted dynamics, or None.
        backtest: of the same pipeline; it takes families that failed out of the verdict.
    """
    return evaluate_with_evidence(policy, dataset, settings, model=model, backtest=backtest)[0]


def evaluate_with_evidence(
    policy: Policy,
    dataset: Dataset,
    settings: OPESettings,
    *,
    model: EvaluationModel | None = None,
    backtest: Backtest | None = None,
    fit_values: FitValues = fit_fqe,
) -> tuple[OPEReport, StoredEvidence]:
    """`evaluate_off_policy` by a given way to fit, and the arrays that a comparison of policies needs."""
    rng = RngStreams(settings.seed)
    asked = EstimatorSettings(
        settings.estimand(dataset),
        settings.fqe,
        crossfit=settings.crossfit,
        fit_values=fit_values,
        weights=settings.weights,
        model=model,
        rollouts=settings.rollouts,
    )
    context = EstimatorContext(policy, dataset, asked)
    arrays = _ratios(context)
    estimates = _ask_all(context, arrays, backtest, rng)
    if not isinstance(arrays, str) and context.needs_tail:
        # What estimators took in place of what cuts left out; comparisons with other policies take it too.
        arrays = context.ratio_arrays(context.values_on_log(rng.at("tails"), is_corrected=True))
    measured = assess(
        policy,
        dataset,
        estimates,
        arrays,
        behaviour=context.behaviour_facts(),
        question=settings.risk,
        generator=rng.at("support"),
    )
    blend = blend_primaries(estimates, least_ess=DEFAULT_RULE.least_ess)
    shown = [*measured.estimates, *([] if blend is None else [ReportedEstimate.of(blend)])]
    source = asked_horizon(dataset, settings.horizon).source
    measured = measured.model_copy(
        update={"estimates": tuple(shown), "backtest": backtest, "horizon_source": source}
    )
    report = conclude(measured, paired_z=paired_z(evidence_of(estimates)))
    states = dataset.transitions().observation
    some = torch.tensor(states[:: max(1, len(states) // _COMPARED_STATES)])
    return report, StoredEvidence.of(estimates, arrays, comparable_actions(policy, some, dataset.spec))


def _ask_all(
    context: EstimatorContext, arrays: OPEArrays | str, backtest: Backtest | None, rng: RngStreams
) -> dict[str, Estimate]:
    """Every registered estimator's answer, out of the verdict where its back-test says so.

    Args:
        context: the question, and what estimators share.
        arrays: the log with the policy's ratios, or why there are none.
        backtest: of the same pipeline.
        rng: streams, one for each estimator.
    """
    problem = None if isinstance(arrays, str) else _problem_of_ratios(arrays)
    estimates: dict[str, Estimate] = {}
    for name in ESTIMATORS.names():
        entry = ESTIMATORS.get(name)
        if entry.is_one_step and not context.is_one_step:
            continue  # a second name of what the sequence is asked anyway
        try:
            estimate = entry.estimate(context, generator=rng.at(name))
        except (UndefinedRatioError, EstimandError, DataError) as error:
            estimate = refused(name, entry.family, context.estimand, str(error))
        if backtest is not None:
            estimate = apply_backtest(estimate, backtest.z)
        if problem is not None and estimate.family == "ratio" and np.isfinite(estimate.point):
            estimate = estimate.invalidated(problem, Flag.BEHAVIOUR_MISCALIBRATED)
        estimates[name] = estimate
    return estimates


def _backtest(
    dataset: Dataset, settings: OPESettings, workspace: Workspace, chosen: ChosenModel | None
) -> Backtest:
    run = backtest_stage(
        dataset,
        workspace,
        estimand=settings.estimand(dataset),
        fqe=settings.fqe,
        rollouts=settings.rollouts,
        chosen=chosen,
        seed=settings.seed,
    )
    return read_backtest(run)


def _forecast(label: str, policy: Policy, dataset: Dataset, settings: OPESettings) -> str:
    """What is about to be done for a candidate; nothing is timed where no value fit is possible."""
    try:
        estimand = settings.estimand(dataset)
        seconds = time_value_fit(dataset, policy, estimand=estimand, config=settings.fqe)
    except (DataError, EstimandError):
        return f"{label}: estimates without value fits."
    fits = 2 if settings.crossfit else 1
    return forecast_estimates(label, fits=fits, updates=settings.fqe.updates, seconds=seconds)


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
