"""The deployment report: candidates judged side by side on one log, with a proposal and a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.off_policy.judgement.active import Belief, action_distance, plan_trials
from mbrl.off_policy.judgement.baseline import baseline_reasons, behaviour_baseline, policy_baseline
from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.families import BEHAVIOUR, count_families
from mbrl.off_policy.judgement.paired import Evidence
from mbrl.off_policy.judgement.ranking import DRAWS, joint_draws, propose, rank
from mbrl.off_policy.judgement.report.concluded import Ranking, TrialPlan
from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.off_policy.judgement.report.measured import Risk
from mbrl.off_policy.judgement.risk import RiskQuestion, risk_section, with_corrected_intervals
from mbrl.off_policy.judgement.rule import DEFAULT_RULE
from mbrl.off_policy.log.layout import OPEArrays, pad_log
from mbrl.off_policy.statistics.bounds import LEVEL
from mbrl.run.files import write_json, write_text
from mbrl.run.judge.evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.run.judge.ope import REPORT_FILE
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

DEPLOYMENT_FILE: Final = "deployment.json"
"""The report on all candidates."""

PAGE: Final = "index.html"
"""The same for people."""

_KEPT: Final = ("estimand", "data", "diagnostics", "backtest", "risk")
"""Sections that a comparison takes over from the evaluation, and with them the reasons of what is missing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trials:
    """Trials on the machine.

    Attributes:
        returns: that were seen, by name of the candidate (`read_tested`).
        episodes: that may be run next.
    """

    returns: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict[str, Sequence[float]])
    episodes: int = 10


NO_TRIALS: Final = Trials()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EvaluatedPolicy:
    """A policy with its report, to be compared with others.

    Attributes:
        report: of its evaluation, under a name that is unique among those that are compared.
        evidence: arrays behind it.
    """

    report: OPEReport
    evidence: StoredEvidence

    @property
    def name(self) -> str:
        """Under which it is compared."""
        return self.report.candidate

    @property
    def by_estimator(self) -> Mapping[str, Evidence]:
        """Influence values and members."""
        return self.evidence.by_estimator


def deployment_stage(
    runs: Sequence[RunFolder],
    baseline: RunFolder | None,
    dataset: Dataset,
    workspace: Workspace,
    *,
    trials: Trials = NO_TRIALS,
    command: str = "mbrl ope",
) -> RunFolder:
    """Judges evaluated policies side by side, or finds the result of before.

    Args:
        runs: evaluations on this log with the same settings, one for each candidate.
        baseline: evaluation of what they are compared with; None for the policy that acted.
        dataset: the log.
        workspace: where the result goes.
        trials: what was tested on the machine, and how much may be tested next.
        command: that makes the page again.
    """
    identity = {
        "candidates": [run.manifest()["hash"] for run in runs],
        "baseline": None if baseline is None else baseline.manifest()["hash"],
        "rule": DEFAULT_RULE.model_dump(mode="json"),
    }
    names = unique_names([run.manifest()["label"] for run in runs])
    if len(runs) > 1:
        identity |= {"trials": dataclasses.asdict(trials)}

    def work(work: StageWork) -> Mapping[str, Any]:
        found = [_load(folder, name) for folder, name in zip(runs, names, strict=True)]
        other = None if baseline is None else _load(baseline, baseline.manifest()["label"])
        report = compare_candidates(found, other, dataset, trials=trials)
        write_json(work.path / DEPLOYMENT_FILE, report.to_json())
        write_text(work.path / PAGE, _page(report, dataset, command))
        return report.to_json()

    stage = Stage(
        key=StageKey("report", dataset.info.name, f"ope-{names[0]}", 0, identity),
        config={"candidates": len(runs)},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
        results=(DEPLOYMENT_FILE, PAGE),
    )
    return perform(stage, workspace)


def compare_candidates(
    candidates: Sequence[EvaluatedPolicy],
    baseline: EvaluatedPolicy | None,
    dataset: Dataset,
    *,
    trials: Trials = NO_TRIALS,
) -> DeploymentReport:
    """Reports against the baseline, with joint draws and a proposal where there are several.

    Args:
        candidates: evaluated on this log.
        baseline: what they are compared with; None for the policy that acted.
        dataset: the log.
        trials: what was tested on the machine, and how much may be tested next.

    Raises:
        ConfigError: they were evaluated for different estimands.
    """
    estimand = _common_estimand([*candidates, *([] if baseline is None else [baseline])])
    count = len(candidates)
    level = None if count == 1 else 1 - (1 - LEVEL) / count
    plain = pad_log(dataset.episodes, None, estimand=estimand)
    reports = [_against(c, baseline, dataset, plain, level, count) for c in candidates]
    invalid = [count_families(report, DEFAULT_RULE)[1] for report in reports]
    found = rank([c.by_estimator for c in candidates], invalid, rng=np.random.default_rng(0))
    ranking = None if isinstance(found, str) else found
    plan = _plan_trials(candidates, ranking, reports[0].data.return_std, trials)
    chosen = propose(reports, None if ranking is None else ranking.p_best)
    return DeploymentReport(
        proposed=candidates[chosen].name,
        candidates=tuple(candidate.name for candidate in candidates),
        baseline=BEHAVIOUR if baseline is None else baseline.name,
        ranking=ranking,
        why_no_ranking=found if isinstance(found, str) else None,
        test_plan=None if isinstance(plan, str) else plan,
        why_no_test_plan=plan if isinstance(plan, str) else None,
        reports=tuple(reports),
    )


def unique_names(labels: Sequence[str]) -> list[str]:
    """The labels, those that occur again with a number behind."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        names.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return names


def _load(run: RunFolder, name: str) -> EvaluatedPolicy:
    report = OPEReport.load(run.path / REPORT_FILE)
    return EvaluatedPolicy(report.named(name), StoredEvidence.load(run.path / EVIDENCE_FILE))


def _common_estimand(candidates: Sequence[EvaluatedPolicy]) -> Estimand:
    texts = {candidate.report.estimand.describe() for candidate in candidates}
    if len(texts) > 1:
        raise ConfigError(f"The policies were evaluated for different values: {'; '.join(sorted(texts))}.")
    return candidates[0].report.estimand


def _against(
    candidate: EvaluatedPolicy,
    baseline: EvaluatedPolicy | None,
    dataset: Dataset,
    plain: OPEArrays,
    level: float | None,
    count: int,
) -> OPEReport:
    """One candidate's report, with differences to this baseline and intervals for this many candidates."""
    ratios = candidate.evidence.arrays(dataset, plain.estimand)
    if baseline is None:
        section = behaviour_baseline(plain, candidate.by_estimator, ratios, corrected=level)
    else:
        others = baseline.evidence.arrays(dataset, plain.estimand)
        both = None if ratios is None or others is None else (ratios, others)
        pair = (candidate.by_estimator, baseline.by_estimator)
        section = policy_baseline(baseline.report, pair, both, corrected=level)
    old = candidate.report
    risk = old.risk if level is None else _with_corrected_risk(candidate, plain, ratios, level)
    kept = {path: text for path, text in old.why_not.items() if path.partition(".")[0] in _KEPT}
    return conclude(
        old.model_copy(update={"baseline": section, "risk": risk}),
        reasons={**kept, **baseline_reasons(section, plain)},
        paired_z=old.agreement.paired_z,
        candidates=count,
    )


def _with_corrected_risk(
    candidate: EvaluatedPolicy, plain: OPEArrays, ratios: OPEArrays | None, level: float
) -> Risk:
    """The candidate's risk, with intervals at the level that holds for all candidates beside its own."""
    risk, rollouts = candidate.report.risk, candidate.evidence.rollouts
    question = RiskQuestion(risk.event, risk.threshold, risk.limit)
    model = candidate.report.estimate("model_value")
    imagined = None if rollouts is None or model is None else (rollouts, model.why_not)
    return with_corrected_intervals(risk, risk_section(plain, ratios, imagined, question, level=level))


def _plan_trials(
    candidates: Sequence[EvaluatedPolicy], ranking: Ranking | None, noise: float | None, trials: Trials
) -> TrialPlan | str:
    """Whom to test next, by the estimator that ranks them; or why that is not known."""
    if ranking is None:
        return "there is no ranking of several candidates"
    if not noise:
        return "the logged returns do not vary"
    actions = [c.evidence.actions for c in candidates]
    known = [one for one in actions if one is not None]
    if len(known) < len(actions):
        return "an evaluation of an earlier version does not say how its policy acts"
    evidence = [candidate.by_estimator[ranking.estimator] for candidate in candidates]
    errors = joint_draws(evidence, rng=np.random.default_rng(0), draws=DRAWS).std(1)
    prior = Belief.prior(np.array([e.point for e in evidence]), errors, action_distance(known))
    return plan_trials(
        [candidate.name for candidate in candidates],
        prior,
        estimator=ranking.estimator,
        noise=noise,
        returns=trials.returns,
        episodes=trials.episodes,
    )


def _page(report: DeploymentReport, dataset: Dataset, command: str) -> str:
    from mbrl.report.deployment.page import deployment_page

    return deployment_page(
        report,
        provenance={"dataset": dataset.info.name, "dataset hash": dataset.content_hash, "command": command},
    )
