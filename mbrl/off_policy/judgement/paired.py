"""Differences of two policies on one log: what both share cancels.

Ratio estimates are paired by episode, values and roll-outs by first state and by member.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeGuard

import numpy as np
import scipy.special

from mbrl.core.estimates import Estimate
from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.estimators.importance import pdwis_terms
from mbrl.off_policy.judgement.report.measured import PairedDifference
from mbrl.off_policy.log.censoring import logged_returns
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.statistics.bounds import LEVEL, NOTHING, Ends, default_interval
from mbrl.off_policy.statistics.ensembles import member_quantile
from mbrl.off_policy.statistics.self_normalised import Term, Terms, influence_values, self_normalised_se


class Evidence(NamedTuple):
    """What an estimate rests on.

    Attributes:
        per_episode: `[n]`, one value for each episode or first state; the mean is the point.
        members: `[m]`, one for each member of an ensemble; None without one.
    """

    per_episode: Array
    members: Array | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> "Evidence | None":
        """Of an estimate with a point; None where it says nothing of episodes."""
        if estimate.per_episode is None or not np.isfinite(estimate.per_episode).all():
            return None
        return cls(estimate.per_episode, estimate.details.get("members"))

    @property
    def point(self) -> float:
        """The estimate."""
        return float(self.per_episode.mean())


def evidence_of(estimates: Mapping[str, Estimate]) -> dict[str, Evidence]:
    """Of all estimates that have some."""
    found = {name: Evidence.of(estimate) for name, estimate in estimates.items()}
    return {name: evidence for name, evidence in found.items() if evidence is not None}


def rollouts_of(estimate: Estimate) -> Array | None:
    """`[2, m, n]`, returns and terminations of a model estimate that kept its roll-outs; else None."""
    returns, ended = (estimate.details.get(name) for name in ("rollout_returns", "rollout_terminated"))
    if returns is None or ended is None:
        return None
    return np.stack([np.asarray(returns, np.float64), np.asarray(ended, np.float64)])


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, with standard error and interval."""

    point: float
    se: float
    ends: Ends
    method: str

    def reported(self, *, ci_corrected: Ends | None, why_not: str | None) -> PairedDifference:
        """What a report keeps of it, with a wider interval and a reason against it where there are any."""
        return PairedDifference(
            difference=self.point,
            se=self.se,
            ci95=self.ends,
            method=self.method,
            ci_corrected=ci_corrected,
            why_not=why_not,
        )


def difference(first: Evidence, second: Evidence, *, level: float = LEVEL) -> Difference:
    """`first - second` of one estimator; paired by episode and by member where both have as many of them.

    With members the error is `sqrt(var_m(a_m - b_m) + var_i(a_i - b_i) / n)` and the interval Student t with
    one degree of freedom less than members; without, it is that of the mean of `a_i - b_i`.

    Args:
        first: of the candidate.
        second: of what it is compared with; the logged returns have no members.
        level: nominal coverage.
    """
    within, method = _within(first.per_episode, second.per_episode)
    point = first.point - second.point
    between, members = _between(first.members, second.members)
    if members > 1:
        se = math.sqrt(between + within)
        half = member_quantile(members, level) * se
        return Difference(point, se, (point - half, point + half), f"{method}, t over {members} members")
    n = min(first.per_episode.size, second.per_episode.size)
    if n < 2:
        return Difference(point, math.nan, NOTHING, "none: one episode has no spread")
    se = math.sqrt(within)
    half = float(scipy.special.stdtrit(n - 1, 0.5 + level / 2)) * se
    return Difference(point, se, (point - half, point + half), f"{method}, Student t")


def gap_in_errors(first: Evidence, second: Evidence) -> float:
    """`|a - b| / sqrt(var_i(a_i - b_i) / n + var_m(a) + var_m(b))` of two estimators of one policy.

    They share the episodes, but not the members: those of two ensembles have nothing to do with each other.
    """
    spread, _ = _within(first.per_episode, second.per_episode)
    members = [m for m in (first.members, second.members) if _has_spread(m)]
    spread += sum(float(m.var(ddof=1)) for m in members)
    gap = abs(first.point - second.point)
    return gap / math.sqrt(spread) if spread > 0 else (0.0 if gap == 0 else math.inf)


def paired_z(evidence: Mapping[str, Evidence]) -> float | None:
    """Largest difference of two primary estimators in standard errors, those of the paired episodes."""
    found = [evidence[name] for name in primary_estimators().values() if name in evidence]
    return max((gap_in_errors(a, b) for a, b in itertools.combinations(found, 2)), default=None)


def ratio_difference(first: OPEArrays, second: OPEArrays | None, *, level: float = LEVEL) -> Difference:
    """Difference of PDWIS to that of another policy, or to the mean logged return.

    It is a sum of self-normalised means itself, so the interval of PDWIS serves: BCa over episodes that are
    drawn together for both.

    Args:
        first: padded log with the candidate's ratios.
        second: the same log with the other policy's ratios; None for the policy that acted.
        level: nominal coverage.
    """
    terms = _joined(first, second)
    influence = influence_values(terms, len(first))
    scale = first.estimand.scale
    if not np.isfinite(influence).all():
        return Difference(math.nan, math.nan, NOTHING, "none: every weight of a step is 0")
    interval = default_interval(terms, influence, level=level)
    low, high = interval.ends
    se = self_normalised_se(influence) * scale
    return Difference(
        float(influence.mean()) * scale, se, (low * scale, high * scale), f"paired, {interval.method}"
    )


def _joined(first: OPEArrays, second: OPEArrays | None) -> Terms:
    minuend = pdwis_terms(first)
    subtrahend = _mean_return_terms(first) if second is None else pdwis_terms(second)

    def stream() -> Iterator[Term]:
        yield from minuend()
        for term in subtrahend():
            yield Term(term.share, term.payload, -term.factor)

    return stream


def _mean_return_terms(arrays: OPEArrays) -> Terms:
    n, returns = len(arrays), logged_returns(arrays)

    def stream() -> Iterator[Term]:
        yield Term(np.full((n, 1), 1.0 / n), returns[:, None], np.ones(1))

    return stream


def _within(first: Array, second: Array) -> tuple[float, str]:
    """Variance of the difference of two means over episodes, and whether they were paired."""
    if first.size == second.size:
        return (float((first - second).var(ddof=1)) / first.size if first.size > 1 else math.nan), "paired"
    parts = [float(x.var(ddof=1)) / x.size if x.size > 1 else math.nan for x in (first, second)]
    return sum(parts), "unpaired"


def _between(first: Array | None, second: Array | None) -> tuple[float, int]:
    """Variance of the difference over members, and how many; ensembles of two sizes are not paired."""
    if first is not None and second is not None and first.size == second.size:
        return float((first - second).var(ddof=1)) if first.size > 1 else 0.0, first.size
    known = [members for members in (first, second) if _has_spread(members)]
    return float(sum(m.var(ddof=1) for m in known)), min((m.size for m in known), default=0)


def _has_spread(members: Array | None) -> TypeGuard[Array]:
    return members is not None and members.size > 1
