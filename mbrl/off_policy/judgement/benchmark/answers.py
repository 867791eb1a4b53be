"""What a benchmark of off-policy evaluation asked and heard: true values, answers, verdicts."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mbrl.core.estimates import finite_or_none


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
    def has_point(self) -> bool:
        """Whether it gave a number."""
        return math.isfinite(self.point)

    @property
    def has_interval(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        return {
            "point": finite_or_none(self.point),
            "ci95": [finite_or_none(self.low), finite_or_none(self.high)],
            "valid": self.is_valid,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Answer":
        """Inverse of `to_json`."""
        low, high = values["ci95"]
        return cls(_number(values["point"]), _number(low), _number(high), is_valid=bool(values["valid"]))


@dataclasses.dataclass(frozen=True, slots=True)
class JudgedPolicy:
    """One policy evaluated from one log.

    Attributes:
        label: of the policy.
        truth: its value in the simulator.
        truth_se: standard error of that; NaN from one episode.
        answers: by estimator.
        verdict: of the report against the behaviour, or "" if it was not made.
        by_rule: the verdict under other thresholds (`verdicts_by_rule`), by their label.
    """

    label: str
    truth: float
    truth_se: float
    answers: Mapping[str, Answer]
    verdict: str
    by_rule: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def is_answered(self, estimator: str) -> bool:
        """Whether the estimator gave a number."""
        return estimator in self.answers and self.answers[estimator].has_point

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        return {
            "policy": self.label,
            "truth": self.truth,
            "truth_se": finite_or_none(self.truth_se),
            "verdict": self.verdict or None,
            "by_rule": dict(self.by_rule),
            "answers": {name: answer.to_json() for name, answer in self.answers.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "JudgedPolicy":
        """Inverse of `to_json`."""
        answers = {name: Answer.from_json(answer) for name, answer in values["answers"].items()}
        truth, se = float(values["truth"]), _number(values["truth_se"])
        return cls(values["policy"], truth, se, answers, values["verdict"] or "", values["by_rule"])


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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BenchLog":
        """Of the fields in a file; scores are computed anew."""
        policies = tuple(map(JudgedPolicy.from_json, values["policies"]))
        planned, baseline = values.get("planned", len(policies)), _number(values["baseline"])
        return cls(values["task"], values["log"], values["estimand"], baseline, policies, planned)


class JudgedCase(NamedTuple):
    """A policy judged by one log: whether it is truly better than the behaviour, and of which task."""

    policy: JudgedPolicy
    is_better: bool
    task: str


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

    def cases(self) -> Iterator[JudgedCase]:
        """Every policy by every log whose behaviour's value is known."""
        for log in self.logs:
            if math.isfinite(log.baseline):
                yield from (JudgedCase(p, p.truth >= log.baseline, log.task) for p in log.policies)

    @property
    def is_complete(self) -> bool:
        """Whether every policy was judged."""
        return not self.failures and all(len(log.policies) == log.planned for log in self.logs)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "OPEBench":
        """Of the values that `bench_json` gives."""
        logs = tuple(map(BenchLog.from_json, values["logs"]))
        peer, seconds = values.get("peer", ""), values["seconds"]
        return cls(values["name"], logs, values["failures"], seconds, values["provenance"], peer)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
