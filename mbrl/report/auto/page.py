"""The page of `mbrl auto`: what is taken, what each candidate is believed to be worth, and who says so.

Importing this module imports matplotlib; do so where a page is made.
"""

import math

from mbrl.evaluation.statistics import Interval
from mbrl.report.auto.facts import AutoReport
from mbrl.report.auto.tables import (
    behaviour_line,
    candidate_table,
    known,
    result_lines,
    verdict_line,
)
from mbrl.report.kit.html import Picture, Section, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.plots import Mark, draw_intervals
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_number


def auto_page(report: AutoReport, *, command: str) -> str:
    """One HTML text.

    Args:
        report: what was found.
        command: that makes this page again.
    """
    taken = None if report.taken is None else report.candidates[report.taken]
    facts = [
        ("taken", "nothing" if taken is None else taken.label),
        ("log", report.log),
        ("candidates", str(len(report.candidates))),
        ("minutes asked for", f"{report.minutes:g}"),
    ]
    if taken is not None and report.honest is not None:
        facts.insert(1, ("return, honestly", format_number(report.honest["mean"])))
    if report.behaviour is not None:
        facts.insert(2, ("of the behaviour", format_number(report.behaviour.mean)))
    return render_page(
        f"What {report.log} permits",
        auto_sections(report),
        subtitle=report.question,
        facts=facts,
        messages=auto_messages(report),
        provenance={"dataset hash": report.dataset_hash, "portfolio": report.portfolio, "command": command},
    )


def auto_messages(report: AutoReport) -> list[Message]:
    """What is taken and why first, then what to mind."""
    verdict, *others = result_lines(report)
    tone = "caution" if report.taken is None else "good"
    mind = {*report.warnings, report.no_estimate}
    return [
        Message(verdict, tone),
        *(Message(text, "caution" if text in mind else "plain") for text in others),
    ]


def auto_sections(report: AutoReport) -> list[Section]:
    """Candidates, judges, time."""
    return [_candidates(report), _judges(report), _time(report)]


def _candidates(report: AutoReport) -> Section:
    means = known([one.mean for one in report.candidates])
    ends = [known(one.interval) for one in report.candidates]
    best = [_interval(mean, low, high) for mean, (low, high) in zip(means, ends, strict=True)]
    last = [_interval(mean) for mean in known([one.last for one in report.candidates])]
    upright = [] if report.behaviour is None else [Mark("behaviour, as logged", report.behaviour.mean)]
    if report.behaviour is not None and report.behaviour.judged is not None:
        upright.append(Mark("a clone of it, as judged", report.behaviour.judged))
    picture = Picture(
        "candidates",
        "Judged return",
        draw_intervals(
            [one.label for one in report.candidates],
            [("best along the training", best), ("last", last)],
            x_label="return of an episode",
            upright=upright,
        ),
        alt=f"Judged return of {len(report.candidates)} candidates with intervals. {verdict_line(report)}",
        note="Intervals are over members and starts; what all members get wrong alike is not in them.",
    )
    return Section("Candidates", pictures=[picture], tables=[candidate_table(report)])


def _judges(report: AutoReport) -> Section:
    facts = report.facts
    rows: list[list[Cell]] = [[one.label, *known(one.by_judge), one.path] for one in report.candidates]
    count = len(facts["judges"])
    columns = ["candidate", *(f"judge {k}" for k in range(count)), "training"]
    text = (
        f"{count} ensembles that trained no policy; {facts['starts']} logged first states, "
        f"{facts['held_out_starts']} of held-out episodes; episodes of at most {facts['horizon']:,} steps. "
        f"{behaviour_line(report)}"
    )
    return Section("Judges", text=text, tables=[Table("By judge", columns, rows)])


def _time(report: AutoReport) -> Section:
    rows: list[list[Cell]] = [[name, round(seconds)] for name, seconds in report.seconds.items()]
    text = f"{report.minutes:g} minutes were asked for, {report.jobs} trainings side by side."
    return Section("Time", text=text, tables=[Table("Seconds of the last call", ["phase", "seconds"], rows)])


def _interval(mean: float, low: float = math.nan, high: float = math.nan) -> Interval:
    return Interval(mean, low, high, level=0.95, method="Student's t over members and starts", n=0)
