"""Figures of planning: one plan and its tree, gains over the policy, returns against milliseconds."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mbrl.report.kit.palette import BLUE, BRICK, DASHES, GREEN, GREY, INK, LIGHT, MUTED, ORANGE, series_colour
from mbrl.report.kit.plots import Dots, Line, Mark, draw_dots, draw_lines
from mbrl.report.kit.style import add_legend, panel, panels

MOST_BARS: Final = 12
"""Candidates that are drawn; more could not be read."""


def plan_figure(explanation: Mapping[str, Any]) -> Figure:
    """Candidates by weight, the parts of the value, rewards and uncertainty along the plan.

    Args:
        explanation: plain values of `mbrl.planning.explain.plan_trace.describe_plan`.
    """
    with panels(1, 3) as (figure, grid):
        _draw_candidates(grid[0], explanation["candidates"][:MOST_BARS])
        _draw_parts(grid[1], explanation)
        _draw_steps(grid[2], explanation["plan_trace"])
        return figure


def tree_figure(nodes: Sequence[Mapping[str, Any]]) -> Figure:
    """A search tree from the root down: lines by visits, dots by value, squares where the model ends.

    Args:
        nodes: in order of creation, each with `node`, `parent` (-1 at the root), `visits`, `value`, `is_end`.
    """
    place, depth = _lay_out(nodes)
    width = max(4.7, min(16.0, 0.22 * len(nodes)))
    with panel(x_label="", y_label="depth", size=(width, 4.0)) as (figure, axes):
        total = max(1, int(nodes[0]["visits"]))
        for node in nodes:
            parent = int(node["parent"])
            if parent >= 0:
                name = int(node["node"])
                axes.plot(
                    [place[parent], place[name]], [depth[parent], depth[name]], color=LIGHT[GREY],
                    linewidth=0.5 + 4.0 * float(node["visits"]) / total, zorder=1,
                )  # fmt: skip
        for marker, is_end in (("o", False), ("s", True)):
            chosen = [node for node in nodes if bool(node["is_end"]) == is_end]
            dots = axes.scatter(
                [place[int(node["node"])] for node in chosen], [depth[int(node["node"])] for node in chosen],
                c=[np.nan if node["value"] is None else float(node["value"]) for node in chosen],
                marker=marker, s=34.0, zorder=2, cmap="viridis", norm=_value_range(nodes),
            )  # fmt: skip
            if not is_end:
                figure.colorbar(dots, ax=axes, label="value, return units")
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_yticks(range(max(depth.values()) + 1))
        axes.grid(visible=False)
        return figure


def gain_figure(certificate: Mapping[str, Any]) -> Figure:
    """Gain over the policy at logged states in the model's opinion: its distribution, mean and lower bound.

    Args:
        certificate: plain values of a `Certificate`.
    """
    gains = certificate["quantiles"]
    marks = [Mark("no gain", 0.0), Mark("mean", certificate["mean"])]
    if certificate["low"] is not None:
        marks.append(Mark("mean is at least (95 %)", certificate["low"]))
    with panel(x_label="gain in the model, return units", y_label="share of states below it") as (
        figure,
        axes,
    ):
        axes.plot(gains, np.linspace(0.0, 1.0, len(gains)), color=series_colour(0))
        for index, mark in enumerate(marks):
            dash = DASHES[index % len(DASHES)]
            axes.axvline(mark.value, color=LIGHT[MUTED], linewidth=1.3, linestyle=dash, label=mark.label)
        axes.set_ylim(-0.02, 1.02)
        add_legend(figure, axes)
        return figure


def gate_figure(gate: Mapping[str, Any]) -> Figure:
    """Gains in the judging model against the planner's own estimates: states, and means above levels.

    Args:
        gate: plain values of a `Gate` that saw gains.
    """
    points = gate["points"]
    with panel(x_label="estimated gain, return units", y_label="realised gain, return units") as (
        figure,
        axes,
    ):
        axes.scatter(gate["estimated"], gate["realised"], s=8, color=LIGHT[GREY], label="one state")
        axes.axhline(0.0, color=LIGHT[INK], linewidth=0.8)
        axes.errorbar(
            [point["estimated"] for point in points],
            [point["realised"] for point in points],
            yerr=[
                [point["realised"] - point["low"] if point["low"] is not None else 0.0 for point in points],
                [0.0] * len(points),
            ],
            color=series_colour(0), marker="o", capsize=3, label="mean above a level",
        )  # fmt: skip
        if gate["threshold"] is not None:
            axes.axvline(gate["threshold"], color=LIGHT[GREEN], linestyle="--", label="believed from here on")
        # A few states with huge gains would squeeze all others into a line.
        for limits, values in ((axes.set_xlim, gate["estimated"]), (axes.set_ylim, gate["realised"])):
            low, high = np.quantile(values, (0.01, 0.99))
            margin = 0.05 * (high - low) or 1.0
            limits(min(0.0, low) - margin, max(0.0, high) + margin)
        add_legend(figure, axes)
        return figure


def return_figure(planner: Dots, policy: Dots) -> Figure:
    """Episodes of the planner and of the policy alone, from common starts."""
    return draw_dots([planner, policy], x_label="episode return", value_name="one episode")


def budget_figure(curves: Sequence[Line], policy: float) -> Figure:
    """Return against the milliseconds of a plan, one line a planner.

    Args:
        curves: mean over seeds, with a band from the least to the largest seed.
        policy: mean return of the policy alone.
    """
    return draw_lines(
        curves,
        x_label="milliseconds of a plan, at most",
        y_label="return, mean over seeds",
        across=[Mark("policy alone", policy)],
    )


def _lay_out(nodes: Sequence[Mapping[str, Any]]) -> tuple[dict[int, float], dict[int, int]]:
    """Place across and depth of each node: leaves side by side, parents above their children's middle."""
    children: dict[int, list[int]] = {int(node["node"]): [] for node in nodes}
    depth: dict[int, int] = {}
    for node in nodes:
        name, parent = int(node["node"]), int(node["parent"])
        depth[name] = 0 if parent < 0 else depth[parent] + 1
        if parent >= 0:
            children[parent].append(name)
    place: dict[int, float] = {}
    stack, leaves = [int(nodes[0]["node"])], 0
    while stack:
        name = stack[-1]
        waiting = [child for child in children[name] if child not in place]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if children[name]:
            place[name] = sum(place[child] for child in children[name]) / len(children[name])
        else:
            place[name], leaves = float(leaves), leaves + 1
    return place, depth


def _value_range(nodes: Sequence[Mapping[str, Any]]) -> Normalize:
    values = [float(node["value"]) for node in nodes if node["value"] is not None]
    return Normalize(min(values, default=0.0), max(values, default=1.0))


def _draw_candidates(axes: Axes, candidates: Sequence[Mapping[str, Any]]) -> None:
    """Bars from the heaviest down, coloured by where a candidate comes from."""
    sources = list(dict.fromkeys(str(candidate["source"]) for candidate in candidates))
    colour = {source: series_colour(index) for index, source in enumerate(sources)}
    places = range(len(candidates))
    axes.barh(
        list(places),
        [candidate["weight"] for candidate in candidates],
        color=[colour[candidate["source"]] for candidate in candidates],
        height=0.7,
    )
    axes.set_yticks(list(places), [_name_action(candidate["action"]) for candidate in candidates])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("weight of the candidate action")
    marks = [Line2D([], [], color=colour[source], linewidth=6) for source in sources]
    names = [source.replace("_", " ") for source in sources]
    axes.legend(
        marks, names, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(4, len(names)), handlelength=1.2
    )


def _draw_parts(axes: Axes, explanation: Mapping[str, Any]) -> None:
    """Reward less penalty plus bootstrap make the value; beside it the lower bound."""
    penalty = explanation["penalty_part"]
    bars = [
        ("reward", explanation["reward_part"], GREEN),
        ("penalty", None if penalty is None else -penalty, BRICK),
        ("bootstrap", explanation["bootstrap_part"], BLUE),
        ("value", explanation["value"], INK),
        ("lower bound", explanation["value_lcb"], GREY),
    ]
    places = range(len(bars))
    heights = [np.nan if value is None else float(value) for _, value, _ in bars]
    axes.bar(list(places), heights, color=[LIGHT[role] for _, _, role in bars], width=0.65)
    axes.set_xticks(list(places), [name for name, _, _ in bars], rotation=20)
    axes.axhline(0.0, color=LIGHT[INK], linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("return units")


def _draw_steps(axes: Axes, trace: Sequence[Mapping[str, Any]]) -> None:
    """Reward and uncertainty of each step of the plan; steps that members want to end are ringed."""
    steps = list(range(1, len(trace) + 1))
    axes.plot(steps, _column(trace, "reward"), color=LIGHT[GREEN], marker="o", label="reward")
    axes.plot(
        steps, _column(trace, "uncertainty"), color=LIGHT[ORANGE], marker="s", linestyle="--",
        label="uncertainty",
    )  # fmt: skip
    axes.set_xticks(steps[:: max(1, len(steps) // 6)])
    axes.set_xlabel("step of the plan")
    axes.set_ylabel("reward units")
    axes.legend(loc="best")


def _column(trace: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [cast("float | None", step[key]) for step in trace]
    return [np.nan if value is None else value for value in values]


def _name_action(action: Sequence[float]) -> str:
    """At most three coordinates; a one-hot action by its number."""
    if len(action) > 1 and set(action) == {0.0, 1.0}:
        return f"action {list(action).index(1.0)}"
    text = ", ".join(f"{value:+.2f}" for value in action[:3])
    return text + (", ..." if len(action) > 3 else "")
