"""May a policy be deployed? A pure function of the report's JSON.

"Cannot tell" is the ordinary answer where logs are thin.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from mbrl.ope.judgement.agreement import disagreement
from mbrl.ope.judgement.findings import Finding, IntervalKey, count_families
from mbrl.ope.judgement.rule import DEFAULT_RULE, JudgeRule

Verdict: TypeAlias = Literal["go", "go_with_guard", "no_go", "cannot_tell"]

EXIT_CODES: Final[Mapping[Verdict, int]] = {"go": 0, "go_with_guard": 10, "no_go": 20, "cannot_tell": 30}


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why.

    Attributes:
        verdict: which of the four.
        reasons: in words.
        families: those that were counted.
        disagreement: largest difference of two counted families in standard errors; None below two.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    families: tuple[str, ...]
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


def judge(
    report: Mapping[str, Any], rule: JudgeRule = DEFAULT_RULE, *, interval: IntervalKey = "ci95"
) -> Judgement:
    """The verdict on one candidate.

    Risk comes first. Then what the counted families say of the difference to the baseline: GO needs two or
    more of them, ratios among these, all above it; GO-WITH-GUARD one, and none that contradicts; NO-GO one
    below it and none above. Anything else is CANNOT-TELL.

    Args:
        report: `estimates` as `Estimate.to_json` gives them, `diagnostics`, `baseline` with `value` and the
            `paired` differences, and where they exist `backtest` and `risk`.
        rule: thresholds.
        interval: which interval of the differences; `ci_corrected` where several candidates are judged.
    """
    counted, problems = count_families(report, rule, interval=interval)
    known = [finding for finding in counted if finding.low is not None and finding.high is not None]
    z = disagreement(counted)
    is_conflict = z is not None and z >= rule.most_disagreement
    risk = _judge_risk(report.get("risk"), interval)
    if risk.is_surely_above:
        verdict: Verdict = "no_go"
    elif len(known) < len(counted):
        verdict = "cannot_tell"
    else:
        verdict = _decide(counted, risk, rule, is_conflict=is_conflict)
    reasons = [*risk.reasons, *(f"{family}: {problem}" for family, problem in problems.items())]
    reasons += [_compared(finding, report["baseline"]) for finding in counted]
    if z is not None and is_conflict:
        reasons.append(f"the families differ by {min(z, 1e6):.1f} standard errors")
    if verdict == "go_with_guard" and "ratio" in problems and not rule.allow_go_without_ratio:
        reasons.append("without ratios that count, a GO is out of reach")
    return Judgement(verdict, tuple(reasons), tuple(finding.family for finding in counted), z)


def _decide(counted: Sequence[Finding], risk: _Risk, rule: JudgeRule, *, is_conflict: bool) -> Verdict:
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


def _judge_risk(risk: Mapping[str, Any] | None, interval: IntervalKey) -> _Risk:
    """Where valid sources stand against the limit; a limit that nothing can speak of is not met."""
    if risk is None or risk.get("limit") is None:
        return _Risk()
    limit, key = risk["limit"], f"p_violation_{interval}"
    known = {
        source["source"]: (source["p_violation"], *source[key])
        for source in risk["sources"]
        if source["valid"] and source["p_violation"] is not None and None not in source.get(key, [None])
    }
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


def _compared(finding: Finding, baseline: Mapping[str, Any]) -> str:
    if finding.low is None or finding.high is None:
        return f"{finding.family}: there is no baseline to compare with"
    name = baseline.get("policy", "behaviour")
    interval = f"{finding.low:+.4g} to {finding.high:+.4g}"
    if finding.low > 0:
        return f"{finding.family}: better than {name}, by {interval}"
    if finding.high < 0:
        return f"{finding.family}: worse than {name}, by {interval}"
    return f"{finding.family}: the difference to {name} may be either way, {interval}"


def _low(finding: Finding) -> float:
    return -float("inf") if finding.low is None else finding.low


def _high(finding: Finding) -> float:
    return float("inf") if finding.high is None else finding.high
