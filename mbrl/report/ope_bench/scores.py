"""What a benchmark of off-policy evaluation found: facts, scores of estimators, tables."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mbrl.core.estimates import finite_or_none
from mbrl.ope.judgement.selection import (
    Metric,
    MetricFn,
    absolute_error,
    false_alarms,
    kendall,
    missed_alarms,
    policy_interval,
    regret_at,
    spearman,
)
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_count, format_share
from mbrl.report.ope_bench.rules import rule_table

LEAST_ANSWERS: Final = 3
"""Answered policies from which on a rank correlation is reported."""

_GOES: Final = ("go", "go_with_guard")
_SEED: Final = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one estimator says of one policy.

    Attributes:
        point: the estimate; NaN if it refused.
        low: lower end of its 95 % interval; NaN without one.
        high: upper end; NaN without one.
        is_valid: whether it may enter a verdict.
    """

    point: float
    low: float
    high: float
    is_valid: bool

    @property
    def has_interval(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclasses.dataclass(frozen=True, slots=True)
class JudgedPolicy:
    """One policy evaluated from one log.

    Attributes:
        label: of the policy.
        truth: its value in the simulator.
        truth_se: standard error of that; NaN from one episode.
        answers: by estimator.
        verdict: of the report against the behaviour, or "" if it was not made.
        by_rule: the verdict under other thresholds (`mbrl.report.ope_bench.rules`), by their label.
    """

    label: str
    truth: float
    truth_se: float
    answers: Mapping[str, Answer]
    verdict: str
    by_rule: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


@dataclasses.dataclass(frozen=True, slots=True)
class BenchLog:
    """One log of one task, with all policies.

    Attributes:
        task: label.
        label: of the log.
        estimand: in words.
        baseline: mean logged value of the behaviour; NaN if unknown.
        policies: those with a known value and at least one answer.
        planned: how many policies there should be.
    """

    task: str
    label: str
    estimand: str
    baseline: float
    policies: tuple[JudgedPolicy, ...]
    planned: int


@dataclasses.dataclass(frozen=True, slots=True)
class OPEBench:
    """All that a benchmark found.

    Attributes:
        name: of the benchmark.
        logs: in order.
        failures: what failed and why, by task.
        seconds: wall time of all tasks together.
        provenance: settings, versions, the command.
        peer: name of another library's answers; "" without.
    """

    name: str
    logs: tuple[BenchLog, ...]
    failures: Mapping[str, str]
    seconds: float
    provenance: Mapping[str, Any]
    peer: str = ""

    @property
    def estimators(self) -> tuple[str, ...]:
        """Names of all that were asked, in order."""
        policies = [policy for log in self.logs for policy in log.policies]
        return tuple(dict.fromkeys(name for policy in policies for name in policy.answers))

    def compared(self) -> Iterator[tuple[JudgedPolicy, bool]]:
        """Every policy, with whether its true value reaches the behaviour's; of logs where that is known."""
        for log in self.logs:
            if math.isfinite(log.baseline):
                yield from ((policy, policy.truth >= log.baseline) for policy in log.policies)

    @property
    def is_complete(self) -> bool:
        """Whether every policy was judged."""
        return not self.failures and all(len(log.policies) == log.planned for log in self.logs)


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """How good one estimator is on one log.

    Attributes:
        estimator: its name.
        asked: policies.
        answered: policies of which it gave a number.
        valid: policies of which it gave a number that may enter a verdict.
        metrics: of the answered policies, by name.
        intervals: 95 % intervals over policies, of the rank correlation; by name.
        covered: for every interval whether it holds the true value.
        covered_valid: the same of the valid answers alone.
    """

    estimator: str
    asked: int
    answered: int
    valid: int
    metrics: Mapping[str, Metric]
    intervals: Mapping[str, tuple[float, float]]
    covered: tuple[bool, ...]
    covered_valid: tuple[bool, ...]


def score_estimator(log: BenchLog, name: str, *, peer: str = "", resamples: int = 1000) -> Score:
    """Holds an estimator against the true values of the policies of a log.

    The regret is against the best of all policies: one of which the estimator says nothing cannot be chosen.
    The rank correlation of the peer is that of the policies which the estimator answered, easy or hard.

    Args:
        log: policies with their values.
        name: of the estimator.
        peer: name of another library's answers, for `peer_spearman`; "" without.
        resamples: of the intervals over policies; 0 leaves them out.
    """
    known = [policy for policy in log.policies if _is_answered(policy, name)]
    truth = np.array([policy.truth for policy in known])
    guess = np.array([policy.answers[name].point for policy in known])
    all_truth = np.array([policy.truth for policy in log.policies])
    chosen = np.array([p.answers[name].point if _is_answered(p, name) else -math.inf for p in log.policies])
    functions = _metric_functions(log.baseline)
    metrics = {key: _applied(metric, truth, guess) for key, metric in functions.items()}
    metrics["regret"] = _applied(regret_at, all_truth, chosen)
    metrics["peer_spearman"] = _peer_spearman(known, peer)
    intervals: dict[str, tuple[float, float]] = {}
    if resamples and known:
        rng = np.random.default_rng(_SEED)
        ends = policy_interval(spearman, truth, guess, rng=rng, resamples=resamples).ends
        intervals["spearman"] = ends
    with_ends = [
        (policy.truth, policy.answers[name]) for policy in known if policy.answers[name].has_interval
    ]
    return Score(
        estimator=name,
        asked=len(log.policies),
        answered=len(known),
        valid=sum(policy.answers[name].is_valid for policy in known),
        metrics=metrics,
        intervals=intervals,
        covered=tuple(answer.low <= true <= answer.high for true, answer in with_ends),
        covered_valid=tuple(
            answer.low <= true <= answer.high for true, answer in with_ends if answer.is_valid
        ),
    )


def total_table(bench: OPEBench) -> Table:
    """One row an estimator: means over logs, counts over all policies."""
    rows: list[Sequence[Cell]] = []
    for name in bench.estimators:
        scores = [score_estimator(log, name, peer=bench.peer, resamples=0) for log in bench.logs]
        rows.append(_row(name, scores))
    tasks = {log.task for log in bench.logs}
    where = f"{format_count(len(bench.logs), 'log')} of {format_count(len(tasks), 'task')}"
    caption = f"{bench.name}: means over {where}"
    return Table(caption, _COLUMNS, rows)


def log_table(bench: OPEBench, log: BenchLog) -> Table:
    """One row an estimator, on one log."""
    rows = [
        _row(name, [score_estimator(log, name, peer=bench.peer, resamples=0)]) for name in bench.estimators
    ]
    caption = f"{log.label}: {len(log.policies)} policies, {log.estimand}"
    return Table(caption, _COLUMNS, rows)


def verdict_table(bench: OPEBench) -> Table:
    """How often each verdict was given to policies truly better, and truly worse, than the behaviour."""
    rows: list[Sequence[Cell]] = []
    for truth in ("better", "worse"):
        judged = [
            policy.verdict
            for policy, is_better in bench.compared()
            if policy.verdict and is_better == (truth == "better")
        ]
        counts = Counter(judged)
        shares = [format_share(counts[verdict] / len(judged) if judged else None) for verdict in _VERDICTS]
        rows.append((f"truly {truth}", len(judged), *shares))
    names = tuple(_VERDICTS.values())
    return Table("Verdicts against the behaviour's logged mean", ("policies", "judged", *names), rows)


def wrong_go_share(bench: OPEBench, verdicts: Sequence[str] = ("go",)) -> float:
    """Share of the policies truly worse than the behaviour that got one of the verdicts; NaN if none is."""
    worse = [policy.verdict for policy, is_better in bench.compared() if policy.verdict and not is_better]
    return sum(verdict in verdicts for verdict in worse) / len(worse) if worse else math.nan


def bench_tables(bench: OPEBench) -> list[Table]:
    """Everything, the summary first."""
    thresholds = rule_table([(policy.by_rule, is_better) for policy, is_better in bench.compared()])
    tables = [total_table(bench), verdict_table(bench), thresholds]
    tables += [log_table(bench, log) for log in bench.logs]
    if bench.failures:
        tables.append(Table("Failed", ("task", "cause"), list(bench.failures.items())))
    return tables


def bench_json(bench: OPEBench) -> dict[str, Any]:
    """Plain values: every answer, every score, what was wrong."""
    return {
        "name": bench.name,
        "provenance": dict(bench.provenance),
        "seconds": round(bench.seconds, 1),
        "wrong_go": finite_or_none(wrong_go_share(bench)),
        "wrong_go_or_guard": finite_or_none(wrong_go_share(bench, _GOES)),
        "logs": [
            {
                "task": log.task,
                "log": log.label,
                "estimand": log.estimand,
                "baseline": finite_or_none(log.baseline),
                "scores": [
                    _score_json(score_estimator(log, name, peer=bench.peer)) for name in bench.estimators
                ],
                "policies": [_policy_json(policy) for policy in log.policies],
            }
            for log in bench.logs
        ],
        "failures": dict(bench.failures),
    }


_COLUMNS: Final = (
    "estimator", "answers", "valid", "rho", "peer", "regret", "error", "cover", "if valid", "I", "II",
)  # fmt: skip
_SHOWN: Final = ("spearman", "peer_spearman", "regret", "error", "type_one", "type_two")
_VERDICTS: Final = {
    "go": "GO", "go_with_guard": "GO WITH GUARD", "no_go": "NO-GO", "cannot_tell": "CANNOT TELL"
}  # fmt: skip


def _row(name: str, scores: Sequence[Score]) -> Sequence[Cell]:
    asked = sum(score.asked for score in scores)
    counted = [score for score in scores if score.answered >= LEAST_ANSWERS]
    covered = [held for score in scores for held in score.covered]
    valid = [held for score in scores for held in score.covered_valid]
    return (
        name,
        _percent(sum(score.answered for score in scores), asked),
        _percent(sum(score.valid for score in scores), asked),
        *(_mean([score.metrics[key].value for score in counted]) for key in _SHOWN[:4]),
        _percent(sum(covered), len(covered)),
        _percent(sum(valid), len(valid)),
        *(_mean([score.metrics[key].value for score in counted]) for key in _SHOWN[4:]),
    )


def _mean(values: Sequence[float]) -> str:
    usable = [value for value in values if math.isfinite(value)]
    return f"{math.fsum(usable) / len(usable):.2f}" if usable else "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _is_answered(policy: JudgedPolicy, name: str) -> bool:
    return name in policy.answers and math.isfinite(policy.answers[name].point)


def _peer_spearman(known: Sequence[JudgedPolicy], peer: str) -> Metric:
    both = [policy for policy in known if _is_answered(policy, peer)]
    if not peer or len(both) < len(known):
        return Metric(math.nan, "another library was not asked for all of these policies")
    truth = np.array([policy.truth for policy in both])
    return _applied(spearman, truth, np.array([policy.answers[peer].point for policy in both]))


def _metric_functions(baseline: float) -> dict[str, MetricFn]:
    functions: dict[str, MetricFn] = {"spearman": spearman, "kendall": kendall, "error": absolute_error}
    if math.isfinite(baseline):
        functions["type_one"] = functools.partial(false_alarms, threshold=baseline)
        functions["type_two"] = functools.partial(missed_alarms, threshold=baseline)
    else:
        functions["type_one"] = functions["type_two"] = _without_baseline
    return functions


def _without_baseline(truth: Any, estimate: Any) -> Metric:
    del truth, estimate
    return Metric(math.nan, "the value of the behaviour is unknown")


def _applied(metric: Callable[..., Metric], truth: Any, guess: Any) -> Metric:
    return metric(truth, guess) if truth.size else Metric(math.nan, "nothing was answered")


def _score_json(score: Score) -> dict[str, Any]:
    return {
        **{key: getattr(score, key) for key in ("estimator", "asked", "answered", "valid")},
        "metrics": {key: metric.to_json() for key, metric in score.metrics.items()},
        "intervals": {key: list(map(finite_or_none, ends)) for key, ends in score.intervals.items()},
        "coverage": sum(score.covered) / len(score.covered) if score.covered else None,
        "intervals_made": len(score.covered),
        "coverage_if_valid": sum(score.covered_valid) / len(score.covered_valid)
        if score.covered_valid
        else None,
        "valid_intervals": len(score.covered_valid),
    }


def _policy_json(policy: JudgedPolicy) -> dict[str, Any]:
    answers = {
        name: {
            "point": finite_or_none(answer.point),
            "ci95": [finite_or_none(answer.low), finite_or_none(answer.high)],
            "valid": answer.is_valid,
        }
        for name, answer in policy.answers.items()
    }
    return {
        "policy": policy.label,
        "truth": policy.truth,
        "truth_se": finite_or_none(policy.truth_se),
        "verdict": policy.verdict or None,
        "by_rule": dict(policy.by_rule),
        "answers": answers,
    }
