"""The deployment report: candidates judged side by side on one log, with a proposal and a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.ope.judgement.active import Belief, action_distance, propose_tests
from mbrl.ope.judgement.assessment import risk_section
from mbrl.ope.judgement.baseline import behaviour_baseline, policy_baseline
from mbrl.ope.judgement.conclusions import conclude
from mbrl.ope.judgement.findings import count_families
from mbrl.ope.judgement.paired import Evidence
from mbrl.ope.judgement.ranking import DRAWS, common_estimator, joint_draws, propose, rank
from mbrl.ope.judgement.report_fields import finite
from mbrl.ope.judgement.risk import RiskQuestion
from mbrl.ope.judgement.rule import DEFAULT_RULE
from mbrl.ope.log.layout import OPEArrays, pad_log
from mbrl.ope.statistics.bounds import LEVEL
from mbrl.run.files import read_json, write_json, write_text
from mbrl.run.judge.evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.run.judge.ope import REPORT_FILE
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

DEPLOYMENT_FILE: Final = "deployment.json"
PAGE: Final = "index.html"


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
class Candidate:
    """One evaluated policy.

    Attributes:
        name: unique among those that are compared.
        report: of its evaluation.
        evidence: arrays behind it.
    """

    name: str
    report: Mapping[str, Any]
    evidence: StoredEvidence

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
        whole = compare_candidates(found, other, dataset, trials=trials)
        write_json(work.path / DEPLOYMENT_FILE, whole)
        write_text(work.path / PAGE, _page(whole, dataset, command))
        return whole

    stage = Stage(
        key=StageKey("report", dataset.info.name, f"ope-{names[0]}", 0, identity),
        config={"candidates": len(runs)},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
        results=(DEPLOYMENT_FILE, PAGE),
    )
    return perform(stage, workspace)


def compare_candidates(
    candidates: Sequence[Candidate],
    baseline: Candidate | None,
    dataset: Dataset,
    *,
    trials: Trials = NO_TRIALS,
) -> dict[str, Any]:
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
    ranking, why_not = _ranking(candidates, reports)
    plan, why_no_plan = _test_plan(candidates, ranking, reports, trials)
    chosen = propose(reports, None if ranking is None else ranking["p_best"])
    return finite(
        {
            "proposed": candidates[chosen].name,
            "candidates": [candidate.name for candidate in candidates],
            "baseline": "behaviour" if baseline is None else baseline.name,
            "ranking": ranking,
            "why_no_ranking": why_not,
            "test_plan": plan,
            "why_no_test_plan": why_no_plan,
            "reports": reports,
        }
    )


def unique_names(labels: Sequence[str]) -> list[str]:
    """The labels, those that occur again with a number behind."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        names.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return names


def _load(run: RunFolder, name: str) -> Candidate:
    report = read_json(run.path / REPORT_FILE)
    return Candidate(name, report, StoredEvidence.load(run.path / EVIDENCE_FILE))


def _common_estimand(candidates: Sequence[Candidate]) -> Estimand:
    texts = {candidate.report["estimand"]["text"] for candidate in candidates}
    if len(texts) > 1:
        raise ConfigError(f"The policies were evaluated for different values: {'; '.join(sorted(texts))}.")
    fields = {k: v for k, v in candidates[0].report["estimand"].items() if k != "text"}
    return Estimand(**fields)


def _against(
    candidate: Candidate,
    baseline: Candidate | None,
    dataset: Dataset,
    plain: OPEArrays,
    level: float | None,
    count: int,
) -> dict[str, Any]:
    """One candidate's report, with differences to this baseline and intervals for this many candidates."""
    ratios = candidate.evidence.arrays(dataset, plain.estimand)
    if baseline is None:
        section = behaviour_baseline(plain, candidate.by_estimator, ratios, corrected=level)
    else:
        others = baseline.evidence.arrays(dataset, plain.estimand)
        both = None if ratios is None or others is None else (ratios, others)
        pair = (candidate.by_estimator, baseline.by_estimator)
        section = policy_baseline(baseline.name, baseline.report, pair, both, corrected=level)
    report: dict[str, Any] = {**candidate.report, "candidate": candidate.name, "baseline": section}
    if level is not None:
        report["risk"] = _with_corrected_risk(candidate, plain, ratios, level)
    reasons = {"baseline": "no family of the baseline counts"} if baseline is not None else {}
    known = {path: text for path, text in report["why_not"].items() if not path.startswith("agreement.")}
    return conclude(report, {**known, **reasons}, candidates=count)


def _with_corrected_risk(
    candidate: Candidate, plain: OPEArrays, ratios: OPEArrays | None, level: float
) -> dict[str, Any]:
    risk = candidate.report["risk"]
    question = RiskQuestion(risk["event"], risk["threshold"], risk["limit"])
    by_name = {estimate["name"]: estimate for estimate in candidate.report["estimates"]}
    rollouts = candidate.evidence.rollouts
    model = None
    if rollouts is not None:
        model = (rollouts, by_name["model_value"]["why_not"])
    wide = risk_section(plain, ratios, model, question, level=level)
    corrected = {source["source"]: source["p_violation_ci95"] for source in wide["sources"]}
    sources = [
        {**source, "p_violation_ci_corrected": corrected[source["source"]]} for source in risk["sources"]
    ]
    return {**risk, "sources": sources}


def _ranking(
    candidates: Sequence[Candidate], reports: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any] | None, str | None]:
    if len(candidates) < 2:
        return None, "one candidate has no rank"
    invalid = [count_families(report, DEFAULT_RULE)[1] for report in reports]
    chosen = common_estimator([candidate.by_estimator for candidate in candidates], invalid)
    if chosen is None:
        return None, "no primary estimator judged all candidates"
    name, is_counted = chosen
    evidence = [candidate.by_estimator[name] for candidate in candidates]
    found = rank(evidence, rng=np.random.default_rng(0))
    ranking = {
        "estimator": name,
        "counts_for_all": is_counted,
        "points": [e.point for e in evidence],
        "p_best": found.p_best.tolist(),
        "regret": found.regret,
        "regret_ci95": list(found.regret_ci95),
    }
    return ranking, None


def _test_plan(
    candidates: Sequence[Candidate],
    ranking: Mapping[str, Any] | None,
    reports: Sequence[Mapping[str, Any]],
    trials: Trials,
) -> tuple[dict[str, Any] | None, str | None]:
    """Who should be tested next, by the estimator that ranks them; or why that is not known."""
    if ranking is None:
        return None, "there is no ranking of several candidates"
    noise, actions = reports[0]["data"]["return_std"], [c.evidence.actions for c in candidates]
    if not noise:
        return None, "the logged returns do not vary"
    known = [one for one in actions if one is not None]
    if len(known) < len(actions):
        return None, "an evaluation of an earlier version does not say how its policy acts"
    evidence = [candidate.by_estimator[ranking["estimator"]] for candidate in candidates]
    errors = joint_draws(evidence, rng=np.random.default_rng(0), draws=DRAWS).std(1)
    prior = Belief.prior(np.array([e.point for e in evidence]), errors, action_distance(known))
    names = [candidate.name for candidate in candidates]
    plan = propose_tests(names, prior, noise=noise, tested=trials.returns, episodes=trials.episodes)
    return {"estimator": ranking["estimator"], **plan}, None


def _page(whole: Mapping[str, Any], dataset: Dataset, command: str) -> str:
    from mbrl.report.deployment.page import deployment_page

    return deployment_page(
        whole,
        provenance={"dataset": dataset.info.name, "dataset hash": dataset.content_hash, "command": command},
    )
