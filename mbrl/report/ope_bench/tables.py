"""A benchmark of off-policy evaluation as tables."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from mbrl.off_policy.judgement.benchmark.answers import BenchLog, JudgedCase, OPEBench
from mbrl.off_policy.judgement.benchmark.scores import Score, score_estimator
from mbrl.off_policy.judgement.benchmark.verdicts import RULES, VerdictShare, verdict_share
from mbrl.off_policy.judgement.report.concluded import VERDICT_WORDS
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_count, format_share

LEAST_ANSWERS: Final = 3
"""Answered policies from which on a rank correlation is reported."""

_COLUMNS: Final = (
    "estimator", "answers", "valid", "rho", "peer", "regret", "error", "cover", "if valid", "I", "II",
)  # fmt: skip
_SHOWN: Final = ("spearman", "peer_spearman", "regret", "error", "type_one", "type_two")
"""Metrics in the order of the columns: four before the coverage, the alarms behind it."""

_KINDS: Final[Sequence[tuple[str, tuple[str, ...]]]] = (
    ("GO", ("go",)),
    ("or guard", ("go", "go_with_guard")),
    ("NO-GO", ("no_go",)),
)
"""Verdicts whose shares are compared between thresholds."""


def total_table(bench: OPEBench) -> Table:
    """One row an estimator: means over logs, counts over all policies."""
    rows: list[Sequence[Cell]] = []
    for name in bench.estimators:
        scores = [score_estimator(log, name, peer=bench.peer, resamples=0) for log in bench.logs]
        rows.append(_row(name, scores))
    tasks = {log.task for log in bench.logs}
    where = f"{format_count(len(bench.logs), 'log')} of {format_count(len(tasks), 'task')}"
    caption = f"{bench.name}: means over {where}"
    return Table(caption, _COLUMNS, rows)


def log_table(bench: OPEBench, log: BenchLog) -> Table:
    """One row an estimator, on one log."""
    rows = [
        _row(name, [score_estimator(log, name, peer=bench.peer, resamples=0)]) for name in bench.estimators
    ]
    caption = f"{log.label}: {len(log.policies)} policies, {log.estimand}"
    return Table(caption, _COLUMNS, rows)


def verdict_table(bench: OPEBench) -> Table:
    """How often each verdict was given to policies truly better, and truly worse, than the behaviour."""
    rows: list[Sequence[Cell]] = []
    for truth in ("better", "worse"):
        judged = [
            policy.verdict
            for policy, is_better, _ in bench.cases()
            if policy.verdict and is_better == (truth == "better")
        ]
        counts = Counter(judged)
        shares = [
            format_share(counts[verdict] / len(judged) if judged else None) for verdict in VERDICT_WORDS
        ]
        rows.append((f"truly {truth}", len(judged), *shares))
    names = tuple(VERDICT_WORDS.values())
    return Table("Verdicts against the behaviour's logged mean", ("policies", "judged", *names), rows)


def threshold_table(cases: Sequence[JudgedCase]) -> Table:
    """Shares of the truly better and the truly worse policies that got a verdict, by thresholds.

    Beside each share that should be small stands the upper end of its 95 % interval (`verdict_share`).
    """
    columns = ["thresholds"]
    for kind, _ in _KINDS:
        right, wrong = ("worse", "better") if kind == "NO-GO" else ("better", "worse")
        columns += [f"{kind}, {right}", f"{kind}, {wrong}"]
    rows = [(label, *_threshold_cells(cases, label)) for label in RULES]
    caption = "Verdicts, had one threshold been another (<= upper 95 % end; a task's judgements are one case)"
    return Table(caption, tuple(columns), rows)


def _threshold_cells(cases: Sequence[JudgedCase], label: str) -> Iterator[Cell]:
    judged = [case for case in cases if label in case.policy.by_rule]
    for kind, wanted in _KINDS:
        for is_right in (True, False):
            is_better = is_right != (kind == "NO-GO")
            alike = [case for case in judged if case.is_better == is_better]
            share = verdict_share([(case.policy.by_rule[label], case.task) for case in alike], wanted)
            yield _format_share(share, has_limit=not is_right)


def _format_share(found: VerdictShare | None, *, has_limit: bool) -> str:
    if found is None:
        return "-"
    limit = f" (<= {100 * found.high:.1f})" if has_limit else ""
    return f"{100 * found.share:.1f} %{limit}"


def bench_tables(bench: OPEBench) -> list[Table]:
    """Everything, the summary first."""
    thresholds = threshold_table(list(bench.cases()))
    tables = [total_table(bench), verdict_table(bench), thresholds]
    tables += [log_table(bench, log) for log in bench.logs]
    if bench.failures:
        tables.append(Table("Failed", ("task", "cause"), list(bench.failures.items())))
    return tables


def _row(name: str, scores: Sequence[Score]) -> Sequence[Cell]:
    asked = sum(score.asked for score in scores)
    counted = [score for score in scores if score.answered >= LEAST_ANSWERS]
    covered = [held for score in scores for held in score.covered]
    valid = [held for score in scores for held in score.covered_valid]
    return (
        name,
        _percent(sum(score.answered for score in scores), asked),
        _percent(sum(score.valid for score in scores), asked),
        *(_mean([score.metrics[key].value for score in counted]) for key in _SHOWN[:4]),
        _percent(sum(covered), len(covered)),
        _percent(sum(valid), len(valid)),
        *(_mean([score.metrics[key].value for score in counted]) for key in _SHOWN[4:]),
    )


def _mean(values: Sequence[float]) -> str:
    usable = [value for value in values if math.isfinite(value)]
    return f"{math.fsum(usable) / len(usable):.2f}" if usable else "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
