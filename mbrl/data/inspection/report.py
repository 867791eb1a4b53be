"""Inspection of a log: everything a user should know of it, and whether training may start."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.data.assemble import build, episode_problems, log_problems, prepare
from mbrl.data.dataset import Dataset
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.inspection.examine import examine
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.findings import dataset_findings, stats_findings
from mbrl.data.inspection.fitness import fit_findings
from mbrl.data.inspection.record import Record, record_of
from mbrl.data.inspection.signs.clocks import usual_intervals
from mbrl.data.inspection.stats import DatasetStats, summarise
from mbrl.data.merging.merge import sources_of
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawLog

_MAX_PROBLEMS: Final = 50


class RawFacts(BaseModel):
    """Figures of raw files, before an import.

    Attributes:
        files: that were read.
        rows: that they hold.
        traces: runs, cut where clocks go back.
        seconds: of all runs together.
        least_interval: seconds between rows, usually, in the fastest run.
        largest_interval: in the slowest one.
        channels: name, role, column of the file, least and largest value.
        is_guessed: whether the schema is a guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int
    rows: int
    traces: int
    seconds: float
    least_interval: float
    largest_interval: float
    channels: tuple[tuple[str, str, str, float, float], ...]
    is_guessed: bool


class Inspection(BaseModel):
    """What an inspection found.

    Attributes:
        name: the dataset.
        findings: errors first, then warnings, then notes.
        dropped: what the load dropped or repaired, by reason.
        stats: figures of the sound episodes; None if there are none.
        making: import schema, rules of reward and termination, origin and sources, where the dataset says.
        raw: figures of raw files; None for a dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    findings: tuple[DataFinding, ...]
    dropped: dict[str, int]
    stats: DatasetStats | None
    making: dict[str, str] = Field(default_factory=dict)
    raw: RawFacts | None = None

    @property
    def may_train(self) -> bool:
        """True if nothing found makes training wrong."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_json(self) -> str:
        """One JSON object, with `may_train`."""
        return Inspection.model_dump_json(self)[:-1] + f',"may_train":{str(self.may_train).lower()}}}'


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Examines a dataset that passed its checks."""
    return _inspect(dataset, foretells=True)


def _inspect(dataset: Dataset, *, foretells: bool) -> Inspection:
    """`foretells` what fits refuse; what is left of a log with errors is not what will be learned from."""
    stats = summarise(dataset)
    foretold = fit_findings(dataset) if foretells else ()
    signs = examine(record_of(dataset))
    return Inspection(
        name=dataset.info.name,
        findings=_sorted([*dataset_findings(dataset), *stats_findings(stats), *signs, *foretold]),
        dropped=dict(dataset.dropped),
        stats=stats,
        making={**dataset.info.making, **_told_sources(dataset)},
    )


def _told_sources(dataset: Dataset) -> dict[str, str]:
    """What a dataset was merged from, an entry for each part."""
    return {
        f"source {number}": f"{part.name}, {part.episodes:,} episodes, {part.transitions:,} transitions, "
        f"hash {part.content_hash}"
        for number, part in enumerate(sources_of(dataset))
    }


def inspect_log(log: RawLog, options: LoadOptions | None = None) -> Inspection:
    """Examines what a file holds and lists every problem; figures are those of the sound episodes."""
    return inspect_episodes(log, options)[0]


def inspect_episodes(log: RawLog, options: LoadOptions | None = None) -> tuple[Inspection, Dataset | None]:
    """What `inspect_log` finds, and the sound episodes, if there are any."""
    options = options or LoadOptions()
    problems: list[DataError] = []
    report: Inspection | None = None
    dataset: Dataset | None = None
    try:
        prepared = prepare(log, options)
        problems += log_problems(prepared, options)
        if options.bad_episodes == "error":
            problems += episode_problems(prepared, options)
        dataset = build(prepared, options.model_copy(update={"bad_episodes": "drop"}))
        report = _inspect(dataset, foretells=not problems)
    except DataError as error:
        problems += [] if problems else [error]
    if report is not None and not problems:
        return report, dataset
    findings = [*_problem_findings(problems), *(report.findings if report else ())]
    whole = Inspection(
        name=log.info.name,
        findings=_sorted(findings),
        dropped={} if report is None else report.dropped,
        stats=None if report is None else report.stats,
        making=log.info.making,
    )
    return whole, dataset


def inspect_record(record: Record, schema: ImportSchema, *, is_guessed: bool) -> Inspection:
    """Examines raw files before an import.

    Args:
        record: of them.
        schema: that they were read by.
        is_guessed: whether nobody wrote it; then nothing counts as seen to.
    """
    intervals = usual_intervals(record)
    known = intervals[np.isfinite(intervals)]
    channels: list[tuple[str, str, str, float, float]] = []
    for index, channel in record.enumerated():
        values = np.concatenate(record.column(index))
        channels.append(
            (channel.name, channel.role, channel.source, float(values.min()), float(values.max()))
        )
    raw = RawFacts(
        files=len({trace.file for trace in record.traces}),
        rows=record.rows,
        traces=len(record.traces),
        seconds=sum(trace.seconds for trace in record.traces),
        least_interval=float(known.min(initial=np.inf)) if len(known) else 0.0,
        largest_interval=float(known.max(initial=0.0)),
        channels=tuple(channels),
        is_guessed=is_guessed,
    )
    findings = list(examine(record, None if is_guessed else schema))
    return Inspection(name=record.name, findings=_sorted(findings), dropped={}, stats=None, raw=raw)


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
