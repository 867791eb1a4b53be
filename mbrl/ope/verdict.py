"""May a policy be deployed? A pure function of the report's JSON.

One primary estimator stands for each family, fixed in advance: `pdwis` for ratios, `fqe` for values. Others
are shown and not counted. "Cannot tell" is the ordinary answer where logs are thin.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Verdict: TypeAlias = Literal["go", "go_with_guard", "no_go", "cannot_tell"]

EXIT_CODES: Final[Mapping[Verdict, int]] = {"go": 0, "go_with_guard": 10, "no_go": 20, "cannot_tell": 30}
PRIMARY: Final[Mapping[str, str]] = {"ratio": "pdwis", "value": "fqe", "model": "model_value"}


class JudgeRule(BaseModel):
    """Thresholds of the verdict.

    Attributes:
        margin: by which a GO must beat the baseline, in units of the estimand.
        least_ess: effective episodes below which ratios are not counted.
        most_pareto_k: tail shape of the weights from which on ratios are not counted.
        most_tail_share: share of bootstrapped tails above which a ratio estimate is not counted.
        most_disagreement: difference of two families in standard errors that counts as a conflict.
        allow_go_without_ratio: let GO stand where ratios are not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    margin: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    least_ess: Annotated[float, Field(ge=0, le=1e12)] = 30.0
    most_pareto_k: Annotated[float, Field(ge=0, le=10)] = 0.7
    most_tail_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    most_disagreement: Annotated[float, Field(gt=0, le=100)] = 2.0
    allow_go_without_ratio: bool = False


DEFAULT_RULE: Final = JudgeRule()


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
class _Finding:
    family: str
    point: float
    se: float
    low: float
    high: float


def judge(report: Mapping[str, Any], rule: JudgeRule = DEFAULT_RULE) -> Judgement:
    """The verdict on one candidate.

    Args:
        report: `estimates` as `Estimate.to_json` gives them, `diagnostics` with `pareto_k`, and
            `baseline` with `value`, to which interval ends are compared.
        rule: thresholds.
    """
    reasons: list[str] = []
    counted: list[_Finding] = []
    for family, name in PRIMARY.items():
        found = [e for e in report["estimates"] if e["name"] == name]
        if not found:
            reasons.append(f"{family}: {name} was not estimated")
            continue
        problem = _problem(family, found[0], report["diagnostics"], rule)
        if problem is not None:
            reasons.append(f"{family}: {problem}")
            continue
        estimate = found[0]
        counted.append(_Finding(family, estimate["point"], estimate["se"], *estimate["ci95"]))
    baseline = report["baseline"]["value"]
    disagreement = _disagreement(counted)
    verdict = "cannot_tell" if baseline is None else _decide(counted, baseline, disagreement, rule)
    reasons += [_compared(finding, baseline) for finding in counted if baseline is not None]
    if disagreement is not None and disagreement >= rule.most_disagreement:
        reasons.append(f"the families differ by {disagreement:.1f} standard errors")
    return Judgement(verdict, tuple(reasons), tuple(f.family for f in counted), disagreement)


def _problem(
    family: str, estimate: Mapping[str, Any], diagnostics: Mapping[str, Any], rule: JudgeRule
) -> str | None:
    """Why a family is not counted; None if it is."""
    if not estimate["valid"]:
        return str(estimate["why_not"])
    if estimate["point"] is None or estimate["se"] is None or None in estimate["ci95"]:
        return "it has no interval"
    return _ratio_problem(estimate, diagnostics, rule) if family == "ratio" else None


def _ratio_problem(
    estimate: Mapping[str, Any], diagnostics: Mapping[str, Any], rule: JudgeRule
) -> str | None:
    if estimate["n_eff"] is None or estimate["n_eff"] < rule.least_ess:
        return f"{estimate['n_eff'] or 0:.1f} effective episodes, {rule.least_ess:g} are needed"
    pareto_k = diagnostics.get("pareto_k")
    if pareto_k is not None and pareto_k >= rule.most_pareto_k:
        return f"the weights have too heavy a tail (Pareto k {pareto_k:.2f})"
    tail_share = estimate.get("tail_share") or 0.0
    if tail_share > rule.most_tail_share:
        return f"{tail_share:.0%} of it are bootstrapped tails"
    return None


def _decide(counted: list[_Finding], baseline: float, disagreement: float | None, rule: JudgeRule) -> Verdict:
    above = [f for f in counted if f.low > baseline]
    below = [f for f in counted if f.high < baseline]
    clash = disagreement is not None and disagreement >= rule.most_disagreement
    has_ratio = any(f.family == "ratio" for f in counted)
    beats_margin = all(f.low > baseline + rule.margin for f in counted)
    if len(counted) >= 2 and beats_margin and not clash and (has_ratio or rule.allow_go_without_ratio):
        return "go"
    contradicted = bool(below) or (clash and len(above) < len(counted))
    if above and not contradicted:
        return "go_with_guard"
    if below and not above:
        return "no_go"
    return "cannot_tell"


def _disagreement(counted: list[_Finding]) -> float | None:
    pairs = [(f, h) for k, f in enumerate(counted) for h in counted[k + 1 :]]
    if not pairs:
        return None
    return max(_z(f, h) for f, h in pairs)


def _z(first: _Finding, second: _Finding) -> float:
    gap, spread = abs(first.point - second.point), math.hypot(first.se, second.se)
    return gap / spread if spread > 0 else (0.0 if gap == 0 else 1e9)


def _compared(finding: _Finding, baseline: float) -> str:
    if finding.low > baseline:
        position = "lies above"
    else:
        position = "lies below" if finding.high < baseline else "holds"
    interval = f"[{finding.low:.4g}, {finding.high:.4g}]"
    return f"{finding.family}: the interval {interval} {position} the baseline {baseline:.4g}"
