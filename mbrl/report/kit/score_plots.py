"""Figures that compare methods, and that follow training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbrl.report.kit.plots import Dots, Line, Mark, Values, draw_dots, draw_lines

MAX_POINTS = 600
"""Points of a training curve beyond which it is thinned by averaging neighbours."""


def scores(
    rows: Sequence[Dots], *, unit: str, behaviour: float | None = None, best_tenth: float | None = None
) -> Figure:
    """Every seed as a dot, the mean with its interval, and what the logged data itself reached.

    Args:
        rows: one per method, from the top.
        unit: such as `episode return` or `normalised score`.
        behaviour: mean of the logged episodes, or None.
        best_tenth: mean of the best tenth of the logged episodes, or None.
    """
    marks = [("logged behaviour", behaviour), ("best tenth of the log", best_tenth)]
    return draw_dots(
        rows,
        x_label=unit,
        upright=[Mark(label, value) for label, value in marks if value is not None],
        value_name="one seed",
    )


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    keys: Sequence[str],
    *,
    y_label: str,
    bounds: tuple[float, float] | None = None,
    is_log: bool = False,
) -> Figure:
    """Metrics of one or many runs against the step.

    Args:
        runs: records of `metrics.jsonl` by the name of the run; each has a `step` and some of `keys`.
        keys: metrics to draw; one colour each if there is one run, else one colour a run.
        y_label: what they have in common, with the unit.
        bounds: least and largest value that the data permits, drawn as references, or None.
        is_log: whether the vertical axis is logarithmic.
    """
    lines: list[Line] = []
    for name, records in runs.items():
        for key in keys:
            steps, values = series_of(records, key)
            metric = key.rpartition("/")[2].removesuffix("_rate").replace("_", " ")
            parts = ([name] if len(runs) > 1 else []) + ([metric] if len(keys) > 1 else [])
            label = ": ".join(parts)
            if steps:
                lines.append(Line(label, *thin(steps, values)))
    across = (
        [] if bounds is None else [Mark("least possible", bounds[0]), Mark("largest possible", bounds[1])]
    )
    return draw_lines(lines, x_label="updates", y_label=y_label, across=across, is_log=is_log)


def series_of(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric; records without it are passed over, a null value is a gap (NaN)."""
    found = [record for record in records if key in record]
    values = [float("nan") if record[key] is None else float(record[key]) for record in found]
    return [float(record["step"]) for record in found], values


def thin(steps: Values, values: Values, *, points: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """At most `points` points: means of neighbours, at their mean step."""
    if len(steps) <= points:
        return list(steps), list(values)
    parts = np.array_split(np.arange(len(steps)), points)
    x, y = np.asarray(steps), np.asarray(values)
    return [float(x[part].mean()) for part in parts], [float(y[part].mean()) for part in parts]
