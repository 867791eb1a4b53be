"""The parts of a page that show a logged dataset."""

from mbrl.data.inspection.record import Record
from mbrl.data.inspection.report import Inspection
from mbrl.data.inspection.stats import DatasetStats, Dimension, Distribution
from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_number, format_share
from mbrl.report.run import data_plots
from mbrl.report.run.data_tables import (
    choice_tables,
    dimension_table,
    finding_message,
    inspection_tables,
    making_table,
    raw_tables,
)
from mbrl.report.run.finding_pictures import finding_pictures, viewer_section

_MANY_ACTIONS = 6
"""Dimensions of the action that are drawn; of more, those that vary most."""


def data_sections(report: Inspection, record: Record | None = None) -> list[Section]:
    """Findings, episodes, observations and actions; with a record, the viewer of episodes."""
    findings = Section(
        "Findings",
        text="" if report.findings else "Nothing was found that a user should know.",
        messages=[finding_message(finding) for finding in report.findings],
        pictures=finding_pictures(report.findings),
    )
    viewed = [] if record is None else [viewer_section(record, report.findings)]
    if report.raw is not None:
        return [findings, *viewed, Section("Files", tables=raw_tables(report.name, report.raw))]
    if report.stats is None:
        return [findings, *viewed]
    stats, tables = report.stats, {table.caption: table for table in inspection_tables(report)}
    episodes = Section(
        "Episodes and rewards",
        pictures=episode_pictures(stats),
        tables=[tables["Episodes"], tables[f"Contents of {report.name}"]],
    )
    made = [Section("How it was made", tables=[making_table(report.making)])] if report.making else []
    return [findings, *viewed, episodes, _observations(stats), _actions(stats), *made]


def episode_pictures(stats: DatasetStats) -> list[Picture]:
    """Histograms of returns, lengths and rewards; of lengths alone without rewards."""
    lengths = _histogram("lengths", "Episode lengths", stats.lengths, "episode length, steps", "episodes")
    if stats.returns is None or stats.rewards is None:
        return [lengths]
    return [
        _histogram("returns", "Episode returns", stats.returns, "episode return", "episodes"),
        lengths,
        _histogram("rewards", "Rewards", stats.rewards, "reward of a step", "rows", is_log=True),
    ]


def _observations(stats: DatasetStats) -> Section:
    dimensions, coverage = stats.observations, stats.coverage
    widest = max(dimensions, key=lambda d: (d.values.maximum - d.values.minimum) / (d.values.std or 1.0))
    constant = [d.name for d in dimensions if d.is_constant]
    picture = Picture(
        "observation-ranges",
        "Range of each observation",
        data_plots.dimension_ranges(
            [d.name for d in dimensions],
            [d.values.minimum for d in dimensions],
            [d.values.maximum for d in dimensions],
            mean=[d.values.mean for d in dimensions],
            deviation=[0.0 if d.is_constant else d.values.std for d in dimensions],
        ),
        alt=f"Range of {len(dimensions)} observation dimensions in standard deviations; "
        f"{widest.name} reaches farthest.",
        note=f"Constant: {', '.join(constant)}." if constant else "No dimension is constant.",
        table=dimension_table("Observations, raw units", dimensions),
    )
    return Section("Observations", text=_coverage_text(coverage.effective_dims, stats), pictures=[picture])


def _coverage_text(effective: float, stats: DatasetStats) -> str:
    text = f"The observations vary in about {effective:.1f} independent directions "
    text += f"of {len(stats.observations)}."
    median, tail = stats.coverage.neighbour_median, stats.coverage.neighbour_95
    if median is None:
        return f"{text} Overlap between episodes is not available: there is a single episode."
    return (
        f"{text} From a logged state and action to the nearest one of another episode it is "
        f"{format_number(median)} standard deviations per dimension in the median, {format_number(tail)} at "
        "the 95 % quantile: the larger, the less the episodes overlap."
    )


def _actions(stats: DatasetStats) -> Section:
    dimensions = stats.actions
    if stats.choices is not None:
        text = "How often each choice was taken, and where the log says nothing of one."
        return Section(
            "Actions", text=text, tables=choice_tables(stats.choices, [d.name for d in stats.observations])
        )
    worst = max(dimensions, key=lambda d: d.saturation or 0.0)
    saturation = Picture(
        "action-saturation",
        "Actions at their bounds",
        data_plots.action_saturation([d.name for d in dimensions], [d.saturation or 0.0 for d in dimensions]),
        alt=f"Share of actions at a bound; the most is {format_share(worst.saturation)} in {worst.name}.",
        note="A saturated controller says little about what other actions would have done.",
        table=dimension_table("Actions, environment units", dimensions),
    )
    varied = sorted(dimensions, key=lambda d: -d.values.std)[:_MANY_ACTIONS]
    shown = [dimension for dimension in dimensions if dimension in varied]
    text = ""
    if len(dimensions) > _MANY_ACTIONS:
        text = f"The {_MANY_ACTIONS} of {len(dimensions)} actions that vary most are drawn."
    return Section("Actions", text=text, pictures=[saturation, *map(_action_picture, shown)])


def _action_picture(dimension: Dimension) -> Picture:
    values = dimension.values
    return Picture(
        f"action-{''.join(c if c.isalnum() else '-' for c in dimension.name)}",
        f"Action {dimension.name}",
        data_plots.action_histogram(values.counts, values.edges, name=f"action {dimension.name}"),
        alt=f"Histogram of action {dimension.name} {_spread(values)}.",
        table=_bins(f"Action {dimension.name}", values, "rows"),
    )


def _histogram(
    name: str, title: str, values: Distribution, label: str, counted: str, *, is_log: bool = False
) -> Picture:
    return Picture(
        name,
        title,
        data_plots.histogram(values.counts, values.edges, x_label=label, counted=counted, is_log=is_log),
        alt=f"Histogram of {title.lower()} {_spread(values)}.",
        note=f"Mean {format_number(values.mean)}, median {format_number(values.median)}.",
        table=_bins(title, values, counted),
    )


def _spread(values: Distribution) -> str:
    least, mean, largest = map(format_number, (values.minimum, values.mean, values.maximum))
    return f"from {least} to {largest}, mean {mean}"


def _bins(caption: str, values: Distribution, counted: str) -> Table:
    bins = zip(values.edges[:-1], values.edges[1:], values.counts, strict=True)
    return Table(caption, ("from", "to", counted), [(low, high, count) for low, high, count in bins if count])
