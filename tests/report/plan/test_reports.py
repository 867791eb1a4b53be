"""The figure and the tables of a plan hold the numbers that they are given."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mbrl.report.kit.palette import LIGHT
from mbrl.report.kit.table import to_text
from mbrl.report.plan.plots import gain_figure, plan_figure, tree_figure
from mbrl.report.plan.sections import budget_sections
from mbrl.report.plan.tables import budget_table, candidate_table, plan_table, trace_table


def explanation() -> dict[str, Any]:
    edge = {
        "action": [0.5], "reward": -1.0, "penalty": 0.25, "discount": 0.9, "value": -3.0, "spread": 0.5,
        "min_member": 2, "uncertainty": 0.5, "ended": 0.0,
    }  # fmt: skip
    return {
        "planner": "icem", "state": "7", "value": -3.0, "value_lcb": -3.5, "reward_part": -2.0,
        "penalty_part": 0.25, "bootstrap_part": -0.75, "uncertainty": 0.5, "delta_lcb": None,
        "candidates": [
            {"action": [0.5, 0.1, 0.2, 0.3], "weight": 0.75, "visits": 0, "source": "shooting"},
            {"action": [0.0, 1.0, 0.0], "weight": 0.25, "visits": 0, "source": "policy"},
        ],
        "plan_trace": [edge, {**edge, "reward": -0.5, "min_member": None}],
    }  # fmt: skip


def test_the_figure_shows_weights_parts_and_steps() -> None:
    candidates, parts, steps = plan_figure(explanation()).axes
    assert [bar.get_width() for bar in candidates.patches] == [0.75, 0.25]
    assert [label.get_text() for label in candidates.get_yticklabels()] == [
        "+0.50, +0.10, +0.20, ...", "action 1",
    ]  # fmt: skip
    heights = [bar.get_height() for bar in parts.patches]
    assert heights == [-2.0, -0.25, -0.75, -3.0, -3.5]
    assert heights[3] == pytest.approx(sum(heights[:3]))
    assert to_hex(parts.patches[1].get_facecolor()) == LIGHT["brick"]
    assert [list(line.get_ydata()) for line in steps.lines] == [[-1.0, -0.5], [0.5, 0.5]]


def test_missing_parts_leave_gaps() -> None:
    values = {**explanation(), "penalty_part": None, "value_lcb": None}
    heights = [bar.get_height() for bar in plan_figure(values).axes[1].patches]
    assert list(np.isnan(heights)) == [False, True, False, False, True]


def test_a_tree_hangs_from_its_root_with_parents_above_the_middle_of_their_children() -> None:
    parents = [-1, 0, 0, 1, 1, 3]
    nodes = [
        {"node": k, "parent": parent, "visits": 6 - k, "value": float(k), "is_end": k == 4}
        for k, parent in enumerate(parents)
    ]
    axes = tree_figure(nodes).axes[0]
    rounds, squares = (collection.get_offsets().tolist() for collection in axes.collections)
    assert squares == [[1.0, 2.0]]
    assert rounds == [[1.25, 0.0], [0.5, 1.0], [2.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    assert len(axes.lines) == 5
    widths = [line.get_linewidth() for line in axes.lines]
    assert widths == sorted(widths, reverse=True)


def test_tables_of_a_plan() -> None:
    found = candidate_table(explanation())
    assert found.rows[0] == ("+0.50, +0.10, +0.20, ...", "shooting", 0.75, 0)
    note = {
        "action": [0.5, 0.1, 0.2, 0.3], "source": "flat_policy", "weight": 0.75, "visits": 9, "q": -3.0,
        "q_lcb": -3.5, "min_q": -4.0, "min_member": 2,
    }  # fmt: skip
    searched = candidate_table({**explanation(), "search": {"candidates": [note]}})
    row = ("+0.50, +0.10, +0.20, ...", "flat_policy", 0.75, 9, -3.0, -3.5, -4.0, 2)
    assert searched.rows == [row]
    assert max(map(len, to_text([searched]).splitlines())) <= 100
    steps = trace_table(explanation())
    assert steps.rows[0] == (1, "+0.50", -1.0, 0.25, -3.0, 0.5, 0.5, 2)
    assert max(map(len, to_text([found, steps]).splitlines())) <= 100


def test_the_table_of_a_planning_says_what_is_missing() -> None:
    interval = {"estimate": -150.0, "low": -160.0, "high": -140.0, "level": 0.95, "method": "x", "n": 3}
    summary: dict[str, Any] = {
        "planner": "mppi", "algorithm": "td3_bc", "task": "pendulum", "critic": "learner",
        "config": {"sims": None, "milliseconds": 20.0, "pessimism": 2.0},
        "episode_returns": [1.0, 2.0, 3.0], "return_interval": interval, "policy_interval": interval,
        "gain_interval": {**interval, "estimate": 4.0, "low": None, "high": None, "method": "none: why"},
        "plans": {
            "plans_per_second": 61.3, "milliseconds": {"p50": 15.0, "p95": 18.5, "p99": 21.0}, "batch": 1.0,
            "deadline_misses": 3, "calls": 600, "fallback_share": 0.005, "sims_per_plan": 512.0,
            "uncertainty": 0.7,
        },
        "calibration": {"penalty_coef": 1.5, "lcb_coef": 0.5},
        "certificate": {"mean": 0.8, "low": None},
    }  # fmt: skip
    rows = dict(plan_table(summary).rows)
    assert rows["budget of a call"] == "20 ms"
    assert rows["deadline misses"] == "3 of 600"
    assert rows["values at leaves"] == "learner"
    unsettled = plan_table({**summary, "critic": "fqe", "critic_converged": False})
    assert dict(unsettled.rows)["values at leaves"] == "fqe, did not converge"
    assert rows["milliseconds p50, p95, p99"] == "15, 18.5, 21"
    assert rows["penalty lambda, deviations kappa"] == "3, 1 (2 times the calibrated ones)"
    assert rows["gain, paired by starts"] == "4 (no interval: why)"
    assert (
        rows["gain in the model, per state"] == "0.800, at least not available (95 %, if the model is right)"
    )
    assert plan_table({**summary, "certificate": None, "plans": {}}).rows[6][1] == "not available"
    assert max(map(len, to_text([plan_table(summary)]).splitlines())) <= 100


def test_budgets_stand_beside_what_they_bring() -> None:
    entry: dict[str, Any] = {
        "algorithm": "bc+mppi-20ms", "dataset": "mixed", "seeds": 3, "mean_return": -200.0,
        "policy_return": -900.0, "gain": 700.0, "milliseconds": {"p50": 14.0, "p95": 17.5, "p99": 19.0},
        "deadline_miss_share": 0.01, "sims_per_plan": 320.0,
    }  # fmt: skip
    table = budget_table([entry, {**entry, "deadline_miss_share": None}])
    assert table.rows[0][2:5] == (-200.0, -900.0, 700.0)
    assert [row[6] for row in table.rows] == ["1.0 %", "-"]
    assert max(map(len, to_text([table]).splitlines())) <= 100


def planning(
    planner: str, milliseconds: float | None, returns: list[float], **changes: Any
) -> dict[str, Any]:
    return {
        "dataset": "mixed", "algorithm": "x", "policy": "bc", "planner": planner, "pessimism": 1.0,
        "budget_milliseconds": milliseconds, "seeds": len(returns), "mean_return": float(np.mean(returns)),
        "returns_by_seed": returns, "policy_return": -900.0, "gain": 0.0, "deadline_miss_share": None,
        "milliseconds": {"p50": 14.0, "p95": 17.5, "p99": 19.0}, "sims_per_plan": 320.0, **changes,
    }  # fmt: skip


def test_returns_are_drawn_against_the_budget_of_what_differs_in_nothing_else() -> None:
    entries = [
        planning("mppi", 20.0, [-300.0, -100.0]),
        planning("mppi", 5.0, [-800.0, -700.0]),
        planning("mppi", 20.0, [-1.0, -1.0]),  # the second of its budget: an ablation
        planning("mppi", 50.0, [-1.0, -1.0], pessimism=0.0),
        planning("mppi", None, [-1.0, -1.0]),
        planning("icem", 5.0, [-850.0, -850.0]),  # one budget is no line
        planning("icem", 5.0, [-2.0, -2.0], policy="td3_bc"),
    ]
    (section,) = budget_sections(entries)
    (picture,) = section.pictures
    axes = picture.figure.axes[0]
    line = axes.lines[0]
    assert np.asarray(line.get_xdata()).tolist() == [5.0, 20.0]
    assert np.asarray(line.get_ydata()).tolist() == [-750.0, -200.0]
    assert picture.alt == "Policy alone -900; mppi: -750, -200."
    assert len(section.tables[0].rows) == len(entries)
    assert budget_sections([]) == []


def test_gains_are_drawn_with_their_mean_and_its_bound() -> None:
    found = {"quantiles": [-1.0, 0.0, 4.0], "mean": 0.8, "low": 0.2, "improved": 0.5, "states": 40}
    axes = gain_figure(found).axes[0]
    assert [float(np.asarray(line.get_xdata())[0]) for line in axes.lines[1:]] == [0.0, 0.8, 0.2]
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [0.0, 0.5, 1.0]
    assert len(gain_figure({**found, "low": None}).axes[0].lines) == 3
