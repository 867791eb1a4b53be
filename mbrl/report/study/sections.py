"""The parts of a study's page."""

from collections.abc import Mapping, Sequence
from typing import Final

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_count, format_interval, format_number, format_share
from mbrl.report.run.data_tables import finding_message
from mbrl.report.study import plots
from mbrl.report.study.fact_tables import (
    alarm_messages,
    choice_tables,
    cost_table,
    data_table,
    model_table,
    selected_table,
    shift_table,
)
from mbrl.report.study.facts import Study, StudyDataset
from mbrl.report.study.recommendation import Recommendation, is_clone
from mbrl.report.study.scores import (
    Aggregate,
    Improvement,
    comparison,
    improvements,
    reverse,
    standings,
)
from mbrl.report.study.tables import (
    aggregate_table,
    failure_tables,
    format_probability,
    improvement_table,
    pair_table,
    score_table,
    seed_table,
)

CURVES: Final = (
    ("critic/value", "value of the data", "mean value"),
    ("critic/disagreement", "disagreement of the critics", "deviation of values"),
    ("rollout/penalty", "penalty on imagined steps", "reward units"),
)
"""Metrics that are drawn: key, title, name of the axis."""

MOST_PROFILES: Final = 10
"""Algorithms beyond which nobody could tell the lines of a performance profile apart."""


def dataset_section(study: Study, dataset: StudyDataset, found: Recommendation) -> Section:
    """Scores on one dataset, and the reasons of its recommendation."""
    everyone, against = standings(study, dataset), comparison(study, dataset)
    marks = ", ".join(f"{s.label} {format_interval(s.iqm)}" for s in everyone)
    incomplete = [f"{s.label} ({s.seeds})" for s in everyone if len(s.values) < s.planned]
    note = "Dots are seeds, each the mean of its episodes; the larger mark is the interquartile mean (IQM)."
    if incomplete:
        note += f" Seeds are missing: {', '.join(incomplete)}."
    picture = Picture(
        f"scores-{_slug(dataset.label)}",
        f"Scores on {dataset.label}",
        plots.dataset_scores(everyone, against),
        alt=f"Scores on {dataset.label}, interquartile mean and interval: {marks}.",
        note=note,
        table=seed_table(study, dataset),
    )
    return Section(
        f"Dataset {dataset.label}",
        messages=found.reasons[1:],
        pictures=[picture, *_pair_pictures(study, improvements(study, [dataset]), dataset)],
        tables=[score_table(study, dataset)],
    )


def overall_section(study: Study, total: Aggregate, pairs: Sequence[Improvement]) -> Section:
    """Averages, profile, and pairs over all datasets."""
    left_out = [f"{label} ({why})" for label, why in total.left_out.items()]
    messages = [Message(f"Not averaged: {', '.join(left_out)}.", "caution")] if left_out else []
    without = [dataset.label for dataset in study.datasets if dataset.label not in total.datasets]
    text = "An average over datasets needs normalised scores. "
    if without:
        text += f"The task has no reference scores, so it enters pairs only: {', '.join(without)}. "
    pictures = [*_aggregate_pictures(study, total), *_pair_pictures(study, pairs)]
    tables = [aggregate_table(study, total)] if total.averages else []
    if pairs:
        tables.append(improvement_table(study, pairs))
    return Section("Over all datasets", text.strip(), messages, pictures, tables)


def training_section(study: Study) -> Section:
    """Curves of each dataset, mean over finished seeds."""
    roles = _roles(study)
    pictures: list[Picture] = []
    for dataset, key, curves in training_curves(study):
        title, label = next((title, label) for name, title, label in CURVES if name == key)
        ends = ", ".join(f"{name} ends at {format_number(curve.mean[-1])}" for name, curve in curves.items())
        pictures.append(
            Picture(
                f"curve-{_slug(dataset)}-{_slug(key)}",
                f"{dataset}: {title}",
                plots.seed_curves(curves, roles, y_label=label),
                alt=f"{title} on {dataset} against updates; {ends}.",
                note="Mean over finished seeds; the band reaches from the least seed to the largest.",
            )
        )
    text = "" if pictures else "No run logged a metric that compares."
    return Section("Training", text, pictures=pictures)


def training_curves(study: Study) -> list[tuple[str, str, Mapping[str, plots.Curve]]]:
    """Dataset, metric, and the curve of each algorithm that logged it; a shared training comes once."""
    found: list[tuple[str, str, Mapping[str, plots.Curve]]] = []
    for dataset in study.datasets:
        for key, *_ in CURVES:
            curves: dict[str, plots.Curve] = {}
            drawn: set[tuple[str | None, ...]] = set()
            for label in study.algorithms:
                done = [run for run in study.of(dataset.label, label) if run.status == "done"]
                paths = tuple(run.path for run in done)
                if None not in paths and paths in drawn:
                    continue
                drawn.add(paths)
                curve = plots.curve_of([run.records for run in done], key)
                if curve is not None:
                    curves[label] = curve
            if curves:
                found.append((dataset.label, key, curves))
    return found


def data_section(study: Study) -> Section:
    """The datasets side by side, and what the doctor warns of."""
    messages: list[Message] = []
    for dataset in study.datasets:
        for finding in dataset.report.findings:
            if finding.severity != "note":
                message = finding_message(finding)
                messages.append(Message(f"{dataset.label}: {message.text}", message.tone))
    return Section("Data", messages=messages, tables=[data_table(study)])


def model_section(study: Study) -> Section:
    """How far the models of each dataset can be trusted."""
    pictures: list[Picture] = []
    for dataset in study.datasets:
        curves = plots.model_curves(list(dataset.dynamics.values()))
        if curves is not None:
            pictures += _model_pictures(dataset, curves)
    if not any(dataset.dynamics for dataset in study.datasets):
        return Section("Models", "No algorithm of this study learns from a model.")
    text = "One ensemble is fitted for each dataset and seed, and shared by all algorithms that need it."
    return Section("Models", text, pictures=pictures, tables=[model_table(study)])


def shift_section(study: Study) -> Section:
    """How far the policies leave the data: diagnostics that need no simulator."""
    tables = [table for dataset in study.datasets if (table := shift_table(study, dataset)) is not None]
    messages = [message for dataset in study.datasets for message in alarm_messages(study, dataset)]
    text = (
        "Actions outside the support of the log, distance to its nearest rows, uncertainty of rollouts over "
        "that of the data, value over Monte-Carlo return, drift of the value, states met as targets only."
    )
    return Section("Distributional shift", text if tables else "Not measured.", messages, tables=tables)


def cost_section(study: Study) -> Section:
    """Wall time of each algorithm, mean over datasets, and all figures by dataset."""
    everyone = [standings(study, dataset) for dataset in study.datasets]
    labels = list(study.algorithms)
    train = [_mean_of([row[k].train_seconds for row in everyone]) for k in range(len(labels))]
    fit = [_mean_of([row[k].fit_seconds for row in everyone]) for k in range(len(labels))]
    pairs = zip(labels, train, strict=True)
    picture = Picture(
        "costs",
        "Wall time of a run",
        plots.costs(labels, train, fit),
        alt="Seconds of a training: " + ", ".join(f"{name} {format_number(value)}" for name, value in pairs),
        note="Mean over datasets and finished seeds, on the machine named below.",
    )
    tables = [cost_table(study, dataset) for dataset in study.datasets]
    return Section("Costs", pictures=[picture], tables=tables)


def failure_section(study: Study) -> Section:
    """What did not finish, and why."""
    tables = failure_tables(study)
    return Section("Failures", "" if tables else "Every run has a score.", tables=tables)


def method_section(study: Study) -> Section:
    """What the labels stand for."""
    rows = [
        (label, algorithm.recipe, algorithm.learner, algorithm.needs_dynamics)
        for label, algorithm in study.algorithms.items()
    ]
    table = Table("Algorithms", ("algorithm", "recipe", "learner", "uses a model"), rows)
    selected = [found for dataset in study.datasets if (found := selected_table(study, dataset)) is not None]
    return Section("Methods", tables=[table, *selected, *choice_tables(study)])


def _aggregate_pictures(study: Study, total: Aggregate) -> list[Picture]:
    if not total.averages:
        return []
    names = ", ".join(total.datasets)
    ends = ", ".join(f"{k} {format_interval(v['iqm'])}" for k, v in total.averages.items())
    averages = Picture(
        "aggregate",
        "Averages over datasets and seeds",
        plots.averages(total.averages),
        alt=f"Averages over {names}; interquartile mean: {ends}.",
        note=f"Over {names}; 95 % intervals, seeds resampled within datasets.",
    )
    if len(total.profiles) > MOST_PROFILES:
        return [averages]
    profile = Picture(
        "profile",
        "Performance profile",
        plots.profiles(total.profiles, _roles(study)),
        alt=f"Share of runs above each score, over {names}, for {', '.join(total.profiles)}.",
        note="Higher is better; the bands are 95 % at each single score. A line that drops early has "
        "runs that collapsed.",
    )
    return [averages, profile]


def _pair_pictures(
    study: Study, pairs: Sequence[Improvement], dataset: StudyDataset | None = None
) -> list[Picture]:
    everyone = standings(study, study.datasets[0])
    rival = next((s.label for s in everyone if is_clone(s)), everyone[0].label)
    against = [
        pair if pair.second == rival else reverse(pair)
        for pair in pairs
        if rival in {pair.first, pair.second}
    ]
    if not against:
        return []
    words = ", ".join(f"{pair.first} {format_probability(pair.probability)}" for pair in against)
    return [
        Picture(
            "improvement" if dataset is None else f"improvement-{_slug(dataset.label)}",
            f"Probability of beating {rival}" + ("" if dataset is None else f" on {dataset.label}"),
            plots.improvements(against, rival),
            alt=f"Probability that a run beats one of {rival}: {words}.",
            note="Of a run against a run on the same dataset, ties half: how often it is better, not by how "
            "much. No width: all runs of the one beat all of the other.",
            table=pair_table(pairs),
        )
    ]


def _model_pictures(dataset: StudyDataset, curves: plots.ModelCurves) -> list[Picture]:
    name, fits = _slug(dataset.label), format_count(len(dataset.dynamics), "fit")
    at = min(range(len(curves.levels)), key=lambda k: abs(curves.levels[k] - 0.9))
    return [
        Picture(
            f"horizon-{name}",
            f"{dataset.label}: error against the horizon",
            plots.model_errors(curves),
            alt=f"Open-loop error on {dataset.label}: {format_number(curves.error[0])} standard deviations "
            f"at step {curves.steps[0]}, {format_number(curves.error[-1])} at step {curves.steps[-1]}.",
            note=f"Mean of {fits}; the band reaches from the least to the largest. The mark is the trusted "
            "horizon of the middle fit.",
        ),
        Picture(
            f"reliability-{name}",
            f"{dataset.label}: calibration",
            plots.model_calibration(curves),
            alt=f"Observed against nominal coverage on {dataset.label}; the 90 % interval covers "
            f"{format_share(curves.after[at])} after recalibration.",
            note=f"Mean of {fits}, on held-out rows that recalibration did not see.",
        ),
    ]


def _roles(study: Study) -> dict[str, int]:
    """One colour for each algorithm, the same in all figures."""
    return {label: index for index, label in enumerate(study.algorithms)}


def _mean_of(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)
