"""Inspection of a log: everything a user should know of it, and whether training may start."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from mbrl.core.errors import DataError
from mbrl.data.assemble import build, episode_problems, log_problems, prepare
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.stats import DatasetStats, summarise
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawLog
from mbrl.data.splits import MIN_EPISODES

Severity = Literal["error", "warning", "note"]

MIN_TRANSITIONS: Final = 1000
MANY_SATURATED: Final = 0.5
MANY_DUPLICATES: Final = 0.01
_MAX_PROBLEMS: Final = 50


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataFinding(_Model):
    """One thing that the user should know.

    Attributes:
        severity: an `error` forbids training, a `warning` makes its result doubtful, a `note` is worth
            knowing.
        text: what was found.
        remedy: what to do about it.
    """

    severity: Severity
    text: str
    remedy: str


class Inspection(_Model):
    """What an inspection found.

    Attributes:
        name: the dataset.
        findings: errors first, then warnings, then notes.
        dropped: what the load dropped or repaired, by reason.
        stats: figures of the sound episodes; None if there are none.
    """

    name: str
    findings: tuple[DataFinding, ...]
    dropped: dict[str, int]
    stats: DatasetStats | None

    @property
    def may_train(self) -> bool:
        """True if nothing found makes training wrong."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_json(self) -> str:
        """One JSON object, with `may_train`."""
        return Inspection.model_dump_json(self)[:-1] + f',"may_train":{str(self.may_train).lower()}}}'


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Examines a dataset that passed its checks."""
    stats = summarise(dataset)
    return Inspection(
        name=dataset.info.name,
        findings=_sorted([*_dataset_findings(dataset), *_stats_findings(stats)]),
        dropped=dict(dataset.dropped),
        stats=stats,
    )


def inspect_log(log: RawLog, options: LoadOptions | None = None) -> Inspection:
    """Examines what a file holds and lists every problem; figures are those of the sound episodes."""
    options = options or LoadOptions()
    problems: list[DataError] = []
    report: Inspection | None = None
    try:
        prepared = prepare(log, options)
        problems += log_problems(prepared, options)
        if options.bad_episodes == "error":
            problems += episode_problems(prepared, options)
        dataset = build(prepared, options.model_copy(update={"bad_episodes": "drop"}))
        report = inspect_dataset(dataset)
    except DataError as error:
        problems += [] if problems else [error]
    if report is not None and not problems:
        return report
    findings = [*_problem_findings(problems), *(report.findings if report else ())]
    return Inspection(
        name=log.info.name,
        findings=_sorted(findings),
        dropped={} if report is None else report.dropped,
        stats=None if report is None else report.stats,
    )


def _problem_findings(problems: list[DataError]) -> Iterator[DataFinding]:
    for problem in problems[:_MAX_PROBLEMS]:
        text = str(problem).partition(" Remedy: ")[0]
        yield DataFinding(severity="error", text=text, remedy=problem.remedy or "Check the file.")
    if len(problems) > _MAX_PROBLEMS:
        rest = Counter(problem.field for problem in problems[_MAX_PROBLEMS:])
        counted = ", ".join(f"{count} in {field}" for field, count in rest.items())
        yield DataFinding(
            severity="error", text=f"Further problems: {counted}.", remedy="Mend the first ones."
        )


def _sorted(findings: list[DataFinding]) -> tuple[DataFinding, ...]:
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda finding: order[finding.severity]))


def _dataset_findings(dataset: Dataset) -> Iterator[DataFinding]:
    for reason, count in dataset.dropped.items():
        text = f"On loading: {reason}, {count} times."
        yield DataFinding(severity="note", text=text, remedy="None needed if that was intended.")
    for key, value in _assumptions(dataset.info.provenance).items():
        text = f"Assumed {key.replace('_', ' ')}: {value}."
        yield DataFinding(severity="warning", text=text, remedy="Give action_low and action_high.")
    logged = [episode.behaviour_log_prob is not None for episode in dataset.episodes]
    if any(logged) and not all(logged):
        text = f"{len(logged) - sum(logged)} of {len(logged)} episodes lack behaviour log-probabilities."
        yield DataFinding(
            severity="warning", text=text, remedy="Use estimators that fit the behaviour policy."
        )


def _assumptions(provenance: Mapping[str, str]) -> dict[str, str]:
    return {key: provenance[key] for key in ("action_bounds",) if key in provenance}


def _stats_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    yield from _size_findings(stats)
    yield from _row_findings(stats)
    yield from _dimension_findings(stats)


def _size_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    if stats.num_transitions < MIN_TRANSITIONS:
        text = f"Only {stats.num_transitions} transitions: a model will hardly generalise from them."
        yield DataFinding(severity="warning", text=text, remedy="Log more data.")
    if stats.num_episodes < MIN_EPISODES:
        text = f"Only {stats.num_episodes} episodes: blocks of time are held out, not whole episodes."
        yield DataFinding(severity="note", text=text, remedy="Log more episodes for a stricter holdout.")
    if stats.terminated == 0:
        text = "No step terminates: the termination head stays off."
        yield DataFinding(
            severity="note", text=text, remedy="Mark failures as terminated if the log has any."
        )
    if stats.unknown_successors:
        text = f"{stats.unknown_successors} terminal steps have no logged successor."
        remedy = "None needed: value learning keeps them, dynamics are learned without them."
        yield DataFinding(severity="note", text=text, remedy=remedy)


def _row_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    if stats.rewards.minimum == stats.rewards.maximum:
        text = f"Every reward is {stats.rewards.mean:g}: there is nothing to prefer."
        yield DataFinding(
            severity="warning", text=text, remedy="Relabel the log with the reward of the task."
        )
    elif max(abs(stats.rewards.minimum), abs(stats.rewards.maximum)) > 100.0:
        text = f"Rewards lie between {stats.rewards.minimum:g} and {stats.rewards.maximum:g}."
        yield DataFinding(severity="note", text=text, remedy="Scale them down if value learning is unstable.")
    if stats.duplicate_rows > MANY_DUPLICATES * stats.num_transitions:
        text = f"{stats.duplicate_rows} transitions repeat an earlier one in every number."
        remedy = "Remove copied episodes: they may stand on both sides of a split."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if stats.inconsistent_rows:
        text = f"{stats.inconsistent_rows} transitions repeat a state and action with another successor."
        remedy = "Check the order of rows; if the machine is random or has hidden state, add what is missing."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if stats.jump_rows:
        text = f"{stats.jump_rows} transitions jump far beyond a usual step."
        remedy = "Look for resets without a flag, gaps in time and wrapped angles."
        yield DataFinding(severity="warning", text=text, remedy=remedy)


def _dimension_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    constant = [dimension.name for dimension in stats.observations if dimension.is_constant]
    if constant:
        text = f"Observation dimensions that never change: {', '.join(constant)}."
        yield DataFinding(severity="note", text=text, remedy="None needed; leave them out to save time.")
    idle = [dimension.name for dimension in stats.actions if dimension.is_constant]
    if idle:
        text = f"Action dimensions that never change: {', '.join(idle)}. Their effect cannot be learned."
        yield DataFinding(severity="warning", text=text, remedy="Leave them out, or log data that vary them.")
    for dimension in stats.actions:
        if dimension.saturation is not None and dimension.saturation > MANY_SATURATED:
            text = f"Action {dimension.name} is at a bound in {100 * dimension.saturation:.0f} % of steps."
            yield DataFinding(
                severity="note", text=text, remedy="Check that the bounds are the machine's own."
            )
