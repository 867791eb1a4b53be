"""Inspection of a log: everything a user should know of it, and whether training may start."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.data.assemble import build, episode_problems, log_problems, prepare
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.findings import DataFinding, dataset_findings, stats_findings
from mbrl.data.inspection.fitness import fit_findings
from mbrl.data.inspection.stats import DatasetStats, summarise
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawLog

_MAX_PROBLEMS: Final = 50


class Inspection(BaseModel):
    """What an inspection found.

    Attributes:
        name: the dataset.
        findings: errors first, then warnings, then notes.
        dropped: what the load dropped or repaired, by reason.
        stats: figures of the sound episodes; None if there are none.
        making: import schema, rules of reward and termination, and origin, where the dataset says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    findings: tuple[DataFinding, ...]
    dropped: dict[str, int]
    stats: DatasetStats | None
    making: dict[str, str] = Field(default_factory=dict)

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
    return Inspection(
        name=dataset.info.name,
        findings=_sorted([*dataset_findings(dataset), *stats_findings(stats), *foretold]),
        dropped=dict(dataset.dropped),
        stats=stats,
        making=dataset.info.making,
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
        report = _inspect(dataset, foretells=not problems)
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
        making=log.info.making,
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
