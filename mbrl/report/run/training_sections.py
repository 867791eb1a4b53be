"""The parts of a page that follow training, from the rows of `metrics.jsonl`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.score_plots import curves, series_of
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_number

Records: TypeAlias = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Panel:
    name: str
    title: str
    keys: tuple[str, ...]
    y_label: str
    note: str


_PANELS: Final = (
    _Panel(
        "value",
        "Value of the data",
        ("critic/value",),
        "mean value",
        "Values that keep growing are not believed.",
    ),
    _Panel(
        "value-max", "Largest value", ("critic/value_max",), "largest value", "The first to show divergence."
    ),
    _Panel("critic-loss", "Critic loss", ("critic/loss",), "loss", ""),
    _Panel("disagreement", "Critics' disagreement", ("critic/disagreement",), "deviation of values", ""),
    _Panel(
        "policy-loss", "Policy loss", ("policy/loss",), "loss", "Losses of different learners do not compare."
    ),
    _Panel("entropy", "Policy entropy", ("policy/entropy",), "nats", ""),
    _Panel(
        "penalty", "Penalty", ("rollout/penalty",), "mean penalty, reward units", "What pessimism takes off."
    ),
    _Panel("uncertainty", "Uncertainty of rollouts", ("rollout/uncertainty",), "uncertainty", ""),
    _Panel("rollout-length", "Valid steps of a rollout", ("rollout/length",), "steps", ""),
    _Panel(
        "rollout-rates",
        "How rollouts end",
        ("rollout/flagged_rate", "rollout/terminated_rate", "rollout/clip_rate"),
        "share of steps",
        "Flagged: more uncertain than the threshold. Clipped: beyond the range of the data.",
    ),
    _Panel(
        "buffer-age", "Age of imagined rows", ("rollout/age",), "updates", "Old rows come from an old policy."
    ),
)


def training_section(
    runs: Mapping[str, Records], *, value_bounds: tuple[float, float] | None = None
) -> Section:
    """Curves of every metric that the runs have, and a table of the last values.

    Args:
        runs: rows of `metrics.jsonl` by the name of the run.
        value_bounds: least and largest value that the rewards permit, or None.
    """
    pictures = [picture for panel in _PANELS if (picture := _picture(panel, runs, value_bounds)) is not None]
    text = "" if pictures else "No metrics were logged."
    return Section("Training", text=text, pictures=pictures, tables=[last_values(runs)] if pictures else [])


def last_values(runs: Mapping[str, Records]) -> Table:
    """The last value of every metric of every run; "-" where a run has none."""
    keys = sorted(
        {key for records in runs.values() for row in records for key in row if _is_metric(row[key])}
    )
    rows = [
        [key, *(_last(records, key) for records in runs.values())]
        for key in keys
        if key not in {"step", "seconds"} and not key.startswith("shift/")  # they have a section
    ]
    return Table("Last logged values", ["metric", *runs], rows)


def _picture(
    panel: _Panel, runs: Mapping[str, Records], bounds: tuple[float, float] | None
) -> Picture | None:
    having = {n: r for n, r in runs.items() if any(series_of(r, key)[0] for key in panel.keys)}
    if not having:
        return None
    keys = [key for key in panel.keys if any(series_of(records, key)[0] for records in having.values())]
    note = panel.note if len(having) == len(runs) else f"{panel.note} Logged by: {', '.join(having)}.".strip()
    drawn_bounds = bounds if panel.name.startswith("value") else None
    if drawn_bounds is not None:
        low, high = map(format_number, drawn_bounds)
        note = f"{note} The rewards permit {low} to {high}."
    ends = ", ".join(f"{name} ends at {_last(records, keys[0])}" for name, records in having.items())
    return Picture(
        panel.name,
        panel.title,
        curves(having, keys, y_label=panel.y_label, bounds=drawn_bounds),
        alt=f"{panel.title} against updates; {ends}.",
        note=note,
    )


def _last(records: Records, key: str) -> str:
    values = series_of(records, key)[1]
    return format_number(values[-1]) if values else "-"


def _is_metric(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
