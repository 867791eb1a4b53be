"""What `mbrl auto` found, as one typed document."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

VERSION: Final = 1
"""Of the document."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateResult(_Plain):
    """A candidate, by the policy along its training that judges find best.

    Attributes:
        label: in the portfolio.
        path: folder of its training.
        policy: file of that policy, below the folder.
        step: updates after which it was kept.
        updates: of the whole training.
        seconds: that the training took, judging included.
        mean: judged return; None where a model broke down.
        interval: 95 % interval of it.
        gain: lower bound of what it is better by than the behaviour; None likewise, or if nobody knows that.
        by_judge: judged return of each judge.
        last: judged return of the policy of the last update.
    """

    label: str
    path: str
    policy: str
    step: int
    updates: int
    seconds: float
    mean: float | None
    interval: tuple[float | None, float | None]
    gain: float | None
    by_judge: tuple[float | None, ...]
    last: float | None


class BehaviourResult(_Plain):
    """What is to be improved on; see `mbrl.study.auto.choice.Behaviour`."""

    mean: float
    error: float
    episodes: int
    judged: float | None


class EstimateResult(_Plain):
    """What off-policy estimates say of the pick.

    Attributes:
        verdict: `go`, `go_with_guard`, `no_go` or `cannot_tell`.
        words: the verdict and its reasons, in sentences.
        page: of the report.
    """

    verdict: str
    words: tuple[str, ...]
    page: str


class AutoReport(_Plain):
    """Everything that was tried, and what is taken.

    Attributes:
        version: of this form.
        log: name of the log.
        dataset_hash: of its content.
        portfolio: name of the config.
        question: what a policy is worth, in words.
        minutes: that were asked for.
        jobs: side by side.
        seconds: of each phase.
        behaviour: what is to be improved on; None where the log does not tell.
        candidates: the simplest first.
        left_out: candidates that were not tried, with the reason.
        best: index of the candidate with the largest lower bound of the gain.
        taken: index of the one that is taken; None for none.
        reason: in a sentence.
        honest: `HonestValue` of the best among all kept policies by evidence that had no say, plain values;
            None where there is no such evidence.
        facts: who judged, and how (`Judges.facts`).
        estimate: off-policy estimates of the pick; None where none were made.
        no_estimate: why not.
        warnings: with their remedies.
        policy: file of the pick; None for none.
        next_to_log: what further data should show, in sentences, as the first judge knows it.
    """

    version: int = VERSION
    log: str
    dataset_hash: str
    portfolio: str
    question: str
    minutes: float
    jobs: int
    seconds: dict[str, float]
    behaviour: BehaviourResult | None
    candidates: tuple[CandidateResult, ...]
    left_out: dict[str, str]
    best: int
    taken: int | None
    reason: str
    honest: dict[str, Any] | None
    facts: dict[str, Any]
    estimate: EstimateResult | None = None
    no_estimate: str | None = None
    warnings: tuple[str, ...] = ()
    policy: str | None = None
    next_to_log: tuple[str, ...] = ()
