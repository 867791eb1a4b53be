"""The page of a study, its Markdown summary, its figures as PNG, and all numbers as JSON.

Importing this module imports matplotlib; do so where a page is made.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbrl.report.kit.html import Section, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.style import save_png
from mbrl.report.kit.summary import write_summary
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_count
from mbrl.report.plan.sections import budget_sections
from mbrl.report.study.facts import Study, StudyDataset, StudyRun
from mbrl.report.study.plots import model_curves
from mbrl.report.study.recommendation import Recommendation, basis, recommend
from mbrl.report.study.scores import (
    Aggregate,
    Improvement,
    aggregate,
    comparison,
    improvements,
    standings,
)
from mbrl.report.study.sections import (
    cost_section,
    data_section,
    dataset_section,
    failure_section,
    method_section,
    model_section,
    overall_section,
    shift_section,
    training_curves,
    training_section,
)
from mbrl.report.study.tables import (
    aggregate_table,
    failure_tables,
    planning_tables,
    recommendation_table,
    score_table,
)

PAGE = "index.html"


@dataclasses.dataclass(frozen=True, slots=True)
class _Findings:
    """What is derived from a study, once for page, Markdown and JSON."""

    advice: tuple[Recommendation, ...]
    total: Aggregate
    pairs: tuple[Improvement, ...]
    sections: tuple[Section, ...]


def write_study(study: Study, out: Path) -> Path:
    """Writes `index.html`, `summary.md`, `summary.json` and one PNG for each figure.

    Args:
        study: what was found; runs may have failed or be missing.
        out: folder; made if it does not exist.

    Returns:
        The page.
    """
    found = _derive(study)
    figures: dict[str, str] = {}
    for picture in (picture for section in found.sections for picture in section.pictures):
        save_png(picture.figure, out / f"{picture.name}.png")
        figures[picture.title] = f"{picture.name}.png"
    messages = _conclusions(study, found.advice)
    page = out / PAGE
    text = render_page(
        f"Comparison {study.name}",
        found.sections,
        subtitle=_subtitle(study),
        facts=[(f"use on {item.dataset}", item.algorithm or "nothing") for item in found.advice],
        messages=messages,
        provenance=_provenance(study),
    )
    page.write_text(text, encoding="utf-8")
    write_summary(
        out,
        title=f"Comparison {study.name}",
        values=_values(study, found),
        messages=[message for item in found.advice for message in item.reasons] + [basis(study)],
        tables=_tables(study, found),
        figures=figures,
        provenance=_provenance(study),
    )
    return page


def _derive(study: Study) -> _Findings:
    advice = tuple(recommend(study, dataset.label) for dataset in study.datasets)
    total, pairs = aggregate(study), tuple(improvements(study))
    sections = (
        *(dataset_section(study, d, item) for d, item in zip(study.datasets, advice, strict=True)),
        overall_section(study, total, pairs),
        *budget_sections(study.plannings),
        failure_section(study),
        data_section(study),
        model_section(study),
        shift_section(study),
        training_section(study),
        cost_section(study),
        method_section(study),
    )
    return _Findings(advice, total, pairs, sections)


def _subtitle(study: Study) -> str:
    sizes = (
        format_count(len(study.algorithms), "algorithm"),
        format_count(len(study.datasets), "dataset"),
        format_count(len(study.seeds), "seed"),
    )
    done = sum(run.status == "done" for run in study.runs)
    return f"{', '.join(sizes)}; {done} of {len(study.runs)} runs finished."


def _conclusions(study: Study, advice: Sequence[Recommendation]) -> list[Message]:
    unfinished = sum(run.status != "done" for run in study.runs)
    messages = [
        reason
        for item in advice
        for index, reason in enumerate(item.reasons)
        if index == 0 or reason.tone == "bad"
    ]
    if unfinished:
        text = f"{unfinished} of {len(study.runs)} runs failed or are missing; see Failures."
        messages.append(Message(text, "caution"))
    return [*messages, basis(study)]


def _provenance(study: Study) -> dict[str, str]:
    hashes = {f"dataset {dataset.label}": dataset.content_hash for dataset in study.datasets}
    return {**study.provenance, "reported policy": study.selection, **hashes}


def _tables(study: Study, found: _Findings) -> list[Table]:
    tables = [recommendation_table(found.advice)]
    tables += [score_table(study, dataset) for dataset in study.datasets]
    if found.total.averages:
        tables.append(aggregate_table(study, found.total))
    return [*tables, *planning_tables(study), *failure_tables(study)]


def _values(study: Study, found: _Findings) -> dict[str, Any]:
    """Everything that the figures need, as plain values."""
    return {
        "name": study.name,
        "selection": study.selection,
        "seeds": study.seeds,
        "algorithms": {label: dataclasses.asdict(item) for label, item in study.algorithms.items()},
        "datasets": {dataset.label: _dataset_values(study, dataset) for dataset in study.datasets},
        "recommendations": [_advice_values(item) for item in found.advice],
        "overall": {
            "datasets": found.total.datasets,
            "averages": {
                label: {name: interval.to_json() for name, interval in averages.items()}
                for label, averages in found.total.averages.items()
            },
            "profiles": {label: profile.to_json() for label, profile in found.total.profiles.items()},
            "left_out": dict(found.total.left_out),
        },
        "improvements": [
            {
                "first": pair.first,
                "second": pair.second,
                "probability": pair.probability.to_json(),
                "datasets": pair.datasets,
            }
            for pair in found.pairs
        ],
        "curves": [
            {
                "dataset": dataset,
                "metric": metric,
                "algorithms": {label: dataclasses.asdict(curve) for label, curve in curves.items()},
            }
            for dataset, metric, curves in training_curves(study)
        ],
        "plannings": study.plannings,
        "runs": [_run_values(run) for run in study.runs],
    }


def _dataset_values(study: Study, dataset: StudyDataset) -> dict[str, Any]:
    curves = model_curves(list(dataset.dynamics.values()))
    return {
        "content_hash": dataset.content_hash,
        "returns": dataset.returns,
        "scores": dataset.scores,
        "report": dataset.report.model_dump(),
        "comparison": comparison(study, dataset).to_json(),
        "standings": {
            standing.label: {
                "averages": {name: interval.to_json() for name, interval in standing.averages.items()},
                "values": {str(seed): value for seed, value in standing.values.items()},
                "planned": standing.planned,
                "failed": standing.failed,
                "train_seconds": standing.train_seconds,
                "fit_seconds": standing.fit_seconds,
                "updates": standing.updates,
            }
            for standing in standings(study, dataset)
        },
        "model": None if curves is None else dataclasses.asdict(curves),
        "dynamics": {str(seed): report.model_dump() for seed, report in dataset.dynamics.items()},
    }


def _advice_values(item: Recommendation) -> dict[str, Any]:
    reasons = [{"tone": message.tone, "text": message.text} for message in item.reasons]
    return {**dataclasses.asdict(item), "reasons": reasons}


def _run_values(run: StudyRun) -> dict[str, Any]:
    """A run without its records: the curves hold what is drawn of them."""
    values = dataclasses.asdict(dataclasses.replace(run, records=()))
    del values["records"]
    return values
