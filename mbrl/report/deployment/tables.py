"""The deployment report as tables."""

from typing import Final

from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.judgement.families import count_families
from mbrl.off_policy.judgement.report.concluded import VERDICT_WORDS
from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.off_policy.judgement.report.measured import ReportedEstimate, Segment, SegmentKind
from mbrl.off_policy.judgement.report.records import Ends, known_ends
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import MISSING, format_count, format_number, format_share

MOST_OF_A_REGRET: Final = 0.95
"""Share of a regret that must not be left for tests to be worth a word."""

_SEGMENT_KINDS: Final[dict[SegmentKind, str]] = {
    "support": "actions outside of the log",
    "weight": "ratio mass",
}


def counted_names(report: OPEReport) -> set[str]:
    """Estimators that count in the verdict."""
    return {family.estimator for family in count_families(report, report.verdict.thresholds)[0]}


def why_not_counted(report: OPEReport) -> dict[str, str]:
    """Why an estimator does not count in the verdict; empty for one that does."""
    _, problems = count_families(report, report.verdict.thresholds)
    primary = primary_estimators()
    by_name = {primary[family]: text for family, text in problems.items()}
    return {
        estimate.name: by_name.get(estimate.name)
        or estimate.why_not
        or ("" if estimate.name in primary.values() else "shown beside its family's primary estimator")
        for estimate in report.estimates
    }


def estimate_table(report: OPEReport) -> Table:
    """Every estimator's answer and its difference to the baseline; those that count are marked."""
    counted, baseline = counted_names(report), report.baseline
    rows: list[list[Cell]] = []
    for estimate in report.estimates:
        paired = baseline.difference(estimate.name)
        rows.append(
            [
                estimate.name,
                estimate.point,
                format_ends(estimate.ci95),
                "" if paired is None else format_ends(paired.ci95, signed=True),
                estimate.n_eff,
                _tail(estimate),
                "yes" if estimate.name in counted else "",
            ]
        )
    rows.append([baseline.policy, baseline.value, format_ends(baseline.ci95), "", "", "", ""])
    caption = f"{report.candidate} on {report.data.name}: {report.estimand.describe()}"
    columns = ("estimator", "value", "95 % interval", f"less {baseline.policy}", "n_eff", "tail", "counts")
    return Table(caption, columns, rows)


def _tail(estimate: ReportedEstimate) -> str:
    """Share of an estimate that fitted values stand for in place of what was not seen."""
    if estimate.point is None:
        return ""
    if estimate.tail_share is None:
        return "fitted" if estimate.family == "value" else ""
    return format_share(estimate.tail_share)


def reason_table(report: OPEReport) -> Table:
    """Estimators that do not count in the verdict, and why."""
    names: dict[str, list[str]] = {}
    for name, reason in why_not_counted(report).items():
        if reason:
            names.setdefault(reason, []).append(name)
    rows: list[list[Cell]] = [[", ".join(alike), reason] for reason, alike in names.items()]
    return Table("What does not count, and why", ("estimators", "reason"), rows)


def candidate_table(whole: DeploymentReport) -> Table:
    """Several candidates: value, difference at the corrected level, chance of being the best, verdicts."""
    ranking, count = whole.ranking, len(whole.candidates)
    by = "" if ranking is None else f" by {ranking.estimator}"
    warning = "" if ranking is None or ranking.counts_for_all else ", which does not count for all"
    columns = (
        "candidate",
        f"value{by}",
        f"less {whole.baseline}, all at once",
        "P(best)",
        "verdict alone",
        f"as one of {count}",
    )
    rows = [_candidate_row(whole, index) for index in range(count)]
    return Table(f"Candidates{by}{warning}; intervals in common by Bonferroni", columns, rows)


def _candidate_row(whole: DeploymentReport, index: int) -> list[Cell]:
    report, ranking = whole.reports[index], whole.ranking
    paired = None if ranking is None else report.baseline.difference(ranking.estimator)
    return [
        report.candidate + (" (proposed)" if report.candidate == whole.proposed else ""),
        "" if ranking is None else ranking.points[index],
        "" if paired is None else format_ends(paired.ci_corrected, signed=True),
        "" if ranking is None else format_share(ranking.p_best[index]),
        VERDICT_WORDS[report.verdict.verdict],
        VERDICT_WORDS[report.verdict.final.verdict],
    ]


def trial_table(whole: DeploymentReport) -> Table:
    """What each candidate is thought to be worth, tests included, and how often to test it next."""
    plan = whole.test_plan
    columns = ("candidate", "by the log", "tested", "now", "P(best)", "next episodes")
    if plan is None:
        return Table(f"What to test next: {whole.why_no_test_plan or 'not known'}", columns, [])
    rows: list[list[Cell]] = [
        [
            entry.candidate,
            f"{format_number(entry.prior)} +- {format_number(entry.prior_se)}",
            entry.tested,
            f"{format_number(entry.mean)} +- {format_number(entry.se)}",
            format_share(entry.p_best),
            entry.next,
        ]
        for entry in plan.candidates
    ]
    caption = (
        f"What to test next, {format_count(plan.episodes, 'episode')}: the expected loss of picking the "
        f"wrong one {_change(plan.regret_now, plan.regret_then)}"
    )
    return Table(caption, columns, rows)


def _change(now: float, then: float) -> str:
    if now == 0.0:
        return "is 0 already"
    verb = "falls from" if then < MOST_OF_A_REGRET * now else "hardly changes, from"
    return f"{verb} {format_number(now)} to {format_number(then)}"


def risk_table(report: OPEReport) -> Table:
    """The event's probability and the worst tenth, by source."""
    risk = report.risk
    rows: list[list[Cell]] = [
        [
            source.source,
            format_share(source.p_violation),
            format_ends(source.p_violation_ci95, shares=True),
            source.cvar10,
            format_ends(source.cvar10_ci95),
            source.n_eff,
            source.why_not or "",
        ]
        for source in [*risk.sources, risk.behaviour]
    ]
    limit = "" if risk.limit is None else f"; the limit is {format_share(risk.limit)}"
    columns = ("source", "P(event)", "95 % interval", "worst tenth", "95 % interval ", "n_eff", "why not")
    return Table(f"Event: {risk.text}{limit}", columns, rows)


def segment_table(report: OPEReport, *, most: int | None = None) -> Table:
    """Which episodes and steps to look at; at most `most` of each kind."""
    rows: list[list[Cell]] = []
    for kind, words in _SEGMENT_KINDS.items():
        alike = [segment for segment in report.diagnostics.segments if segment.kind == kind]
        rows += [[words, *_segment_cells(segment)] for segment in alike[:most]]
    return Table("Segments with the most of it", ("what", "episode", "steps", "share there"), rows)


def _segment_cells(segment: Segment) -> list[Cell]:
    steps = f"{segment.first_step} to {segment.last_step} of {segment.length}"
    return [f"{segment.episode}", steps, format_share(segment.share)]


def backtest_table(report: OPEReport) -> Table:
    """What each estimator said of the behaviour, in standard errors off the logged mean."""
    z = dict[str, float | None]() if report.backtest is None else report.backtest.z
    rows: list[list[Cell]] = [
        [name, MISSING if value is None else f"{value:+.2f}"] for name, value in sorted(z.items())
    ]
    return Table("Standard errors off the behaviour's known value", ("estimator", "z"), rows)


def missing_table(report: OPEReport) -> Table:
    """Fields that are null, and why; those that lack for one reason stand together."""
    fields: dict[str, list[str]] = {}
    for path, reason in report.why_not.items():
        fields.setdefault(reason, []).append(path)
    rows: list[list[Cell]] = [[", ".join(alike), reason] for reason, alike in fields.items()]
    return Table("What is not known, and why", ("fields", "reason"), rows)


def next_table(report: OPEReport) -> Table:
    """The proposals side by side."""
    proposal = report.next_data
    rows: list[list[Cell]] = []
    if proposal.episodes is not None:
        widths = (format_number(width) for width in (proposal.half_width_now, proposal.half_width_then))
        shrink = "" if proposal.shrink is None else format_share(proposal.shrink)
        rows.append([proposal.policy, proposal.episodes, *widths, shrink])
    for other in proposal.alternatives:
        rows.append([other.policy, other.episodes, "", "", ""])
    columns = ("policy", "episodes", "half width now", "then", "shrink")
    return Table("Proposals", columns, rows)


def format_ends(ends: Ends | None, *, signed: bool = False, shares: bool = False) -> str:
    """`[low, high]`; empty without both ends."""
    known = known_ends(ends)
    if known is None:
        return ""
    low, high = (_format_end(end, signed=signed, shares=shares) for end in known)
    return f"[{low}, {high}]"


def _format_end(value: float, *, signed: bool, shares: bool) -> str:
    if shares:
        return format_share(value)
    return f"+{format_number(value)}" if signed and value > 0 else format_number(value)
