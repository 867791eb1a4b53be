"""What to collect next, and what it would buy: a pure function of the report's JSON.

The rule: k episodes of the candidate itself give a mean with the standard error `sigma / sqrt(k)`,
independent of what is known. If its difference d to the baseline is what the report takes it for, combining
both by precision leaves `1 / sqrt(1 / se^2 + k / sigma^2)`, and the least k with 1.96 times that below |d|
settles the question. sigma is the deviation of the logged returns: the candidate's own is not known yet.
Where no family counts there is nothing to combine with, and d is taken as half a sigma, a difference that
would matter.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.ope.judgement.findings import PRIMARY, count_families
from mbrl.ope.judgement.report_fields import listed, part
from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule

MOST_EPISODES: Final = 1000
"""Episodes beyond which a proposal to test on the machine is none."""

_QUANTILE: Final = 1.959964
_NO_KNOWLEDGE: Final = 0.5
_LEAST_ESS_FOR_MORE: Final = 3.0  # effective episodes below which an extrapolation of the ESS means nothing
_STATES: Final = 5


def next_data(report: Mapping[str, Any], rule: JudgeRule = DEFAULT_RULE) -> dict[str, Any]:
    """The proposal: how many episodes, of which policy, from which states, and the expected interval.

    Args:
        report: with `data`, `estimates`, `diagnostics`, `baseline` and `verdict`.
        rule: thresholds.

    Returns:
        `episodes` (None with a `why_not` where nothing is worth collecting), `policy`, `states`, half widths
        of the interval `half_width_now` and `half_width_then`, `shrink` (1 - then / now), `reason`,
        `is_enough` (False where even `MOST_EPISODES` would not do what `reason` says), and `alternatives`,
        each with `episodes`, `policy` and `reason`.
    """
    sigma, verdict = report["data"].get("return_std"), report["verdict"]["verdict"]
    if verdict == "no_go":
        return _nothing("the candidate is worse than the baseline, or too risky: improve it first")
    if verdict == "go":
        return _nothing("the log suffices for the verdict; watch the first episodes all the same")
    if sigma is None or sigma <= 0:
        return _nothing("the logged returns do not vary, or are not known")
    gap, se = _best_known(report, rule)
    assumed = gap if gap is not None else _NO_KNOWLEDGE * sigma
    is_settled = se is not None and _QUANTILE * se < abs(assumed)  # then by the candidate's returns alone
    episodes = episodes_to_settle(assumed, None if is_settled else se, sigma)
    prior = f"the difference of {assumed:.4g}" if gap is not None else "half a deviation of the returns"
    source = "by the candidate's returns alone" if is_settled else "together with the log"
    count = MOST_EPISODES if episodes is None else episodes
    now = None if se is None else _QUANTILE * se
    then = _QUANTILE * combined_error(se, sigma, count)
    return {
        "episodes": count,
        "policy": "candidate",
        "states": _states(report),
        "half_width_now": now,
        "half_width_then": then,
        "shrink": None if now is None else 1 - then / now,
        "reason": f"tell {prior} from 0 {source}, if that is what it is",
        "is_enough": episodes is not None,
        "why_not": None,
        "alternatives": _more_of_the_log(report, rule),
    }


def episodes_to_settle(gap: float, se: float | None, sigma: float) -> int | None:
    """Least k >= 1 with `1.96 / sqrt(1 / se^2 + k / sigma^2) < |gap|`; None above `MOST_EPISODES`.

    Args:
        gap: difference that is to be told from 0.
        se: of what is known; None for nothing.
        sigma: deviation of a return.
    """
    if gap == 0:
        return None
    missing = (_QUANTILE / gap) ** 2 - (0.0 if se is None else 1 / se**2)
    needed = max(1, math.floor(missing * sigma**2) + 1)
    return needed if needed <= MOST_EPISODES else None


def combined_error(se: float | None, sigma: float, episodes: int) -> float:
    """`1 / sqrt(1 / se^2 + k / sigma^2)`."""
    return 1 / math.sqrt((0.0 if se is None else 1 / se**2) + episodes / sigma**2)


def _best_known(report: Mapping[str, Any], rule: JudgeRule) -> tuple[float | None, float | None]:
    """Difference to the baseline and its error, of the counted family with the least error.

    The error is that of a normal law with the width of the interval.
    """
    counted, _ = count_families(report, rule)
    found: list[tuple[float, float]] = []
    for finding in counted:
        paired = part(part(report["baseline"], "paired"), PRIMARY[finding.family])
        if paired and paired["difference"] is not None and paired["se"]:
            ends: Sequence[float | None] = paired.get("ci95") or (None, None)
            low, high = ends
            width = 0.0 if low is None or high is None else (high - low) / 2  # of few members: wider
            found.append((max(paired["se"], width / _QUANTILE), paired["difference"]))
    if not found:
        return None, None
    se, gap = min(found)
    return gap, se


def _states(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Logged states from which the policy leaves the support for longest."""
    heat = listed(report["diagnostics"], "heat")
    outside: list[Mapping[str, Any]] = [entry for entry in heat if entry["kind"] == "support"]
    return [{"episode": e["episode"], "step": e["first_step"]} for e in outside[:_STATES]]


def _more_of_the_log(report: Mapping[str, Any], rule: JudgeRule) -> list[dict[str, Any]]:
    """Episodes of the behaviour with which ratios would count: the ESS grows in proportion to the log."""
    ess = (listed(report["diagnostics"], "ess_t") or [None])[-1]
    if ess is None or not _LEAST_ESS_FOR_MORE <= ess < rule.least_ess:
        return []
    more = math.ceil(report["data"]["episodes"] * (rule.least_ess / ess - 1))
    reason = f"raise the effective episodes of the ratios from {ess:.1f} to {rule.least_ess:g}"
    return [{"episodes": more, "policy": "behaviour", "reason": reason}]


def _nothing(reason: str) -> dict[str, Any]:
    fields = ("episodes", "policy", "half_width_now", "half_width_then", "shrink", "reason", "is_enough")
    return {**dict.fromkeys(fields), "states": [], "why_not": reason, "alternatives": []}
