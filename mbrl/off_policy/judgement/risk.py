"""How bad an episode may become: the probability of an event, and the mean of the worst tenth.

The event is an episode-level reward of 1 at the end, so it has the same estimators and the same intervals as
the return. Weighted logged episodes and model roll-outs answer separately; both are reported.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.off_policy.judgement.report.measured import Risk, RiskSource
from mbrl.off_policy.log.censoring import whole_episodes, why_not_known
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.log.weights import final_block, final_ess
from mbrl.off_policy.statistics.bounds import LEVEL, Ends, default_interval
from mbrl.off_policy.statistics.distribution import WORST, ReturnDistribution, cvar_payload
from mbrl.off_policy.statistics.ensembles import member_interval
from mbrl.off_policy.statistics.self_normalised import Term, influence_values
from mbrl.ops.shares import wilson_interval

QUANTILE_LEVELS: Final = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Levels at which quantiles of the return are reported."""

Event: TypeAlias = Literal["termination", "below"]


@dataclasses.dataclass(frozen=True, slots=True)
class RiskQuestion:
    """An event that should be rare.

    Attributes:
        event: `termination` before the horizon, or a return `below` the threshold, discounted as that of the
            estimand.
        threshold: of the return, units of the estimand.
        limit: probability that is still permitted; None asks without a limit.

    Raises:
        ConfigError: threshold or limit do not go with the event.
    """

    event: Event = "termination"
    threshold: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.event == "below"):
            raise ConfigError(
                "A risk needs a threshold of the return for `below`, and none for `termination`."
            )
        if self.limit is not None and not 0 < self.limit <= 1:
            raise ConfigError(
                f"The limit of a risk is a probability above 0 and up to 1, not {self.limit:g}."
            )

    @classmethod
    def parse(cls, text: str) -> "RiskQuestion":
        """From `termination:LIMIT` or `below:RETURN:LIMIT`.

        Raises:
            ConfigError: it is neither.
        """
        event, *numbers = text.split(":")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if event == "termination" and len(values) == 1:
            return cls("termination", None, values[0])
        if event == "below" and len(values) == 2:
            return cls("below", *values)
        raise ConfigError(f"{text!r} is no risk. Legal forms: termination:LIMIT, below:RETURN:LIMIT.")

    @property
    def text(self) -> str:
        """In words."""
        if self.threshold is None:
            return "the episode terminates before its horizon"
        return f"the return is below {self.threshold:g}"

    def is_violated(self, returns: Array, terminated: NDArray[np.bool_]) -> Array:
        """1.0 for each episode that shows the event; arrays of one shape."""
        return (terminated if self.threshold is None else returns < self.threshold).astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"event": self.event, "threshold": self.threshold, "limit": self.limit, "text": self.text}


def risk_section(
    plain: OPEArrays,
    ratios: OPEArrays | None,
    rollouts: tuple[Array, str | None] | None,
    question: RiskQuestion,
    *,
    level: float = LEVEL,
) -> Risk:
    """Probability of the event and the worst tenth, by every source; those of the first valid one in front.

    Args:
        plain: the log without ratios.
        ratios: the log with them, or None.
        rollouts: `[2, m, n]` returns and terminations, and why they do not count; None without a model.
        question: which event.
        level: of the intervals.
    """
    sources: list[RiskSource] = []
    if ratios is not None:
        sources.append(ratio_risk(ratios, question, level=level))
    if rollouts is not None:
        (returns, ended), why_not = rollouts
        sources.append(rollout_risk(returns, ended > 0, question, why_not=why_not, level=level))
    first = next((source for source in sources if source.valid), None)
    return Risk(
        event=question.event,
        text=question.text,
        threshold=question.threshold,
        limit=question.limit,
        p_violation=None if first is None else first.p_violation,
        p_violation_ci95=None if first is None else first.p_violation_ci95,
        cvar10=None if first is None else first.cvar10,
        cvar10_ci95=None if first is None else first.cvar10_ci95,
        sources=tuple(sources),
        behaviour=behaviour_risk(plain, question, level=level),
    )


def risk_reasons(risk: Risk) -> dict[str, str]:
    """Why its figures are None, by `risk.field`; empty where a source counts."""
    if risk.p_violation is not None:
        return {}
    reason = "no source that counts: it takes ratios with enough effective episodes, or a model"
    fields = ("p_violation", "p_violation_ci95", "cvar10", "cvar10_ci95")
    return {f"risk.{field}": reason for field in fields}


def with_corrected_intervals(risk: Risk, wide: Risk) -> Risk:
    """The risk with the wider intervals of the same sources beside its own.

    Args:
        risk: at its own level.
        wide: of the same question and sources, at the level that holds for all candidates.
    """
    ends = {source.source: source.p_violation_ci95 for source in wide.sources}
    sources = (
        source.model_copy(update={"p_violation_ci_corrected": ends[source.source]}) for source in risk.sources
    )
    return risk.model_copy(update={"sources": tuple(sources)})


def ratio_risk(arrays: OPEArrays, question: RiskQuestion, *, level: float = LEVEL) -> RiskSource:
    """Risk from logged returns, weighted by the normalised ratios of whole episodes.

    Args:
        arrays: padded log with ratios; whole episodes stand for those that were cut.
        question: which event.
        level: of the intervals.
    """
    unknown = why_not_known(arrays)
    if unknown is not None:
        return _unknown("ratio", unknown)
    arrays = whole_episodes(arrays)
    block = final_block(arrays)
    share, problem = block.share[:, -1], WeightEvidence.of_log(arrays).problem()
    if not np.isfinite(share).all():
        return _unknown("ratio", "every weight is 0")
    returns = arrays.returns() * arrays.estimand.scale
    violated = question.is_violated(returns, arrays.terminated)
    distribution = ReturnDistribution.make(returns, share)
    worst = cvar_payload(returns, distribution.quantile(WORST))
    return _source(
        "ratio",
        None if problem is None else problem[0],
        event=(float(share @ violated), _weighted_ends(share, violated, level)),
        worst=(distribution.cvar(), _weighted_ends(share, worst, level)),
        distribution=distribution,
        n_eff=final_ess(arrays),
        level=level,
    )


def behaviour_risk(arrays: OPEArrays, question: RiskQuestion, *, level: float = LEVEL) -> RiskSource:
    """The same of the policy that acted: every logged episode has the same weight."""
    plain = dataclasses.replace(arrays, log_ratio=np.zeros(arrays.reward.shape))
    return ratio_risk(plain, question, level=level).model_copy(update={"source": "behaviour"})


def rollout_risk(
    returns: Array,
    terminated: NDArray[np.bool_],
    question: RiskQuestion,
    *,
    why_not: str | None,
    level: float = LEVEL,
) -> RiskSource:
    """Risk from model roll-outs, one of each member from each first state.

    Args:
        returns: `[m, n]` discounted returns, units of the estimand.
        terminated: `[m, n]`, whether the imagined episode terminated before the horizon.
        question: which event.
        why_not: why the value of the same roll-outs does not count; None if it does.
        level: of the intervals.
    """
    n = returns.shape[1]
    violated = question.is_violated(returns, terminated)
    distribution = ReturnDistribution.make(returns.ravel(), np.ones(returns.size))
    quantile = np.quantile(returns, WORST, axis=1, method="inverted_cdf")[:, None]
    worst = cvar_payload(returns, quantile)
    return _source(
        "model",
        why_not,
        event=(float(violated.mean()), _member_ends(violated, level)),
        worst=(float(worst.mean()), _member_ends(worst, level)),
        distribution=distribution,
        n_eff=float(n),
        level=level,
    )


def _source(
    name: str,
    problem: str | None,
    *,
    event: tuple[float, Ends],
    worst: tuple[float, Ends],
    distribution: ReturnDistribution,
    n_eff: float,
    level: float,
) -> RiskSource:
    """An interval of a share is never narrower than Wilson's at the effective number of episodes.

    No resample holds an event that the sample lacks, so a bootstrap would call it impossible.
    """
    share = min(max(event[0], 0.0), 1.0)
    ends = wilson_interval(share, n_eff, level=level)
    if np.isfinite(event[1]).all():
        ends = (max(0.0, min(ends[0], event[1][0])), min(1.0, max(ends[1], event[1][1])))
    return RiskSource(
        source=name,
        p_violation=share,
        p_violation_ci95=ends,
        cvar10=worst[0],
        cvar10_ci95=worst[1],
        quantiles=tuple(distribution.quantile(level) for level in QUANTILE_LEVELS),
        n_eff=n_eff,
        valid=problem is None,
        why_not=problem,
    )


def _unknown(name: str, reason: str) -> RiskSource:
    return RiskSource(source=name, n_eff=0.0, valid=False, why_not=reason)


def _weighted_ends(share: Array, payload: Array, level: float) -> Ends:
    def terms() -> Iterator[Term]:
        yield Term(share[:, None], payload[:, None], np.ones(1))

    return default_interval(terms, influence_values(terms, share.size), level=level).ends


def _member_ends(values: Array, level: float) -> Ends:
    n = values.shape[1]
    within = float(values.mean(0).var(ddof=1)) / n if n > 1 else 0.0
    return member_interval(values.mean(1), within, level=level)[1]
