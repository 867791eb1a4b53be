"""May a policy be deployed? A pure function of the report.

"Cannot tell" is the ordinary answer where logs are thin.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from mbrl.core.estimates import Family
from mbrl.off_policy.judgement.agreement import disagreement
from mbrl.off_policy.judgement.families import CountedFamily, count_families
from mbrl.off_policy.judgement.report.concluded import VerdictName
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Baseline, IntervalKey, Risk
from mbrl.off_policy.judgement.report.records import known_ends
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule

EXIT_CODES: Final[Mapping[VerdictName, int]] = {
    "go": 0,
    "go_with_guard": 10,
    "no_go": 20,
    "cannot_tell": 30,
}
"""Exit status of a command that ends with a verdict; 1 is left to errors."""

_MOST_SHOWN_Z: Final = 1e6
"""Standard errors beyond which a disagreement is shown as this many."""


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why.

    Attributes:
        verdict: which of the four.
        reasons: in words.
        families: those that were counted.
        disagreement: largest difference of two counted families in standard errors; None below two.
    """

    verdict: VerdictName
    reasons: tuple[str, ...]
    families: tuple[Family, ...]
    disagreement: float | None

    @property
    def exit_code(self) -> int:
        """Of a command that ends with this verdict."""
        return EXIT_CODES[self.verdict]


@dataclasses.dataclass(frozen=True, slots=True)
class _Risk:
    """How a limit on the risk stands; all True where none was asked for."""

    is_surely_below: bool = True
    is_likely_below: bool = True
    is_surely_above: bool = False
    reasons: tuple[str, ...] = ()


def judge(report: Measured, rule: JudgeRule = DEFAULT_RULE, *, interval: IntervalKey = "ci95") -> Judgement:
    """The verdict on one candidate.

    Risk comes first. Then what the counted families say of the difference to the baseline: GO needs two or
    more of them, ratios among these, all above it; GO-WITH-GUARD one, and none that contradicts; NO-GO one
    below it and none above. Anything else is CANNOT-TELL.

    Args:
        report: what was measured.
        rule: thresholds.
        interval: which interval of the differences; `ci_corrected` where several candidates are judged.
    """
    counted, problems = count_families(report, rule, interval=interval)
    known = [family for family in counted if family.low is not None and family.high is not None]
    z = disagreement(counted)
    is_conflict = z is not None and z >= rule.most_disagreement
    risk = _judge_risk(report.risk, interval)
    if risk.is_surely_above:
        verdict: VerdictName = "no_go"
    elif len(known) < len(counted):
        verdict = "cannot_tell"
    else:
        verdict = _decide(counted, risk, rule, is_conflict=is_conflict)
    reasons = [*risk.reasons, *(f"{family}: {problem}" for family, problem in problems.items())]
    reasons += [_compared(family, report.baseline) for family in counted]
    if z is not None and is_conflict:
        reasons.append(f"the families differ by {min(z, _MOST_SHOWN_Z):.1f} standard errors")
    if verdict == "go_with_guard" and "ratio" in problems and not rule.allow_go_without_ratio:
        reasons.append("without ratios that count, a GO is out of reach")
    return Judgement(verdict, tuple(reasons), tuple(family.family for family in counted), z)


def _decide(
    counted: Sequence[CountedFamily], risk: _Risk, rule: JudgeRule, *, is_conflict: bool
) -> VerdictName:
    above = [f for f in counted if _low(f) > 0]
    below = [f for f in counted if _high(f) < 0]
    has_ratio = any(f.family == "ratio" for f in counted)
    beats_margin = all(_low(f) > rule.margin for f in counted)
    is_enough = len(counted) >= 2 and (has_ratio or rule.allow_go_without_ratio)
    if is_enough and beats_margin and not is_conflict and risk.is_surely_below:
        return "go"
    contradicted = bool(below) or (is_conflict and len(above) < len(counted))
    if above and not contradicted and risk.is_likely_below:
        return "go_with_guard"
    return "no_go" if below and not above else "cannot_tell"


def _judge_risk(risk: Risk, interval: IntervalKey) -> _Risk:
    """Where valid sources stand against the limit; a limit that nothing can speak of is not met."""
    if risk.limit is None:
        return _Risk()
    limit, known = risk.limit, dict[str, tuple[float, float, float]]()
    for source in risk.sources:
        ends = known_ends(source.violation_ends(interval))
        if source.valid and source.p_violation is not None and ends is not None:
            known[source.source] = (source.p_violation, *ends)
    reasons = tuple(
        f"risk, by {name}: {point:.1%} [{low:.1%}, {high:.1%}], the limit is {limit:.1%}"
        for name, (point, low, high) in known.items()
    )
    return _Risk(
        is_surely_below=bool(known) and all(high < limit for _, _, high in known.values()),
        is_likely_below=bool(known) and all(point < limit for point, _, _ in known.values()),
        is_surely_above=any(low > limit for _, low, _ in known.values()),
        reasons=reasons or (f"risk: nothing valid can speak of the limit of {limit:.1%}",),
    )


def _compared(family: CountedFamily, baseline: Baseline) -> str:
    if family.low is None or family.high is None:
        return f"{family.family}: there is no baseline to compare with"
    interval = f"{family.low:+.4g} to {family.high:+.4g}"
    if family.low > 0:
        return f"{family.family}: better than {baseline.policy}, by {interval}"
    if family.high < 0:
        return f"{family.family}: worse than {baseline.policy}, by {interval}"
    return f"{family.family}: the difference to {baseline.policy} may be either way, {interval}"


def _low(family: CountedFamily) -> float:
    return -float("inf") if family.low is None else family.low


def _high(family: CountedFamily) -> float:
    return float("inf") if family.high is None else family.high
