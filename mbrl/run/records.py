"""The form of what runs write about themselves; a file that was changed is held against it before it is used.

Entries that are not named here are kept: stages may say more.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Text: TypeAlias = Annotated[str, Field(max_length=500)]


class Record(BaseModel):
    """A JSON object with entries that are known and others."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Manifest(Record):
    """Where a run comes from; see `RunFolder.begin`.

    Attributes:
        stage: that made it.
        dataset: its short name.
        label: of the algorithm.
        seed: of the stage.
        hash: digest of all that the result depends on.
        identity: of which that is the digest.
        version: of this package.
        commit: of a clone, or None.
        dataset_hash: of the log's content, or None.
        policy_facts: of the policy that was judged.
        resumes: how often it was continued.
        wall_seconds: of all attempts.
        wall_seconds_before: of those before the present one.
    """

    stage: Text
    dataset: Text
    label: Text
    seed: Count
    hash: Text
    identity: dict[str, Any]
    version: Text
    commit: Text | None = None
    dataset_hash: Text | None = None
    policy_facts: dict[str, Any] = Field(default_factory=dict)
    resumes: Count
    wall_seconds: Seconds
    wall_seconds_before: Seconds


class IntervalRecord(Record):
    """See `mbrl.evaluation.statistics.Interval`; what is not finite is None."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    n: int


class EvaluationSummary(Record):
    """Of an evaluation in a simulator; see `mbrl.evaluation.evaluator.Evaluation`."""

    algorithm: str
    task: str
    seed: int
    is_deterministic: bool
    episode_returns: Annotated[tuple[float, ...], Field(min_length=1)]
    episode_lengths: tuple[int, ...]
    terminated: tuple[bool, ...]
    discounted_returns: tuple[float, ...] | None
    discount: float | None
    normalised_scores: tuple[float, ...] | None
    return_interval: IntervalRecord
    score_interval: IntervalRecord | None
    environment_steps: int
    seconds: float | None

    @model_validator(mode="after")
    def _episodes_agree(self) -> "EvaluationSummary":
        count = len(self.episode_returns)
        columns = (self.episode_lengths, self.terminated, self.discounted_returns, self.normalised_scores)
        if any(column is not None and len(column) != count for column in columns):
            raise ValueError(f"there are {count} returns, and other numbers of lengths, flags or scores")
        return self


class TrainingSummary(Record):
    """Of a training.

    Attributes:
        algorithm: its name.
        recipe: of it.
        learner: of it.
        online: whether a simulator was met.
        dataset: that it learned from, or None.
        task: that it is for, or None.
        seed: of the training.
        updates: that were made.
        seconds: of all attempts.
        last_metrics: the last row of the metrics.
        divergence: excursions of the values.
        shift: what the diagnostics found, or None.
        value_bounds: that the rewards permit, or None.
    """

    algorithm: str
    recipe: str
    learner: str
    online: bool
    dataset: str | None
    task: str | None
    seed: int
    updates: int
    seconds: float
    last_metrics: dict[str, float]
    divergence: tuple[dict[str, Any], ...]
    shift: "ShiftRecord | None"
    value_bounds: tuple[float, float] | None
    recovered_reward: "RecoveredRewardRecord | None" = None
    selection: "SelectionRecord | None" = None
    exploitation: "ExploitationRecord | None" = None

    @model_validator(mode="after")
    def _candidates_have_updates(self) -> "TrainingSummary":
        found = () if self.selection is None else self.selection.contestants
        if any(type(one.changes.get("updates")) is not int for one in found):
            raise ValueError("a policy that might have been selected says no updates")
        if self.exploitation is not None and len(self.exploitation.own) != len(found):
            raise ValueError("the own model valued another number of policies than there are")
        return self


class RecoveredRewardRecord(Record):
    """See `mbrl.run.preferences.recovered.RecoveredReward`."""

    steps: Count
    pearson: float | None
    spearman: float | None


class SelectedRecord(Record):
    """See `mbrl.run.judge.selection.Contestant`; NaN is None."""

    changes: Annotated[dict[str, Any], Field(min_length=1)]
    path: str
    low: float | None
    point: float | None
    problem: str | None
    judged: "JudgedRecord | None" = None


class JudgedRecord(Record):
    """See `mbrl.off_policy.value.judged.JudgedValue`."""

    member_spread: float | None
    by_judge: tuple[float | None, ...]


class HonestRecord(Record):
    """See `mbrl.off_policy.value.judged.HonestValue`."""

    mean: float | None
    low: float | None
    high: float | None


class SelectionRecord(Record):
    """See `mbrl.run.judge.selection.Selection`.

    Attributes:
        rule: of the choice.
        contestants: in order.
        chosen: index of one.
        honest: its value by other evidence, or None.
        facts: who was asked what; None where no judges were.
    """

    rule: str
    contestants: Annotated[tuple[SelectedRecord, ...], Field(min_length=1)]
    chosen: Count
    honest: HonestRecord | None = None
    facts: "JudgesRecord | None" = None

    @model_validator(mode="after")
    def _one_is_chosen(self) -> "SelectionRecord":
        if self.chosen >= len(self.contestants):
            raise ValueError(f"number {self.chosen} of {len(self.contestants)} is chosen")
        return self


class JudgesRecord(Record):
    """See `mbrl.run.judge.judges.Judges.facts`."""

    question: Text
    horizon: Count
    horizon_source: Text
    starts: Count
    held_out_starts: Count
    draws: Literal["mean", "sample"]
    backtest: "WordsRecord | None"
    termination: Literal["task", "learned", "never"]
    warnings: tuple[str, ...]
    judges: tuple["JudgeRecord", ...]


class WordsRecord(Record):
    """Something in words."""

    words: str


class JudgeRecord(Record):
    """One judge."""

    members: Count


class ExploitationRecord(Record):
    """See `mbrl.run.judge.exploitation.Exploitation`."""

    own: tuple[float | None, ...]
    warnings: tuple[str, ...]


class ShiftRecord(Record):
    """See `mbrl.shift.report.ShiftReport`."""

    alarms: tuple[str, ...]


class PlanSummary(EvaluationSummary):
    """Of a planner on top of a policy; see `mbrl.run.plan.planning`."""

    planner: str
    config: "PlanBudget"
    policy_returns: Annotated[tuple[float, ...], Field(min_length=1)]
    policy_interval: IntervalRecord
    gain_interval: IntervalRecord
    plans: "PlanCounts"
    critic: str
    critic_converged: bool | None
    calibration: "PlanPrices"
    certificate: "CertificateRecord | None"
    gate: "GateRecord | None" = None
    limits: "LimitsRecord | None" = None


class LimitsRecord(Record):
    """What plans had to keep to, and how the log did; see `mbrl.run.plan.limits`."""

    constraint: str | None
    max_violation: float
    cost: str | None
    steps_broken: float | None
    episodes_broken: float | None
    cost_per_step: float | None
    cost_per_episode: float | None


class PlanBudget(Record):
    """What the planner may spend on a call."""

    sims: int | None
    milliseconds: float | None
    pessimism: float


class CallQuantiles(Record):
    """Milliseconds of a call."""

    p50: float
    p95: float
    p99: float


class PlanCounts(Record):
    """What its calls took."""

    calls: int
    batch: float
    milliseconds: CallQuantiles
    plans_per_second: float | None
    deadline_misses: int | None
    fallback_share: float
    sims_per_plan: float
    uncertainty: float | None


class PlanPrices(Record):
    """What uncertainty costs, as calibrated."""

    penalty_coef: float
    lcb_coef: float


class CertificateRecord(Record):
    """See `mbrl.planning.certificate.Certificate`."""

    mean: float | None
    low: float | None
    improved: float | None
    quantiles: Annotated[tuple[float, ...], Field(min_length=1)]
    states: int
    episodes: int


class GateRecord(Record):
    """See `mbrl.planning.improvement.gate.Gate`."""

    threshold: float | None
    verdict: str
    correlation: float | None
    estimated: tuple[float, ...]
    realised: tuple[float, ...]
    points: tuple["GatePointRecord", ...]
    asked: int


class GatePointRecord(Record):
    """See `mbrl.planning.improvement.gate.GatePoint`."""

    level: float
    states: int
    estimated: float
    realised: float
    low: float | None
