"""What judges say that a policy is worth: typed, with what selects among policies, and what may be reported.

Notation: `J[k, i]` is the return of member k from start i, members over all judges together (M of them), n
starts. Then

    mean           m   = mean_{k, i} J[k, i]
    member spread  s_M = standard deviation over k of mean_i J[k, i]
    start spread   s_n = standard deviation over i of mean_k J[k, i]
    lower bound    L   = m - kappa sqrt(s_M^2 + s_n^2 / n)
    interval           = m +- t_{M - 1} sqrt(s_M^2 / M + s_n^2 / n)

The lower bound is that of one further member, not of their mean: a policy that some models love and others do
not is no safe choice, however many models are asked. The interval says where the mean over members and starts
would lie if both were drawn again; what all members get wrong alike is not in it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy.special
from numpy.typing import NDArray

from mbrl.core.estimates import finite_or_none
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.value.judge_config import BoundRule
from mbrl.off_policy.value.judge_rollouts import ImaginedEpisodes

LEVEL: Final = 0.95
"""Of the intervals."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class JudgedValue:
    """What the members of all judges say of one policy.

    Attributes:
        returns: `[M, n]` float64, of each member from each start; NaN where a model broke down.
        judge: `[M]` int64, whose member it is.
        lengths: `[M, n]` int64, steps.
        terminated: `[M, n]` bool, whether the task ended.
        clipped: share of the steps that left the range of the data by more than its margin.
    """

    returns: Array
    judge: NDArray[np.int64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    clipped: float = 0.0

    @classmethod
    def join(cls, parts: Sequence[ImaginedEpisodes]) -> "JudgedValue":
        """One part of each judge, from the same starts."""
        sizes = [len(part.returns) for part in parts]
        steps = np.array([part.lengths.sum() for part in parts], dtype=np.float64)
        clipped = float(np.average([part.clipped for part in parts], weights=np.maximum(steps, 1.0)))
        return cls(
            np.concatenate([part.returns for part in parts]),
            np.repeat(np.arange(len(parts)), sizes),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.terminated for part in parts]),
            clipped,
        )

    def part(self, members: NDArray[Any], starts: NDArray[Any]) -> "JudgedValue":
        """What some members say from some starts.

        Args:
            members: indices or a mask.
            starts: likewise.
        """
        return JudgedValue(
            self.returns[members][:, starts],
            self.judge[members],
            self.lengths[members][:, starts],
            self.terminated[members][:, starts],
            self.clipped,
        )

    @property
    def mean(self) -> float:
        """m; NaN where a model broke down."""
        return float(self.returns.mean())

    @property
    def by_member(self) -> Array:
        """`[M]`, mean over the starts."""
        return self.returns.mean(1)

    @property
    def by_judge(self) -> Array:
        """`[judges]`, mean over members and starts."""
        return np.array([self.returns[self.judge == index].mean() for index in np.unique(self.judge)])

    @property
    def by_start(self) -> Array:
        """`[n]`, mean over the members."""
        return self.returns.mean(0)

    @property
    def member_spread(self) -> float:
        """s_M; 0 of one member."""
        return _spread(self.by_member)

    @property
    def start_error(self) -> float:
        """`s_n / sqrt(n)`; 0 of one start."""
        return _spread(self.by_start) / math.sqrt(self.returns.shape[1])

    def lower(self, rule: BoundRule = "lower_bound", pessimism: float = 1.0) -> float:
        """What selects; NaN where a model broke down.

        Args:
            rule: `lower_bound`, `mean`, or `least_member` (the least member's mean over the starts).
            pessimism: kappa.
        """
        if rule == "mean":
            return self.mean
        if rule == "least_member":
            return float(self.by_member.min())
        return self.mean - pessimism * math.hypot(self.member_spread, self.start_error)

    @property
    def standard_error(self) -> float:
        """`sqrt(s_M^2 / M + s_n^2 / n)`."""
        return math.hypot(self.member_spread / math.sqrt(len(self.returns)), self.start_error)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean; infinite with one member, whose spread is unknown."""
        return _interval(self.mean, self.standard_error, len(self.returns) - 1)

    def to_json(self) -> dict[str, Any]:
        """Means and spreads as plain values; NaN becomes None."""
        low, high = self.interval
        return {
            "mean": finite_or_none(self.mean),
            "interval": [finite_or_none(low), finite_or_none(high)],
            "member_spread": finite_or_none(self.member_spread),
            "start_error": finite_or_none(self.start_error),
            "by_judge": [finite_or_none(float(value)) for value in self.by_judge],
            "by_member": [finite_or_none(float(value)) for value in self.by_member],
            "by_start": [finite_or_none(float(value)) for value in self.by_start],
            "members_of_judges": [int(np.sum(self.judge == index)) for index in np.unique(self.judge)],
            "mean_length": float(self.lengths.mean()),
            "terminated": float(self.terminated.mean()),
            "clipped": self.clipped,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class HonestValue:
    """What a selected policy is worth, by evidence that did not select it.

    Attributes:
        mean: estimate.
        low: lower end of the 95 % interval.
        high: upper end.
        picks: index of the policy that each half of the evidence takes by itself.
        optimism: by how much the estimate of all evidence, which selected, exceeds `mean`.
    """

    mean: float
    low: float
    high: float
    picks: tuple[int, int]
    optimism: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite becomes None."""
        values = {name: finite_or_none(getattr(self, name)) for name in ("mean", "low", "high", "optimism")}
        return {**values, "picks": list(self.picks)}


def choose_best(values: Sequence[float], *, otherwise: int = -1) -> int:
    """Index of the largest finite value, the first among equals; of none `otherwise`, the last by default."""
    best = max((value for value in values if math.isfinite(value)), default=None)
    return range(len(values))[otherwise] if best is None else list(values).index(best)


def honest_value(judged: Sequence[JudgedValue], rule: BoundRule, pessimism: float) -> HonestValue | None:
    """What the best of several policies is worth, without the optimism of a maximum over noisy estimates.

    The evidence is halved: the judges (with one judge its members) and, crosswise, the starts, so that no
    member and no start is in both halves. Each half picks by the rule; the other half, which had no say,
    values that pick. The mean of the two is an unbiased estimate for a pick by half of the evidence, and what
    all of the evidence picks is no worse on average. Policies of equal worth are therefore reported at that
    worth, where the estimate that selected is too high.

    Args:
        judged: of all policies, by the same members from the same starts.
        rule: that selects.
        pessimism: kappa.

    Returns:
        None where one member or one start leaves nothing to halve.
    """
    members, n = judged[0].returns.shape
    if members < 2 or n < 2:
        return None
    judges = np.unique(judged[0].judge)
    unit = judged[0].judge if len(judges) > 1 else np.arange(members, dtype=np.int64)
    starts = np.arange(n, dtype=np.int64)
    halves: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = [
        (unit % 2 == half, starts % 2 == half) for half in (0, 1)
    ]
    parts = [[value.part(*half) for value in judged] for half in halves]
    picks = tuple(choose_best([value.lower(rule, pessimism) for value in part]) for part in parts)
    told = [parts[1][picks[0]], parts[0][picks[1]]]
    mean = float(np.mean([value.mean for value in told]))
    error = math.hypot(*(value.standard_error for value in told)) / 2
    freedom = sum(len(value.returns) - 1 for value in told)
    low, high = _interval(mean, error, freedom)
    chosen = choose_best([value.lower(rule, pessimism) for value in judged])
    return HonestValue(mean, low, high, (picks[0], picks[1]), judged[chosen].mean - mean)


def _interval(mean: float, error: float, freedom: int) -> tuple[float, float]:
    if freedom < 1:
        return -math.inf, math.inf
    margin = float(scipy.special.stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    return mean - margin, mean + margin


def _spread(values: Array) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
