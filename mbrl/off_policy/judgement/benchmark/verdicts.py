"""Verdicts on policies of known value: how often they are wrong, and under which thresholds."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from mbrl.off_policy.judgement.benchmark.answers import OPEBench
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.judgement.verdict import judge
from mbrl.ops.shares import wilson_interval

SHIPPED: Final = "as shipped"

_CHANGES: Final[Sequence[Mapping[str, Any]]] = (
    {"most_support_share": 0.05},
    {"most_support_share": 0.2},
    {"most_model_disagreement": 0.05},
    {"most_model_disagreement": 0.2},
    {"most_disagreement": 1.0},
    {"most_disagreement": 4.0},
    {"most_backtest_z": 1.0},
    {"least_ess": 10.0},
    {"allow_go_without_ratio": True},
)
"""About half and twice each threshold that is a judgement of ours."""

RULES: Final[Mapping[str, JudgeRule]] = {
    SHIPPED: DEFAULT_RULE,
    **{
        " ".join(f"{name} {value}".lower() for name, value in change.items()): DEFAULT_RULE.model_copy(
            update=change
        )
        for change in _CHANGES
    },
}
"""One threshold changed at a time. Validity that estimates carry themselves, such as a fit's drift, stays."""


class VerdictShare(NamedTuple):
    """Share of judgements that ended in a verdict, with its 95 % interval."""

    share: float
    low: float
    high: float


def verdicts_by_rule(report: Measured) -> dict[str, str]:
    """The verdict of a report under each of `RULES`."""
    return {label: judge(report, rule).verdict for label, rule in RULES.items()}


def wrong_go_share(bench: OPEBench, verdicts: Sequence[str] = ("go",)) -> float:
    """Share of the policies truly worse than the behaviour that got one of the verdicts; NaN if none is."""
    worse = [policy.verdict for policy, is_better, _ in bench.cases() if policy.verdict and not is_better]
    return sum(verdict in verdicts for verdict in worse) / len(worse) if worse else math.nan


def verdict_share(judged: Sequence[tuple[str, str]], wanted: Sequence[str]) -> VerdictShare | None:
    """Share of judgements that ended in a wanted verdict, with a 95 % interval; None without judgements.

    The logs of a task judge the same policies, and the policies of a task are judged by the same logs, fits
    and back-tests, so judgements of one task may stand and fall together. The interval is Wilson's at the
    number of independent cases that they are worth if they do, `(sum_t n_t)^2 / sum_t n_t^2` over tasks: Kish
    1965, the effective sample size of clusters of unequal size, at its least.

    Args:
        judged: verdict and task of each judgement.
        wanted: verdicts that are counted.
    """
    if not judged:
        return None
    share = sum(verdict in wanted for verdict, _ in judged) / len(judged)
    sizes = Counter(task for _, task in judged).values()
    cases = len(judged) ** 2 / sum(size**2 for size in sizes)
    return VerdictShare(share, *wilson_interval(share, cases))
