"""The parts of a report that follow from what was measured: agreement, verdict, next data, ranking."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from mbrl.core.estimates import Family
from mbrl.off_policy.judgement.report.records import Number, Record
from mbrl.off_policy.judgement.rule import JudgeRule

VerdictName: TypeAlias = Literal["go", "go_with_guard", "no_go", "cannot_tell"]
"""What may be said of a candidate; see `mbrl.off_policy.judgement.verdict.judge`."""

VERDICT_WORDS: Final[Mapping[VerdictName, str]] = {
    "go": "GO",
    "go_with_guard": "GO WITH GUARD",
    "no_go": "NO-GO",
    "cannot_tell": "CANNOT TELL",
}
"""The same for people."""


class Agreement(Record):
    """Whether the families that count tell the same story.

    Attributes:
        families_used: those that count.
        spread: largest less smallest point.
        pooled_ci: 95 % interval of a common value.
        z: largest difference of two families, standard errors.
        outlier: the one family without which the others agree.
        likely_reason: what the diagnostics say of a conflict.
        paired_z: as `z`, with what the families share cancelled.
    """

    families_used: tuple[Family, ...] = ()
    spread: Number = None
    pooled_ci: tuple[float, float] | None = None
    z: Number = None
    outlier: Family | None = None
    likely_reason: str | None = None
    paired_z: Number = None


class CorrectedVerdict(Record):
    """The verdict by intervals so wide that those of all candidates hold at once.

    Attributes:
        verdict: which of the four.
        reasons: in words.
        candidates: how many were judged together.
    """

    verdict: VerdictName
    reasons: tuple[str, ...]
    candidates: int


class Verdict(Record):
    """May the candidate be deployed?

    Attributes:
        verdict: which of the four.
        reasons: in words.
        thresholds: it was made with.
        corrected: the one that holds for all candidates at once; None for a single one.
    """

    verdict: VerdictName
    reasons: tuple[str, ...]
    thresholds: JudgeRule
    corrected: CorrectedVerdict | None = None

    @property
    def final(self) -> "Verdict | CorrectedVerdict":
        """The corrected verdict where there is one."""
        return self.corrected or self


class LoggedState(Record):
    """A state of the log.

    Attributes:
        episode: index in the log.
        step: of the episode.
    """

    episode: int
    step: int


class OtherData(Record):
    """Another way to more certainty.

    Attributes:
        episodes: how many.
        policy: whose.
        reason: what they would do.
    """

    episodes: int
    policy: str
    reason: str


class NextData(Record):
    """What to collect next, and what it would buy.

    Attributes:
        episodes: how many; None with a reason in `why_not` where nothing is worth collecting.
        policy: whose.
        half_width_now: of the 95 % interval of the difference.
        half_width_then: the same with these episodes.
        shrink: `1 - then / now`.
        reason: what they would do.
        is_enough: False where even the most that is proposed would not do that.
        states: where to start some of them.
        why_not: why nothing is proposed.
        alternatives: other ways.
    """

    episodes: int | None = None
    policy: str | None = None
    half_width_now: Number = None
    half_width_then: Number = None
    shrink: Number = None
    reason: str | None = None
    is_enough: bool | None = None
    states: tuple[LoggedState, ...] = ()
    why_not: str | None = None
    alternatives: tuple[OtherData, ...] = ()


class Ranking(Record):
    """Candidates by joint draws of one estimator.

    Attributes:
        estimator: which.
        counts_for_all: whether it counts for each of them.
        points: its estimate of each.
        p_best: of each, share of the draws in which it is the best.
        regret: mean loss of picking the largest point.
        regret_ci95: 2.5 and 97.5 % of that loss.
    """

    estimator: str
    counts_for_all: bool
    points: tuple[float, ...]
    p_best: tuple[float, ...]
    regret: float
    regret_ci95: tuple[float, float]


class CandidateTrials(Record):
    """What a candidate is thought to be worth, and how often to test it.

    Attributes:
        candidate: its name.
        prior: estimate from the log.
        prior_se: its standard error.
        tested: returns that were seen on the machine.
        mean: estimate with these.
        se: its standard error.
        p_best: chance of being the best.
        next: episodes that it should have next.
    """

    candidate: str
    prior: float
    prior_se: float
    tested: int
    mean: float
    se: float
    p_best: float
    next: int


class TrialPlan(Record):
    """Which candidates to test next on the machine.

    Attributes:
        estimator: whose estimates the prior is.
        episodes: that may be run.
        noise: deviation of one return.
        regret_now: expected loss of picking the largest mean today.
        regret_then: the same after these episodes.
        candidates: in order.
    """

    estimator: str
    episodes: int
    noise: float
    regret_now: float
    regret_then: float
    candidates: tuple[CandidateTrials, ...]
