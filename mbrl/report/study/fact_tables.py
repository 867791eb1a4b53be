"""What stands behind the scores of a study as tables: data, models, costs, distributional shift."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_count, format_interval, format_number, format_share
from mbrl.report.run.dynamics_tables import near
from mbrl.report.study.facts import Study, StudyDataset
from mbrl.report.study.scores import all_alarms, comparison, standings, unit_of
from mbrl.report.study.tables import format_rounded

_SHIFT_NAMES: Final = {
    "out_of_support_share": "outside support",
    "knn_share": "far from data",
    "rollout_uncertainty_ratio": "uncertainty ratio",
    "value_gap": "value gap",
    "value_drift": "value drift",
    "edge_share": "edge of reach",
    "model_error_near_policy": "model error near policy",
}


def data_table(study: Study) -> Table:
    """The datasets in one row each."""
    rows: list[list[Cell]] = []
    for dataset in study.datasets:
        against, stats = comparison(study, dataset), dataset.report.stats
        sizes: list[Cell] = ["-"] * 4
        if stats is not None:
            sizes = [
                stats.num_episodes,
                stats.num_transitions,
                stats.lengths.mean,
                stats.terminated,
            ]
        severities = Counter(finding.severity for finding in dataset.report.findings)
        behaviour = against.behaviour
        rows.append(
            [
                dataset.label,
                *sizes,
                unit_of(dataset),
                "-" if behaviour is None else format_interval(behaviour),
                "-" if against.best_tenth is None else format_number(against.best_tenth),
                severities["error"],
                severities["warning"],
            ]
        )
    columns = (
        *("dataset", "episodes", "transitions", "mean length", "terminate", "unit"),
        *("mean of the log", "best tenth", "errors", "warnings"),
    )
    return Table("What was learned from", columns, rows)


def model_table(study: Study) -> Table:
    """Whether the fits of each dataset can be trusted: means over seeds, and the range of the horizon."""
    rows: list[list[Cell]] = []
    for dataset in study.datasets:
        fits = list(dataset.dynamics.values())
        if not fits:
            rows.append([dataset.label, 0, *("-" for _ in range(6))])
            continue
        horizons = [fit.trusted_horizon for fit in fits]
        name, correlation = _best_measure(dataset)
        rows.append(
            [
                dataset.label,
                len(fits),
                f"{min(horizons)} to {max(horizons)}" if min(horizons) < max(horizons) else str(horizons[0]),
                format_share(_mean([fit.calibration.coverage(0.9) for fit in fits])),
                _mean([_mean(fit.calibration.ece) for fit in fits]),
                _mean([fit.one_step.nrmse for fit in fits]),
                f"{name}: {format_number(correlation)}",
                "-" if (recall := _recall(dataset)) is None else format_share(recall),
            ]
        )
    columns = (
        *("dataset", "fits", "trusted steps", "90 % covers", "coverage error", "one-step error"),
        *("best rank correlation", "terminations found"),
    )
    return Table("Models, judged on held-out episodes, mean over seeds", columns, rows)


def cost_table(study: Study, dataset: StudyDataset) -> Table:
    """Wall time and updates of a run, mean over finished seeds, beside the score that they bought."""
    rows: list[list[Cell]] = []
    for standing in standings(study, dataset):
        rate = None
        if standing.train_seconds and standing.updates:
            rate = standing.updates / standing.train_seconds
        rows.append(
            [
                standing.label,
                format_rounded(standing.iqm.estimate),
                *map(format_rounded, (standing.fit_seconds, standing.train_seconds, standing.seconds)),
                format_rounded(standing.updates),
                format_rounded(rate),
            ]
        )
    columns = ("algorithm", "IQM", "fit s", "train s", "together s", "updates", "updates / s")
    return Table(f"{dataset.label}: seconds of a run; a fit is shared by all that use it", columns, rows)


def shift_table(study: Study, dataset: StudyDataset) -> Table | None:
    """Diagnostics of distributional shift, mean over seeds; None if no run has any."""
    runs = {label: study.of(dataset.label, label) for label in study.algorithms}
    shifts = {label: [run.shift for run in items if run.shift is not None] for label, items in runs.items()}
    keys = _shift_keys([shift for items in shifts.values() for shift in items])
    if not keys:
        return None
    rows: list[list[Cell]] = []
    for label, items in shifts.items():
        alarmed = sum(bool(all_alarms(run)) for run in runs[label])
        counted = f"{alarmed} of {len(runs[label])}"
        rows.append([label, *(_shift_cell(items, key) for key in keys), counted])
    headings = [_SHIFT_NAMES[key] for key in keys]
    caption = f"{dataset.label}: how far the policies leave the data, mean over seeds"
    return Table(caption, ("algorithm", *headings, "runs with alarms"), rows)


def choice_tables(study: Study) -> list[Table]:
    """What an offline rule chose from each grid; no table where there was nothing to choose."""
    rows = [
        (run.dataset, run.algorithm, run.seed, run.choice) for run in study.runs if run.choice is not None
    ]
    caption = f"Chosen by the rule {study.selection}, from the log alone"
    return [Table(caption, ("dataset", "algorithm", "seed", "choice"), rows)] if rows else []


def selected_table(study: Study, dataset: StudyDataset) -> Table | None:
    """The selected policy beside the last one of the same trainings; None where nothing was selected."""
    rows: list[list[Cell]] = []
    for label in study.algorithms:
        runs = [run for run in study.of(dataset.label, label) if run.last_returns and run.returns]
        if not runs:
            continue
        judged = [
            run.selected["judged"] for run in runs if run.selected and run.selected["judged"] is not None
        ]
        last = [_mean(run.last_returns) for run in runs]
        chosen = [_mean(run.returns) for run in runs]
        rows.append(
            [
                label,
                format_number(_mean(last)),
                format_number(_mean(chosen)),
                format_number(_mean(judged)) if judged else "-",
                f"{sum(b >= a for a, b in zip(last, chosen, strict=True))} of {len(runs)}",
                len(runs),
            ]
        )
    caption = f"{dataset.label}: mean return of the last and of the selected policy"
    columns = ("algorithm", "last", "selected", "as judged", "selected at least as good", "seeds")
    return Table(caption, columns, rows) if rows else None


def alarm_messages(study: Study, dataset: StudyDataset) -> list[Message]:
    """Every alarm once, with the runs that raised it; alarms that differ in their numbers count as one."""
    raised: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    for label in study.algorithms:
        for run in study.of(dataset.label, label):
            texts = {_without_numbers(alarm): alarm for alarm in all_alarms(run)}
            for kind, alarm in texts.items():
                raised.setdefault(kind, Counter())[label] += 1
                examples.setdefault(kind, alarm)
    return [
        Message(f"{dataset.label}, {_runs_of(counts)}: {examples[kind]}", "caution")
        for kind, counts in raised.items()
    ]


def _without_numbers(text: str) -> str:
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text)


def _runs_of(counts: Counter[str]) -> str:
    return ", ".join(f"{label} ({format_count(count, 'seed')})" for label, count in counts.items()) + (
        ", for example" if counts.total() > 1 else ""
    )


def _best_measure(dataset: StudyDataset) -> tuple[str, float]:
    fits = list(dataset.dynamics.values())
    names = {name for fit in fits for name in fit.correlations}
    means = {
        name: _mean([near(c, 0).estimate for fit in fits if (c := fit.correlations.get(name)) is not None])
        for name in sorted(names)
    }
    best = max(means, key=lambda name: means[name], default="none")
    return best, means.get(best, math.nan)


def _recall(dataset: StudyDataset) -> float | None:
    fits = dataset.dynamics.values()
    found = [recall for fit in fits if (recall := fit.termination.recall) is not None]
    return _mean(found) if found else None


def _shift_keys(shifts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured in some run, in a fixed order; what else a report holds is in the JSON of its run."""
    return [key for key in _SHIFT_NAMES if any(_is_number(shift.get(key)) for shift in shifts)]


def _shift_cell(shifts: Sequence[Mapping[str, Any]], key: str) -> Cell:
    values = [float(shift[key]) for shift in shifts if _is_number(shift.get(key))]
    if not values:
        return "-"
    return format_share(_mean(values)) if key.endswith("_share") else format_number(_mean(values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
