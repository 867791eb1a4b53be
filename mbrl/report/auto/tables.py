"""What each candidate is believed to be worth, and what is taken, in tables and sentences."""

import math
from collections.abc import Sequence

from mbrl.report.auto.facts import AutoReport, CandidateResult
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_number


def candidate_table(report: AutoReport) -> Table:
    """One row for each candidate, the simplest first."""
    rows: list[list[Cell]] = []
    for index, one in enumerate(report.candidates):
        rows.append(
            [
                one.label,
                f"{format_number(one.mean)} {interval_words(one)}",
                one.gain,
                f"{one.step:,}/{one.updates:,}",
                round(one.seconds),
                "taken" if index == report.taken else ("best bound" if index == report.best else ""),
            ]
        )
    columns = ["candidate", "judged return, 95 %", "gain, at least", "updates", "seconds", ""]
    return Table("Candidates, by models that trained none of them", columns, rows)


def interval_words(one: CandidateResult) -> str:
    """`[low, high]`."""
    low, high = one.interval
    return f"[{format_number(low)}, {format_number(high)}]"


def result_lines(report: AutoReport) -> list[str]:
    """What is taken and why, what it is worth, what estimates say, what to mind, what to log next."""
    lines = [verdict_line(report), behaviour_line(report)]
    honest = report.honest
    if report.taken is not None and honest is not None:
        lines.append(
            f"By evidence that had no say in the choice: {format_number(honest['mean'])} "
            f"[{format_number(honest['low'])}, {format_number(honest['high'])}]."
        )
    if report.estimate is not None:
        lines += [f"From the log alone: {report.estimate.words[0]}", *report.estimate.words[1:]]
    elif report.no_estimate is not None:
        lines.append(report.no_estimate)
    lines += [f"{label} is left out: {why}." for label, why in report.left_out.items()]
    return [*lines, *report.warnings, *report.next_to_log]


def verdict_line(report: AutoReport) -> str:
    """What is taken, or that nothing is, with the reason."""
    if report.taken is None:
        best = report.candidates[report.best]
        return f"Nothing is taken. {report.reason} The best was {best.label}."
    return f"Taken: {report.candidates[report.taken].label}. {report.reason}"


def behaviour_line(report: AutoReport) -> str:
    """What is to be improved on."""
    found = report.behaviour
    if found is None:
        return "The log does not tell what its behaviour is worth."
    judged = "" if found.judged is None else f"; judges say {format_number(found.judged)} of a clone of it"
    return (
        f"The behaviour returns {format_number(found.mean)} +- {format_number(found.error)} "
        f"({found.episodes:,} complete episodes){judged}."
    )


def known(values: Sequence[float | None]) -> list[float]:
    """NaN for None, for drawings."""
    return [math.nan if value is None else value for value in values]
