"""The scores of a study as tables: by dataset, over all of them, in pairs, and what is missing."""

import math
from collections.abc import Sequence
from typing import Final

from mbrl.evaluation.statistics import Interval
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_count, format_interval, format_number, has_ends
from mbrl.report.plan.tables import budget_table
from mbrl.report.study.facts import Study, StudyDataset, StudyRun
from mbrl.report.study.recommendation import Recommendation, recommend
from mbrl.report.study.scores import (
    AVERAGES,
    Aggregate,
    Improvement,
    Standing,
    aggregate,
    comparison,
    reverse,
    run_value,
    standings,
    unit_of,
)

NAMES: Final = {"iqm": "IQM", "mean": "mean", "median": "median"}
"""Names of the averages, as headings."""


def study_table(study: Study) -> list[Table]:
    """What a terminal shows: scores by dataset and over all, the recommendations, what failed."""
    tables = [score_table(study, dataset, is_short=True) for dataset in study.datasets]
    total = aggregate(study)
    if len(total.datasets) > 1 and total.averages:
        tables.append(aggregate_table(study, total))
    tables.append(recommendation_table([recommend(study, dataset.label) for dataset in study.datasets]))
    return [*tables, *planning_tables(study), *failure_tables(study)]


def planning_tables(study: Study) -> list[Table]:
    """What planning gained and cost; no table without planners."""
    return [budget_table(study.plannings)] if study.plannings else []


def score_table(study: Study, dataset: StudyDataset, *, is_short: bool = False) -> Table:
    """One row an algorithm: averages over seeds, the worst seed, wall time and updates; then the log itself.

    Args:
        study: the runs.
        dataset: one of its datasets.
        is_short: to fit a terminal: only the first average with its interval, seconds with those of the fit.
    """
    against = comparison(study, dataset)
    rows = [_score_row(standing, is_short=is_short) for standing in standings(study, dataset)]
    blank: list[Cell] = ["-"] * (4 if is_short else 5)
    if (log := against.behaviour) is not None:
        mean = format_number(log.estimate) if is_short else format_interval(log)
        rows.append(["logged mean", "-", mean, "-", *blank])
    if against.best_tenth is not None:
        rows.append(["best tenth", "-", format_number(against.best_tenth), "-", *blank])
    unit = unit_of(dataset)
    caption = f"{unit[:1].upper()}{unit[1:]} on {dataset.label}, 95 % intervals over seeds"
    averages = [NAMES[average] for average in AVERAGES]
    costs = ("seconds",) if is_short else ("train s", "fit s")
    return Table(caption, ("algorithm", *averages, "worst", "seeds", *costs, "updates"), rows)


def aggregate_table(study: Study, total: Aggregate) -> Table:
    """Averages over datasets x seeds; an algorithm that has none says why."""
    rows: list[list[Cell]] = []
    for label in study.algorithms:
        if label in total.averages:
            averages = total.averages[label]
            rows.append([label, *(format_interval(averages[name]) for name in AVERAGES), averages["iqm"].n])
        else:
            rows.append([label, total.left_out.get(label, "no dataset has references"), "-", "-", "-"])
    caption = f"Normalised score over {', '.join(total.datasets)}; 95 % intervals, seeds within datasets"
    return Table(caption, ("algorithm", *(NAMES[name] for name in AVERAGES), "runs"), rows)


def recommendation_table(found: Sequence[Recommendation]) -> Table:
    """What to use on each dataset."""
    rows = [
        (
            item.dataset,
            item.algorithm or "nothing",
            item.leader or "-",
            ", ".join(label for label in item.tied if label != item.leader) or "-",
            "; ".join(item.against_models) or "-",
        )
        for item in found
    ]
    columns = ("dataset", "use", "largest IQM", "level with it", "against a model")
    return Table("Recommendations", columns, rows)


def failure_tables(study: Study) -> list[Table]:
    """Runs that failed, that are missing, or that have no score; no table if there are none."""
    units = {dataset.label: unit_of(dataset) for dataset in study.datasets}
    rows = [
        (run.dataset, run.algorithm, run.seed, problem)
        for run in study.runs
        if (problem := _problem(run, units[run.dataset])) is not None
    ]
    if not rows:
        return []
    caption = f"{format_count(len(rows), 'run')} of {len(study.runs)} without a score"
    return [Table(caption, ("dataset", "algorithm", "seed", "why"), rows)]


def improvement_table(study: Study, pairs: Sequence[Improvement]) -> Table:
    """Matrix of the probability that a run of the row beats one of the column."""
    both = {(item.first, item.second): item for pair in pairs for item in (pair, reverse(pair))}
    rows = [
        [
            row,
            *(
                "-" if (item := both.get((row, column))) is None else f"{item.probability.estimate:.2f}"
                for column in study.algorithms
            ),
        ]
        for row in study.algorithms
    ]
    return Table("A run of the row beats one of the column", ("", *study.algorithms), rows)


def pair_table(pairs: Sequence[Improvement]) -> Table:
    """Every pair with its interval and the datasets that it is over."""
    rows = [
        (pair.first, pair.second, format_probability(pair.probability), len(pair.datasets)) for pair in pairs
    ]
    caption = "Probability that a run of the first beats one of the second, 95 % interval"
    return Table(caption, ("first", "second", "probability", "datasets"), rows)


def format_probability(interval: Interval) -> str:
    """Two decimals, with the interval if there is one."""
    if not has_ends(interval):
        return format_interval(interval, digits=2)
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def format_rounded(value: float | None) -> str:
    """One decimal at most, for seconds and counts; "-" for what there is not."""
    return "-" if value is None or math.isnan(value) else format_number(round(value, 1))


def seed_table(study: Study, dataset: StudyDataset) -> Table:
    """The score of every single run; what has none says so."""
    unit = unit_of(dataset)
    rows: list[list[Cell]] = []
    for label in study.algorithms:
        runs = {run.seed: run for run in study.of(dataset.label, label)}
        cells = [_seed_cell(runs.get(seed), unit) for seed in study.seeds]
        rows.append([label, *cells])
    return Table(f"Every seed, {unit}", ("algorithm", *(f"seed {seed}" for seed in study.seeds)), rows)


def _score_row(standing: Standing, *, is_short: bool) -> list[Cell]:
    worst = standing.worst
    costs = (standing.seconds,) if is_short else (standing.train_seconds, standing.fit_seconds)
    first, *others = (standing.averages[name] for name in AVERAGES)
    if not standing.values:
        shown = ["no finished seed", *("-" for _ in others)]
    elif is_short:
        shown = [_short(first), *(format_number(average.estimate) for average in others)]
    else:
        shown = [format_interval(average) for average in (first, *others)]
    return [
        standing.label,
        *shown,
        "-" if worst is None else format_number(worst[1]),
        standing.seeds,
        *map(format_rounded, (*costs, standing.updates)),
    ]


def _short(interval: Interval) -> str:
    return format_interval(interval) if has_ends(interval) else format_number(interval.estimate)


def _problem(run: StudyRun, unit: str) -> str | None:
    if run.status == "failed":
        return f"failed: {run.cause or 'no cause is known'}"
    if run.status == "missing":
        return "not run yet"
    return "finished, but no finite score" if run_value(run, unit) is None else None


def _seed_cell(run: StudyRun | None, unit: str) -> Cell:
    if run is None or run.status != "done":
        return "missing" if run is None else run.status
    value = run_value(run, unit)
    return "no score" if value is None else value
