"""What to collect next, and what it would buy: a pure function of the report.

The rule: k episodes of the candidate itself give a mean with the standard error `sigma / sqrt(k)`,
independent of what is known. If its difference d to the baseline is what the report takes it for, combining
both by precision leaves `1 / sqrt(1 / se^2 + k / sigma^2)`, and the least k with 1.96 times that below |d|
settles the question. sigma is the deviation of the logged returns: the candidate's own is not known yet.
Where no family counts there is nothing to combine with, and d is taken as half a sigma, a difference that
would matter.
"""

import math
from typing import Final

from mbrl.off_policy.judgement.families import count_families
from mbrl.off_policy.judgement.report.concluded import LoggedState, NextData, OtherData, VerdictName
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.records import known_ends
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.statistics.bounds import NORMAL_95

MOST_EPISODES: Final = 1000
"""Episodes beyond which a proposal to test on the machine is none."""

_ASSUMED_GAP: Final = 0.5
"""Difference that is looked for where none is known, in deviations of the logged returns."""

_LEAST_ESS_FOR_MORE: Final = 3.0
"""Effective episodes below which an extrapolation of the ESS means nothing."""

_MOST_STATES: Final = 5
"""States that are proposed to start from: what an operator sets up by hand."""


def next_data(report: Measured, verdict: VerdictName, rule: JudgeRule = DEFAULT_RULE) -> NextData:
    """The proposal: how many episodes, of which policy, from which states, and the expected interval.

    Args:
        report: what was measured.
        verdict: that followed.
        rule: thresholds.
    """
    sigma = report.data.return_std
    if verdict == "no_go":
        return NextData(why_not="the candidate is worse than the baseline, or too risky: improve it first")
    if verdict == "go":
        return NextData(why_not="the log suffices for the verdict; watch the first episodes all the same")
    if sigma is None or sigma <= 0:
        return NextData(why_not="the logged returns do not vary, or are not known")
    gap, se = _best_known(report, rule)
    assumed = gap if gap is not None else _ASSUMED_GAP * sigma
    is_settled = se is not None and NORMAL_95 * se < abs(assumed)  # then by the candidate's returns alone
    episodes = episodes_to_settle(assumed, None if is_settled else se, sigma)
    prior = f"the difference of {assumed:.4g}" if gap is not None else "half a deviation of the returns"
    source = "by the candidate's returns alone" if is_settled else "together with the log"
    count = MOST_EPISODES if episodes is None else episodes
    now = None if se is None else NORMAL_95 * se
    then = NORMAL_95 * combined_error(se, sigma, count)
    return NextData(
        episodes=count,
        policy="candidate",
        states=_states(report),
        half_width_now=now,
        half_width_then=then,
        shrink=None if now is None else 1 - then / now,
        reason=f"tell {prior} from 0 {source}, if that is what it is",
        is_enough=episodes is not None,
        alternatives=_more_of_the_log(report, rule),
    )


def episodes_to_settle(gap: float, se: float | None, sigma: float) -> int | None:
    """Least k >= 1 with `1.96 / sqrt(1 / se^2 + k / sigma^2) < |gap|`; None above `MOST_EPISODES`.

    Args:
        gap: difference that is to be told from 0.
        se: of what is known; None for nothing.
        sigma: deviation of a return.
    """
    if gap == 0:
        return None
    missing = (NORMAL_95 / gap) ** 2 - (0.0 if se is None else 1 / se**2)
    needed = max(1, math.floor(missing * sigma**2) + 1)
    return needed if needed <= MOST_EPISODES else None


def combined_error(se: float | None, sigma: float, episodes: int) -> float:
    """`1 / sqrt(1 / se^2 + k / sigma^2)`."""
    return 1 / math.sqrt((0.0 if se is None else 1 / se**2) + episodes / sigma**2)


def _best_known(report: Measured, rule: JudgeRule) -> tuple[float | None, float | None]:
    """Difference to the baseline and its error, of the counted family with the least error.

    The error is that of a normal law with the width of the interval.
    """
    counted, _ = count_families(report, rule)
    found: list[tuple[float, float]] = []
    for family in counted:
        paired = report.baseline.difference(family.estimator)
        if paired is not None and paired.difference is not None and paired.se:
            low, high = known_ends(paired.ci95) or (0.0, 0.0)
            width = (high - low) / 2  # of few members: wider
            found.append((max(paired.se, width / NORMAL_95), paired.difference))
    if not found:
        return None, None
    se, gap = min(found)
    return gap, se


def _states(report: Measured) -> tuple[LoggedState, ...]:
    """Logged states from which the policy leaves the support for longest."""
    outside = [segment for segment in report.diagnostics.segments if segment.kind == "support"]
    return tuple(LoggedState(episode=s.episode, step=s.first_step) for s in outside[:_MOST_STATES])


def _more_of_the_log(report: Measured, rule: JudgeRule) -> tuple[OtherData, ...]:
    """Episodes of the behaviour with which ratios would count: the ESS grows in proportion to the log."""
    ess = (report.diagnostics.ess_t or (None,))[-1]
    if ess is None or not _LEAST_ESS_FOR_MORE <= ess < rule.least_ess:
        return ()
    more = math.ceil(report.data.episodes * (rule.least_ess / ess - 1))
    reason = f"raise the effective episodes of the ratios from {ess:.1f} to {rule.least_ess:g}"
    return (OtherData(episodes=more, policy="behaviour", reason=reason),)
