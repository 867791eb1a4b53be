"""How good each estimator is on each log of a benchmark."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mbrl.core.estimates import finite_or_none
from mbrl.off_policy.judgement.benchmark.answers import BenchLog, JudgedPolicy, OPEBench
from mbrl.off_policy.judgement.benchmark.metrics import (
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
from mbrl.off_policy.judgement.benchmark.verdicts import wrong_go_share

_SEED: Final = 0
"""Of the resamples, the same for every estimator and log."""


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

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        return {
            **{key: getattr(self, key) for key in ("estimator", "asked", "answered", "valid")},
            "metrics": {key: metric.to_json() for key, metric in self.metrics.items()},
            "intervals": {key: list(map(finite_or_none, ends)) for key, ends in self.intervals.items()},
            "coverage": _share(self.covered),
            "intervals_made": len(self.covered),
            "coverage_if_valid": _share(self.covered_valid),
            "valid_intervals": len(self.covered_valid),
        }


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
    known = [policy for policy in log.policies if policy.is_answered(name)]
    truth = np.array([policy.truth for policy in known])
    guess = np.array([policy.answers[name].point for policy in known])
    all_truth = np.array([policy.truth for policy in log.policies])
    chosen = np.array([p.answers[name].point if p.is_answered(name) else -math.inf for p in log.policies])
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


def bench_json(bench: OPEBench) -> dict[str, Any]:
    """Plain values: every answer, every score, what was wrong."""
    return {
        "name": bench.name,
        "peer": bench.peer,
        "provenance": dict(bench.provenance),
        "seconds": round(bench.seconds, 1),
        "wrong_go": finite_or_none(wrong_go_share(bench)),
        "wrong_go_or_guard": finite_or_none(wrong_go_share(bench, ("go", "go_with_guard"))),
        "logs": [
            {
                "task": log.task,
                "log": log.label,
                "estimand": log.estimand,
                "baseline": finite_or_none(log.baseline),
                "planned": log.planned,
                "scores": [
                    score_estimator(log, name, peer=bench.peer).to_json() for name in bench.estimators
                ],
                "policies": [policy.to_json() for policy in log.policies],
            }
            for log in bench.logs
        ],
        "failures": dict(bench.failures),
    }


def _peer_spearman(known: Sequence[JudgedPolicy], peer: str) -> Metric:
    both = [policy for policy in known if policy.is_answered(peer)]
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


def _share(held: Sequence[bool]) -> float | None:
    return sum(held) / len(held) if held else None
