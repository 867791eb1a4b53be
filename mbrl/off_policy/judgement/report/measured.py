"""The parts of a report that are measured: estimates, data, diagnostics, baseline, risk and back-test."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from mbrl.core.estimates import Estimate, Family, Flag
from mbrl.off_policy.judgement.report.records import Ends, Number, Numbers, Record

LARGEST_SHARE: Final = 1e9
"""Share of a bootstrapped tail in a value of 0: JSON has no infinity, and None would mean no tail."""

IntervalKey: TypeAlias = Literal["ci95", "ci_corrected"]
"""An interval of its own, or one that is wide enough to be one of several."""


class ReportedEstimate(Record):
    """One estimator's answer.

    Attributes:
        name: id of the estimator.
        family: where its knowledge comes from.
        point: the estimate, units of the estimand; None with the reason in `why_not`.
        ci95: 95 % interval.
        method_of_ci: how the interval was made, or why there is none.
        se: standard error.
        n_eff: effective number of episodes behind it.
        flags: what to know before believing it.
        valid: whether it may enter a verdict.
        why_not: the reason if it may not.
        tail_share: share of it that fitted values stand for in place of what cuts left out, or of what
            roll-outs left out; None where it takes none, or consists of fitted values.
    """

    name: str
    family: Family
    point: Number
    ci95: Ends
    method_of_ci: str
    se: Number
    n_eff: Number
    flags: tuple[Flag, ...] = ()
    valid: bool = True
    why_not: str | None = None
    tail_share: Number = None

    @classmethod
    def of(cls, estimate: Estimate) -> "ReportedEstimate":
        """What a report keeps of an estimate."""
        tail_share = estimate.details.get("tail_share")
        return cls(
            name=estimate.name,
            family=estimate.family,
            point=estimate.point,
            ci95=estimate.ci95,
            method_of_ci=estimate.method_of_ci,
            se=estimate.se,
            n_eff=estimate.n_eff,
            flags=estimate.flags,
            valid=estimate.valid,
            why_not=estimate.why_not,
            tail_share=None if tail_share is None else min(tail_share, LARGEST_SHARE),
        )


class LoggedData(Record):
    """What the log holds.

    Attributes:
        name: of the dataset.
        episodes: how many.
        steps: of all episodes.
        terminals: episodes that terminated.
        time_outs: episodes that were cut, by the time limit or else.
        censored: those that were cut before the horizon, so that their returns are not known.
        length_quantiles: shortest, quartiles and longest episode, steps.
        return_std: deviation of the returns, units of the estimand.
        behaviour: `given` where the log holds the densities of its actions, else `fitted`.
        fit_nll: nats an action of the fitted density on held-out episodes.
        calibration_error: of the fitted density, in [0, 1].
        floored_rows: rows whose fitted density was raised.
    """

    name: str
    episodes: int
    steps: int
    terminals: int
    time_outs: int
    censored: int = 0
    length_quantiles: tuple[float, ...]
    return_std: Number = None
    behaviour: Literal["given", "fitted"] | None = None
    fit_nll: Number = None
    calibration_error: Number = None
    floored_rows: int | None = None


SegmentKind: TypeAlias = Literal["support", "weight"]
"""Steps at which the policy leaves the log's actions, or steps that carry the weight of the ratios."""


class Segment(Record):
    """Successive steps of one episode that are worth a look.

    Attributes:
        kind: why.
        episode: index in the log.
        first_step: of the segment.
        last_step: of the segment, included.
        length: steps of the episode.
        share: of the steps outside of the support, or of all episodes' weight at these steps.
        score: sum over the steps of what exceeds a fair share; segments are ordered by it.
    """

    kind: SegmentKind
    episode: int
    first_step: int
    last_step: int
    length: int
    share: float
    score: float


class SupportByTime(Record):
    """Share of logged states where the policy leaves the log, by step of the episode.

    Attributes:
        step: first step of each bin.
        share: outside of the support.
        count: logged states.
    """

    step: tuple[int, ...]
    share: tuple[float, ...]
    count: tuple[int, ...]


class SupportByPlace(Record):
    """The same over the plane of the first two principal components of the states.

    Attributes:
        x: centre of each cell that holds a state, deviations.
        y: likewise.
        share: outside of the support.
        count: logged states.
        explained: share of the variance along x and along y.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    share: tuple[float, ...]
    count: tuple[int, ...]
    explained: tuple[float, float]


class Diagnostics(Record):
    """How far the families may be trusted on this log; what was not measured is None.

    Attributes:
        ess_t: effective episodes of the ratios, by step.
        effective_horizon: steps for which they are enough.
        max_weight_share: largest share of one episode in the weight of a step.
        live_share: share of the weight on episodes that still run, by step.
        mean_weight: mean cumulative weight, by step; 1 in expectation under the right density.
        mean_ratio_z: (mean ratio - 1) / standard error, by step.
        pareto_k: tail shape of the last weights.
        weight_beyond: share of the discounted steps beyond `effective_horizon`.
        clipped_mass: share of the weights that clipping removed.
        clip_bias_bound: most that clipping can shift an estimate, units of the plain sum.
        support_share: share of the policy's actions that the log does not know.
        support_method: how that was judged (`SupportMap`).
        support_by_time: the same by step.
        support_by_place: the same over the states.
        segments: steps to look at, both kinds.
        fqe_drift: relative movement of the fitted value at the end of its fit.
        model_disagreement_share: share of imagined steps at which the members know too little.
        model_rollouts: how many there were.
        stopped: roll-outs that ended at a step because the members disagreed.
        clip_rate: share of the live roll-outs that were clipped to the data, by step.
        exploitation_alarm: whether the policy seems to exploit the model's errors.
    """

    ess_t: Numbers | None = None
    effective_horizon: int | None = None
    max_weight_share: Number = None
    live_share: Numbers | None = None
    mean_weight: Numbers | None = None
    mean_ratio_z: Numbers | None = None
    pareto_k: Number = None
    weight_beyond: Number = None
    clipped_mass: Number = None
    clip_bias_bound: Number = None
    support_share: Number = None
    support_method: Literal["density", "distance"] | None = None
    support_by_time: SupportByTime | None = None
    support_by_place: SupportByPlace | None = None
    segments: tuple[Segment, ...] = ()
    fqe_drift: Number = None
    model_disagreement_share: Number = None
    model_rollouts: int | None = None
    stopped: tuple[int, ...] | None = None
    clip_rate: Numbers | None = None
    exploitation_alarm: bool | None = None


class KnownValue(Record):
    """Mean logged return of the policy that acted, and its standard error; units of the estimand."""

    mean: Number
    se: Number


class Backtest(Record):
    """What estimators said of the value of the policy that acted, which the log tells.

    Attributes:
        policy: who was evaluated, in words.
        folds: parts of the episodes; each was held out once.
        clone_nll: held-out negative log-likelihood of the clone, nats a step.
        truth: what the log tells.
        point: by estimator, mean over the folds.
        se: by estimator.
        z: by estimator, `(point - truth) / sqrt(se^2 + truth_se^2)`.
        why_not: why nothing was tested.
        why_no_z: by estimator, why it has none.
    """

    policy: str
    truth: KnownValue
    folds: int = 2
    clone_nll: Number = None
    point: Mapping[str, Number] = {}
    se: Mapping[str, Number] = {}
    z: Mapping[str, Number] = {}
    why_not: str | None = None
    why_no_z: Mapping[str, str] = {}


class PairedDifference(Record):
    """The candidate's estimate less the baseline's, with what both share cancelled.

    Attributes:
        difference: units of the estimand.
        se: standard error of the difference.
        ci95: 95 % interval.
        method: how it was paired.
        ci_corrected: interval at the level at which those of all candidates hold at once; None for one.
        why_not: why the baseline's side of it does not count.
    """

    difference: Number
    se: Number
    ci95: Ends
    method: str = "paired"
    ci_corrected: Ends | None = None
    why_not: str | None = None

    def ends(self, interval: IntervalKey) -> Ends | None:
        """The interval that is asked for."""
        return self.ci95 if interval == "ci95" else self.ci_corrected


class Baseline(Record):
    """What the candidate is compared with.

    Attributes:
        policy: its name; `behaviour` for the policy that acted.
        estimator: of its value; None for the mean logged return.
        value: units of the estimand.
        se: standard error.
        ci95: 95 % interval.
        paired: differences to it, by estimator.
    """

    policy: str
    value: Number = None
    estimator: str | None = None
    se: Number = None
    ci95: Ends | None = None
    paired: Mapping[str, PairedDifference] | None = None

    def difference(self, estimator: str) -> PairedDifference | None:
        """The paired difference of an estimator; None where there is none."""
        return None if self.paired is None else self.paired.get(estimator)


class RiskSource(Record):
    """What one source says of an event that should be rare, and of bad episodes.

    Attributes:
        source: `ratio` (weighted episodes), `model` (roll-outs) or `behaviour` (plain episodes).
        p_violation: probability of the event.
        p_violation_ci95: its 95 % interval.
        cvar10: mean return of the worst tenth of the mass, units of the estimand.
        cvar10_ci95: its 95 % interval.
        quantiles: of the return at `QUANTILE_LEVELS`.
        n_eff: effective number of episodes.
        valid: whether it counts.
        why_not: the reason if it does not.
        p_violation_ci_corrected: interval at a level that holds for all candidates at once; None for one.
    """

    source: str
    p_violation: Number = None
    p_violation_ci95: Ends | None = None
    cvar10: Number = None
    cvar10_ci95: Ends | None = None
    quantiles: Numbers | None = None
    n_eff: Number = 0.0
    valid: bool = True
    why_not: str | None = None
    p_violation_ci_corrected: Ends | None = None

    def violation_ends(self, interval: IntervalKey) -> Ends | None:
        """The interval of the probability that is asked for."""
        return self.p_violation_ci95 if interval == "ci95" else self.p_violation_ci_corrected


class Risk(Record):
    """How bad an episode may become.

    Attributes:
        event: which event should be rare.
        threshold: of the return, for `below`.
        limit: probability that is still permitted; None if none was set.
        text: the event in words.
        p_violation: of the first source that counts, like the next three.
        p_violation_ci95: its 95 % interval.
        cvar10: mean return of the worst tenth.
        cvar10_ci95: its 95 % interval.
        sources: everyone's answer.
        behaviour: the same of the policy that acted.
    """

    event: Literal["termination", "below"]
    text: str
    threshold: float | None = None
    limit: float | None = None
    p_violation: Number = None
    p_violation_ci95: Ends | None = None
    cvar10: Number = None
    cvar10_ci95: Ends | None = None
    sources: tuple[RiskSource, ...] = ()
    behaviour: RiskSource
