"""Off-policy evaluation as a stage: estimates, diagnostics, baseline and verdict in one JSON."""

import dataclasses
import hashlib
from typing import Any

import torch

from mbrl.core.errors import DataError, EstimandError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.experiment.files import write_json
from mbrl.experiment.ope_evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.experiment.policies import StoredPolicy
from mbrl.experiment.stages import Workspace
from mbrl.experiment.store import RunFolder, StageKey
from mbrl.ope.assessment import assess
from mbrl.ope.conclusions import conclude
from mbrl.ope.estimators import ESTIMATORS, EstimatorContext
from mbrl.ope.fqe import FQEConfig
from mbrl.ope.layout import OPEArrays, pad_log
from mbrl.ope.policies import DeterministicMode, action_log_prob
from mbrl.ope.risk import RiskQuestion
from mbrl.ope.rule import DEFAULT_RULE

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
        risk: event whose probability is estimated.
    """

    discount: float = 0.99
    horizon: int | None = None
    stochastic: bool = False
    fqe: FQEConfig = dataclasses.field(default_factory=FQEConfig)
    seed: int = 0
    risk: RiskQuestion = dataclasses.field(default_factory=RiskQuestion)

    def estimand(self, dataset: Dataset) -> Estimand:
        """What is estimated on this log."""
        cut = [len(e) for e in dataset.episodes if not e.terminated]
        horizon = self.horizon if self.horizon is not None or not cut else min(cut)
        return Estimand(self.discount, horizon)


def ope_stage(
    stored: StoredPolicy, dataset: Dataset, settings: OPESettings, workspace: Workspace
) -> RunFolder:
    """Estimates a stored policy's value from a log, or finds the result of before.

    Args:
        stored: the candidate.
        dataset: the log.
        settings: what is asked.
        workspace: where the result goes.
    """
    content = hashlib.blake2b(stored.path.read_bytes(), digest_size=16).hexdigest()
    estimand = settings.estimand(dataset)
    asked = {
        "estimand": estimand.to_json(),
        "stochastic": settings.stochastic,
        "fqe": settings.fqe.model_dump(mode="json"),
        "risk": settings.risk.to_json(),
        "rule": DEFAULT_RULE.model_dump(mode="json"),
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
            found, evidence = evaluate_with_evidence(policy, dataset, settings)
            report = {"candidate": label, **found}
            evidence.save(run.path / EVIDENCE_FILE)
            write_json(run.path / REPORT_FILE, report)
            run.finish({"stage": key.stage, **report})
    return run


def evaluate_off_policy(policy: Policy, dataset: Dataset, settings: OPESettings) -> dict[str, Any]:
    """Every registered estimator, the diagnostics, the baseline and the verdict, as plain values."""
    return evaluate_with_evidence(policy, dataset, settings)[0]


def evaluate_with_evidence(
    policy: Policy, dataset: Dataset, settings: OPESettings
) -> tuple[dict[str, Any], StoredEvidence]:
    """The report, and the arrays that a comparison with other policies needs."""
    estimand = settings.estimand(dataset)
    context, rng = EstimatorContext.make(estimand, settings.fqe), RngStreams(settings.seed)
    estimates: dict[str, Estimate] = {}
    for name in ESTIMATORS.names():
        estimator = ESTIMATORS.get(name)(context)
        try:
            estimates[name] = estimator.estimate(policy, dataset, generator=rng.at(name))
        except (UndefinedRatioError, EstimandError, DataError) as error:
            estimates[name] = _refusal(name, estimand, str(error))
    arrays = _ratio_arrays(policy, dataset, estimand)
    found, reasons = assess(
        policy, dataset, estimates, arrays, question=settings.risk, generator=rng.at("support")
    )
    report = conclude(
        {"estimates": [estimate.to_json() for estimate in estimates.values()], **found}, reasons
    )
    return report, StoredEvidence.of(estimates, arrays)


def _refusal(name: str, estimand: Estimand, reason: str) -> Estimate:
    nothing = float("nan")
    return Estimate(
        name,
        "ratio",
        point=nothing,
        se=nothing,
        ci95=(nothing, nothing),
        method_of_ci="none: refused",
        n_eff=0.0,
        estimand=estimand,
        valid=False,
        why_not=reason,
    )


def _ratio_arrays(policy: Policy, dataset: Dataset, estimand: Estimand) -> OPEArrays | str:
    """The log with the policy's ratios, or why there are none."""
    rows = dataset.transitions()
    try:
        log_prob = action_log_prob(policy, torch.tensor(rows.observation), torch.tensor(rows.action))
        return pad_log(
            dataset.episodes,
            log_prob.numpy(),
            estimand=estimand,
            is_discrete=isinstance(policy, DiscretePolicy),
        )
    except (UndefinedRatioError, DataError) as error:
        return str(error)
