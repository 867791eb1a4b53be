"""How well estimates choose among policies of known value: pure functions of two arrays.

`truth` holds the true values `J_1..J_N`, `estimate` the estimates `E_1..E_N` of the same policies. What is
undefined is NaN with a reason, never 0. DOPE is Fu et al. 2021, section 3; SharpeRatio@k is Kiyohara et al.
2024, eq. 5.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import numpy as np

from mbrl.core.estimates import finite_or_none
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.bounds import LEVEL, NOTHING, Interval95

MOST_ERROR: Final = 2.0
"""Where DOPE clips estimates on the scale on which the worst policy has the value 0 and the best 1."""

RESAMPLES: Final = 1000
"""Sets of policies that are drawn for an interval."""

_MAX_LOST_DRAWS: Final = 0.1
"""Share of them in which a metric may be undefined."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A number, or the reason why there is none.

    Attributes:
        value: NaN where it is undefined.
        why_not: the reason of a NaN.
        is_tied: equal estimates stood at the edge of the choice, and the order of the policies decided.
    """

    value: float
    why_not: str | None = None
    is_tied: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.value) == (self.why_not is None):
            raise ValueError(f"a metric of {self.value} does not go with the reason {self.why_not!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values; a NaN becomes None."""
        return {"value": finite_or_none(self.value), "why_not": self.why_not, "is_tied": self.is_tied}


Row: TypeAlias = Array | Sequence[float | int]
"""One number for each policy."""

MetricFn: TypeAlias = Callable[[Row, Row], Metric]
"""`(truth, estimate)`, both `[N]`."""


def spearman(truth: Row, estimate: Row) -> Metric:
    """Correlation of the ranks, ties with their mean rank; without skill its sd is `1 / sqrt(N - 1)`."""
    return _rank_correlation(_correlate_ranks, truth, estimate)


def kendall(truth: Row, estimate: Row) -> Metric:
    """Kendall's tau-b: concordant less discordant pairs, corrected for ties."""
    return _rank_correlation(_tau_b, truth, estimate)


def absolute_error(truth: Row, estimate: Row) -> Metric:
    """Mean `|e_i - j_i|` on the scale on which the true values span [0, 1], estimates clipped above at 2."""
    true, guess = _pair(truth, estimate)
    worst, best = _ends(true)
    if best <= worst:
        return _undefined("all policies have the same true value")
    if not np.isfinite(guess).all():
        return _undefined("an estimate is missing")
    scaled = np.minimum((guess - worst) / (best - worst), MOST_ERROR)
    return Metric(float(np.abs(scaled - (true - worst) / (best - worst)).mean()))


def regret_at(truth: Row, estimate: Row, *, k: int = 1, is_normalised: bool = True) -> Metric:
    """What the best of the k highest estimates lacks of the best policy, `max J - max_{top-k} J`.

    Args:
        truth: `[N]`.
        estimate: `[N]`; -inf for a policy that may not be chosen. Ties are broken by the policies' order.
        k: how many are tried.
        is_normalised: divide by `max J - min J`.
    """
    true, guess = _pair(truth, estimate)
    chosen = _choose(guess, k)
    if chosen is None:
        return _undefined(f"fewer than {k} policies may be chosen")
    worst, best = _ends(true)
    regret = best - float(true[chosen.indices].max())
    if not is_normalised:
        return Metric(regret, is_tied=chosen.is_tied)
    if best <= worst:
        return _undefined("all policies have the same true value")
    return Metric(regret / (best - worst), is_tied=chosen.is_tied)


def sharpe_ratio_at(truth: Row, estimate: Row, *, k: int, baseline: float) -> Metric:
    """`max(best@k - J(b), 0) / std@k`: gain over the baseline for the risk of trying the k highest estimates.

    Args:
        truth: `[N]`.
        estimate: `[N]`.
        k: how many are tried, at least 2.
        baseline: true value of the behaviour policy.
    """
    true, guess = _pair(truth, estimate)
    if k < 2:
        return _undefined("one policy has no spread")
    chosen = _choose(guess, k)
    if chosen is None:
        return _undefined(f"fewer than {k} policies may be chosen")
    tried = true[chosen.indices]
    spread = float(tried.std(ddof=1))
    if spread == 0.0:
        return _undefined(f"the {k} policies have the same true value")
    return Metric(max(float(tried.max()) - baseline, 0.0) / spread, is_tied=chosen.is_tied)


def false_alarms(truth: Row, estimate: Row, *, threshold: float) -> Metric:
    """Type I: share of the truly safe policies (`J >= threshold`) that are judged unsafe."""
    true, guess = _pair(truth, estimate)
    safe = true >= threshold
    return Metric(float((guess < threshold)[safe].mean())) if safe.any() else _undefined("no policy is safe")


def missed_alarms(truth: Row, estimate: Row, *, threshold: float) -> Metric:
    """Type II: share of the truly unsafe policies (`J < threshold`) that are judged safe."""
    true, guess = _pair(truth, estimate)
    unsafe = true < threshold
    if not unsafe.any():
        return _undefined("every policy is safe")
    return Metric(float((guess >= threshold)[unsafe].mean()))


def policy_interval(
    metric: MetricFn,
    truth: Row,
    estimate: Row,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval95:
    """Percentile interval of a metric from resampled policies: what another set of candidates would give.

    Args:
        metric: of `(truth, estimate)`; bind further arguments with `functools.partial`.
        truth: `[N]`.
        estimate: `[N]`.
        rng: draws the resamples.
        resamples: how many; draws in which the metric is undefined are left out, up to a tenth.
    """
    true, guess = _pair(truth, estimate)
    if true.size < 2:
        return Interval95(NOTHING, "none: one policy has no spread")
    rows = rng.integers(0, true.size, (resamples, true.size))
    draws = np.array([metric(true[row], guess[row]).value for row in rows])
    usable = draws[np.isfinite(draws)]
    if usable.size < (1 - _MAX_LOST_DRAWS) * resamples:
        return Interval95(
            NOTHING, f"none: undefined in {1 - usable.size / resamples:.0%} of the resampled sets"
        )
    low, high = map(float, np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval95((low, high), f"percentile bootstrap over policies, {resamples} resamples")


normalised_regret: Final[MetricFn] = functools.partial(regret_at, k=1, is_normalised=True)
"""`regret_at` as DOPE reports it."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Choice:
    indices: Any
    is_tied: bool


def _choose(estimate: Array, k: int) -> _Choice | None:
    """The k highest, earlier ones first among equals; None if there are fewer."""
    allowed = int((estimate > -math.inf).sum())
    if not 1 <= k <= allowed:
        return None
    order = np.argsort(-estimate, kind="stable")
    is_tied = k < allowed and bool(estimate[order[k - 1]] == estimate[order[k]])
    return _Choice(order[:k], is_tied)


def _correlate_ranks(true: Array, guess: Array) -> float:
    """As `scipy.stats.spearmanr`, without its p-value: a bootstrap asks a thousand times."""
    one, other = _mean_ranks(true), _mean_ranks(guess)
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / math.sqrt(float(one @ one) * float(other @ other)))


def _mean_ranks(values: Array) -> Array:
    """As `scipy.stats.rankdata` of a short row, without the tenth of a millisecond of its checks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _tau_b(true: Array, guess: Array) -> float:
    import scipy.stats  # takes half a second, which most commands need not wait

    return float(cast("Any", scipy.stats.kendalltau)(true, guess).statistic)


def _rank_correlation(statistic: Callable[[Array, Array], float], truth: Row, estimate: Row) -> Metric:
    true, guess = _pair(truth, estimate)
    if true.size < 2:
        return _undefined("one policy has no rank")
    for name, values in (("true value", true), ("estimate", guess)):
        if bool((values == values[0]).all()):
            return _undefined(f"every policy has the same {name}")
    return Metric(statistic(true, guess))


def _pair(truth: Row, estimate: Row) -> tuple[Array, Array]:
    true, guess = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if true.ndim != 1 or true.shape != guess.shape or true.size == 0:
        raise ValueError(
            f"truth and estimate must be rows of one length, not of shapes {true.shape}, {guess.shape}"
        )
    if not np.isfinite(true).all() or np.isnan(guess).any():
        raise ValueError("a true value is not finite, or an estimate is NaN; leave such policies out")
    return true, guess


def _ends(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _undefined(reason: str) -> Metric:
    return Metric(math.nan, reason)
