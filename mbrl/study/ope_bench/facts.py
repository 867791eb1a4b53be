"""Gathers the answers of a benchmark of off-policy evaluation, and writes its report."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbrl.off_policy.judgement.benchmark.answers import Answer, BenchLog, JudgedPolicy, OPEBench
from mbrl.off_policy.judgement.benchmark.scores import bench_json
from mbrl.off_policy.judgement.benchmark.verdicts import verdicts_by_rule
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.judgement.report.measured import ReportedEstimate
from mbrl.report.kit.style import save_png
from mbrl.report.kit.table import to_markdown
from mbrl.report.ope_bench.plots import estimates_against_truth
from mbrl.report.ope_bench.tables import bench_tables
from mbrl.run.files import read_json, write_json, write_text
from mbrl.run.store import code_facts
from mbrl.study.ope_bench.peer import PEER
from mbrl.study.ope_bench.plan import Case, OPEBenchPlan
from mbrl.study.tasks import Site, Task, is_current


def gather_ope_bench(plan: OPEBenchPlan, site: Site, *, command: str) -> OPEBench:
    """All facts of a benchmark, complete or not.

    Args:
        plan: what was to be done.
        site: where it was done.
        command: the one that does it again.
    """
    tasks = {task.id: task for task in plan.tasks}
    labels = dict.fromkeys((case.task, case.log) for case in plan.cases)
    outcomes = {name: site.folder.outcome(name) for name in tasks}
    return OPEBench(
        name=plan.source.name,
        logs=tuple(_gather_log(task, log, plan, site, tasks) for task, log in labels),
        failures={
            name: outcome.cause or "unknown"
            for name, outcome in outcomes.items()
            if outcome is not None
            and outcome.status == "failed"
            and outcome.fingerprint == tasks[name].fingerprint
        },
        seconds=sum(outcome.seconds for outcome in outcomes.values() if outcome is not None),
        provenance={
            "command": command,
            "config": plan.source.config.model_dump(mode="json", exclude_none=True),
            "code": code_facts(),
        },
        peer=PEER,
    )


def write_ope_bench(bench: OPEBench, out: Path) -> dict[str, Any]:
    """Writes `ope-bench.json`, `ope-bench.md` and a figure for each log.

    Args:
        bench: what was found.
        out: folder of the files.

    Returns:
        The values in `ope-bench.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    values = bench_json(bench)
    write_json(out / "ope-bench.json", values)
    parts = [to_markdown(table) for table in bench_tables(bench)]
    for log in bench.logs:
        figure = estimates_against_truth(bench, log) if log.policies else None
        if figure is not None:
            save_png(figure, out / f"{log.label}.png")
            parts.append(f"![Estimates against true values on {log.label}]({log.label}.png)\n")
    write_text(out / "ope-bench.md", "\n".join(parts))
    return values


def _gather_log(label: str, log: str, plan: OPEBenchPlan, site: Site, tasks: Mapping[str, Task]) -> BenchLog:
    cases = [case for case in plan.cases if (case.task, case.log) == (label, log)]
    reports = {case.candidate.label: _report(tasks[case.estimate], site) for case in cases}
    policies = [_judged(case, reports[case.candidate.label], site, tasks) for case in cases]
    known = next((report for report in reports.values() if report is not None), None)
    baseline = None if known is None else known.baseline.value
    return BenchLog(
        task=label,
        label=log,
        estimand=plan.source.config.tasks[label].estimand.describe(),
        baseline=_number(baseline),
        policies=tuple(policy for policy in policies if policy is not None),
        planned=len(cases),
    )


def _judged(
    case: Case, report: OPEReport | None, site: Site, tasks: Mapping[str, Task]
) -> JudgedPolicy | None:
    truth = _answer(tasks[case.truth], site)
    if truth is None or report is None:
        return None
    answers = {estimate.name: _read(estimate) for estimate in report.estimates}
    peer = None if case.peer is None else _answer(tasks[case.peer], site)
    if peer is not None:
        point = _number(peer[case.candidate.label]["value"])
        answers[PEER] = Answer(point, math.nan, math.nan, is_valid=math.isfinite(point))
    return JudgedPolicy(
        label=case.candidate.label,
        truth=float(truth["value"]),
        truth_se=_number(truth["se"]),
        answers=answers,
        verdict=report.verdict.verdict,
        by_rule=verdicts_by_rule(report),
    )


def _report(task: Task, site: Site) -> OPEReport | None:
    file = _file_of(task, site)
    return None if file is None else OPEReport.load(file)


def _answer(task: Task, site: Site) -> dict[str, Any] | None:
    file = _file_of(task, site)
    return None if file is None else read_json(file)


def _file_of(task: Task, site: Site) -> Path | None:
    """Where the answer of a task lies; None where there is none for the present settings."""
    outcome = site.folder.outcome(task.id)
    return Path(outcome.path or "") if outcome is not None and is_current(task, outcome) else None


def _read(estimate: ReportedEstimate) -> Answer:
    low, high = map(_number, estimate.ci95)
    return Answer(_number(estimate.point), low, high, is_valid=estimate.valid)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
