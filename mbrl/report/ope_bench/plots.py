"""Figures of a benchmark of off-policy evaluation: estimates against true values."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl.off_policy.judgement.benchmark.answers import Answer, BenchLog, OPEBench
from mbrl.off_policy.judgement.benchmark.scores import score_estimator
from mbrl.report.kit.palette import BLUE, GREY, LIGHT, MUTED
from mbrl.report.kit.style import panels

MOST_COLUMNS: Final = 3
"""Panels side by side."""

PANEL: Final = (2.9, 2.5)
"""Inches of one panel."""

_WIDEN: Final = 0.6
"""Room above and below the true values, as a share of their range."""


def estimates_against_truth(bench: OPEBench, log: BenchLog) -> Figure | None:
    """One panel an estimator that answered, with its Spearman correlation; None if none did.

    True values run to the right, estimates with their intervals upwards.

    A circle is an estimate that may enter a verdict, a cross one that may not. The panel is cut beyond the
    range of true values; its title counts the estimates that lie outside.
    """
    names = [name for name in bench.estimators if any(p.is_answered(name) for p in log.policies)]
    if not names:
        return None
    truth = np.array([policy.truth for policy in log.policies])
    low, high = float(truth.min()), float(truth.max())
    room = _WIDEN * max(high - low, 1e-9)
    columns = min(MOST_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    with panels(rows, columns, x_label="true value", y_label="estimate", size=PANEL) as (figure, grid):
        for axes, name in zip(grid, names, strict=False):
            axes.plot([low, high], [low, high], color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (2, 2)))
            _draw(axes, [(p.truth, p.answers[name]) for p in log.policies if name in p.answers])
            axes.set_ylim(low - room, high + room)
            axes.set_title(_title(log, name, (low - room, high + room)))
        for axes in grid[len(names) :]:
            axes.set_axis_off()
    return figure


def _title(log: BenchLog, name: str, limits: tuple[float, float]) -> str:
    rank = score_estimator(log, name, resamples=0).metrics["spearman"].value
    points = [p.answers[name].point for p in log.policies if p.is_answered(name)]
    outside = sum(not limits[0] <= point <= limits[1] for point in points)
    beyond = f", {outside} outside" if outside else ""
    return f"{name}: {'-' if math.isnan(rank) else f'{rank:.2f}'}{beyond}"


def _draw(axes: Axes, pairs: Sequence[tuple[float, Answer]]) -> None:
    for is_valid, shape, role in ((True, "o", BLUE), (False, "x", GREY)):
        chosen = [
            (true, answer) for true, answer in pairs if answer.is_valid == is_valid and answer.has_point
        ]
        for true, answer in chosen:
            if answer.has_interval:
                axes.vlines([true], [answer.low], [answer.high], color=LIGHT[role], linewidth=1.2, alpha=0.6)
        axes.plot(
            [t for t, _ in chosen], [a.point for _, a in chosen], shape, color=LIGHT[role], markersize=4.5
        )
