"""The rule by which one of several candidates is taken, or none.

With m the mean of a candidate's judged returns, s_M and s_n their spreads over members and starts
(`mbrl.off_policy.value.judged`), b what the behaviour is worth and s_b its standard error, a candidate's gain
has the lower bound

    G = m - b - kappa sqrt(s_M^2 + s_n^2 / n + s_b^2)

The largest G wins, a simpler candidate before it if their paired difference lies within its error; and
nothing is taken unless G > 0 and every judge by itself finds the candidate better than the behaviour.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.value.judged import JudgedValue


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """What the policies are worth that made the log.

    Attributes:
        mean: return of its complete episodes.
        error: its standard error.
        episodes: that are complete.
        judged: what judges say of a clone of them; None where they were not asked.
    """

    mean: float
    error: float
    episodes: int
    judged: float | None = None

    @classmethod
    def of(cls, returns: Array, judged: float | None = None) -> "Behaviour | None":
        """From the returns of complete episodes; None from fewer than two."""
        if len(returns) < 2:
            return None
        error = float(returns.std(ddof=1)) / math.sqrt(len(returns))
        return cls(float(returns.mean()), error, len(returns), judged)

    @property
    def reference(self) -> float:
        """b: the larger of what the log and what judges say.

        Judges who see everything too bright gain nothing by it.
        """
        return self.mean if self.judged is None else max(self.mean, self.judged)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What the rule says.

    Attributes:
        best: index of the candidate with the largest lower bound of the gain.
        taken: index of the one that is taken, the simplest that is as good; None for none.
        gains: lower bound G of each; NaN where a model broke down.
        reason: in a sentence.
    """

    best: int
    taken: int | None
    gains: tuple[float, ...]
    reason: str


def gain_bound(value: JudgedValue, behaviour: Behaviour, pessimism: float) -> float:
    """G; NaN where a model broke down."""
    spread = math.hypot(value.member_spread, value.start_error, behaviour.error)
    return value.mean - behaviour.reference - pessimism * spread


def choose_candidate(
    judged: Sequence[JudgedValue], behaviour: Behaviour | None, *, pessimism: float, tie_errors: float
) -> Choice:
    """The candidate that is taken.

    Args:
        judged: of each candidate, by the same members from the same starts; the simplest candidate first.
        behaviour: None where the log does not tell what it is worth: nothing is then taken.
        pessimism: kappa.
        tie_errors: standard errors of a paired difference within which a simpler candidate is as good.
    """
    if behaviour is None:
        lows = [value.lower("lower_bound", pessimism) for value in judged]
        nobody = "The log has no two complete episodes, so nobody knows what there is to improve on."
        return Choice(_first_largest(lows), None, tuple([math.nan] * len(judged)), nobody)
    gains = tuple(gain_bound(value, behaviour, pessimism) for value in judged)
    best = _first_largest(gains)
    if not gains[best] > 0:
        return Choice(
            best, None, gains,
            "No candidate is better than the behaviour by its lower bound: keep what you have.",
        )  # fmt: skip
    taken = next(
        index
        for index in range(len(judged))
        if index == best or (gains[index] > 0 and _is_as_good(judged[index], judged[best], tie_errors))
    )
    doubting = _doubting(judged[taken], behaviour.reference)
    if len(doubting) > 0:
        return Choice(
            best, None, gains,
            f"Judges disagree: judge {int(doubting[0])} finds the best of them no better than the behaviour.",
        )  # fmt: skip
    if taken != best:
        return Choice(best, taken, gains, "The simplest of those that are as good as the best.")
    return Choice(best, taken, gains, "The best lower bound of the gain over the behaviour.")


def _is_as_good(simple: JudgedValue, best: JudgedValue, tie_errors: float) -> bool:
    """Whether `best - simple`, paired by member and start, lies within its standard error."""
    gap = best.returns - simple.returns
    if not np.isfinite(gap).all():
        return False
    members, starts = gap.mean(1), gap.mean(0)
    error = math.hypot(_error(members), _error(starts))
    return float(gap.mean()) <= tie_errors * error


def _error(values: Array) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _doubting(value: JudgedValue, reference: float) -> NDArray[np.intp]:
    """Judges that find it no better."""
    return np.flatnonzero(~(value.by_judge > reference))


def _first_largest(values: Sequence[float]) -> int:
    """Of the finite ones; the last of all if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return list(values).index(max(finite)) if finite else len(values) - 1
