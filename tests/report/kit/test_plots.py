import numpy as np
import pytest
from matplotlib.colors import to_hex

from mbrl.report.kit import score_plots
from mbrl.report.kit.palette import LIGHT
from mbrl.report.kit.plots import Bars, Dots, draw_bars, draw_intervals
from mbrl.report.run import data_plots, dynamics_plots
from tests.report.conftest import interval


def axes_of(figure):
    (axes,) = figure.axes
    return axes


def line(axes, label):
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return found


def k_step(**changes):
    values = {
        "low": [0.05, 0.1, 0.2],
        "high": [0.2, 0.3, 0.5],
        "persistence": [0.3, 0.6, 0.9],
        "linear": [0.2, 0.5, 0.8],
        "tolerance": 0.3,
        "trusted_horizon": 2,
    }
    return axes_of(dynamics_plots.k_step_error([1, 2, 3], [0.1, 0.2, 0.4], **{**values, **changes}))


def test_k_step_lines_hold_the_numbers_and_the_marker_stands_at_the_trusted_horizon():
    axes = k_step()
    assert list(line(axes, "ensemble, with interval").get_ydata()) == [0.1, 0.2, 0.4]
    assert list(line(axes, "persistence").get_ydata()) == [0.3, 0.6, 0.9]
    assert list(line(axes, "ridge-linear").get_ydata()) == [0.2, 0.5, 0.8]
    assert set(line(axes, "trusted: 2 steps").get_xdata()) == {2.0}
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].max() == 0.5


def test_zero_trust_and_a_missing_interval_are_named():
    axes = k_step(low=None, high=None, linear=None, trusted_horizon=0)
    assert set(line(axes, "trusted: none").get_xdata()) == {0.0}
    assert line(axes, "ensemble (no interval)").get_ydata()[0] == 0.1
    assert not axes.collections


def test_an_exploding_baseline_does_not_squash_the_rest():
    assert k_step(linear=[0.2, 50.0, 9e5]).get_ylim()[1] == pytest.approx(2.5 * 0.9)
    assert k_step().get_ylim()[1] == pytest.approx(1.08 * 0.9)


def test_training_curves_tell_elites_from_the_rest():
    axes = axes_of(dynamics_plots.training_curves([10, 20], [[3.0, 1.0], [4.0, 2.0], [5.0, 3.0]], [0, 2]))
    colours = {tuple(drawn.get_ydata()): to_hex(drawn.get_color()) for drawn in axes.lines}
    assert colours[(3.0, 1.0)] == colours[(5.0, 3.0)] == LIGHT["blue"]
    assert colours[(4.0, 2.0)] == LIGHT["grey"]


def test_reliability_draws_both_curves_over_the_diagonal():
    axes = axes_of(dynamics_plots.reliability([0.5, 0.9], [0.3, 0.7], [0.5, 0.91]))
    assert list(line(axes, "as fitted").get_ydata()) == [0.3, 0.7]
    assert list(line(axes, "recalibrated").get_ydata()) == [0.5, 0.91]
    assert list(line(axes, "exact").get_xdata()) == list(line(axes, "exact").get_ydata())


def test_pit_is_a_density():
    axes = axes_of(dynamics_plots.pit_histogram([1, 3], [2, 2]))
    drawn = [patch.get_data().values.tolist() for patch in axes.patches]
    assert [1.0, 1.0] in drawn
    assert [0.5, 1.5] in drawn


def test_coverage_marks_the_trusted_horizon():
    axes = axes_of(
        dynamics_plots.coverage_by_step([1, 2], [0.9, 0.7], level=0.9, least=0.8, trusted_horizon=1)
    )
    assert set(line(axes, "trusted: 1 step").get_xdata()) == {1.0}
    assert {"nominal", "least that is trusted"} <= {text.get_text() for text in axes.texts}


def test_errors_by_dimension_draw_the_worst_when_there_are_many():
    size = 100
    errors = np.linspace(0.0, 1.0, size)
    axes = axes_of(
        dynamics_plots.errors_by_dimension([f"d{k}" for k in range(size)], errors.tolist(), None, None)
    )
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"d{k}" for k in range(size - 30, size)]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(errors[-30:])


def test_intervals_without_ends_are_bare_marks():
    axes = axes_of(draw_intervals(["a", "b"], [("all", [interval(1.0, 0.5), interval(2.0)])], x_label="x"))
    assert list(line(axes, "all").get_xdata()) == [1.0, 2.0]
    (bar,) = axes.collections
    assert bar.get_segments()[0][:, 0].tolist() == [0.5, 1.5]


def test_scores_show_every_seed_the_interval_and_the_references():
    rows = [Dots("MOPO", [1.0, 2.0], interval(1.5, 0.5)), Dots("BC", [0.5], interval(0.5))]
    axes = axes_of(score_plots.scores(rows, unit="return", behaviour=0.1, best_tenth=3.0))
    seeds = [sorted(drawn.get_xdata()) for drawn in axes.lines if drawn.get_alpha() == 0.7]
    assert seeds == [[1.0, 2.0], [0.5]]
    assert set(line(axes, "logged behaviour").get_xdata()) == {0.1}
    assert set(line(axes, "best tenth of the log").get_xdata()) == {3.0}
    assert [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections] == [[1.0, 2.0]]


def test_curves_follow_the_records_and_leave_gaps():
    records = [
        {"step": 1, "q": 2.0},
        {"step": 2, "other": 1.0},
        {"step": 3, "q": None},
        {"step": 4, "q": 5.0},
    ]
    assert score_plots.series_of(records, "q")[0] == [1.0, 3.0, 4.0]
    (drawn,) = axes_of(score_plots.curves({"run": records}, ["q"], y_label="q")).lines
    assert np.array_equal(drawn.get_ydata(), [2.0, np.nan, 5.0], equal_nan=True)


def test_thinning_keeps_the_mean_and_bounds_the_points():
    steps, values = list(range(6000)), np.random.default_rng(0).normal(size=6000).tolist()
    thin_steps, thin_values = score_plots.thin(steps, values)
    assert len(thin_steps) == score_plots.MAX_POINTS
    assert np.mean(thin_values) == pytest.approx(np.mean(values))
    assert thin_steps[0] == 4.5


def test_histogram_bars_have_the_heights():
    axes = axes_of(data_plots.histogram([3, 0, 7], [0.0, 1.0, 2.0, 3.0], x_label="x", counted="episodes"))
    assert [bar.get_height() for bar in axes.patches] == [3, 0, 7]
    assert axes.get_ylabel() == "episodes"


def test_ranges_are_in_standard_deviations_and_a_constant_is_a_point():
    axes = axes_of(
        data_plots.dimension_ranges(["a", "b"], [1.0, 5.0], [7.0, 5.0], mean=[3.0, 5.0], deviation=[2.0, 0.0])
    )
    outer = axes.collections[0].get_segments()
    assert outer[0][:, 0].tolist() == [-1.0, 2.0]
    assert outer[1][:, 0].tolist() == [0.0, 0.0]


def test_saturation_is_in_percent():
    axes = axes_of(data_plots.action_saturation(["a", "b"], [0.25, 0.0]))
    assert [bar.get_width() for bar in axes.patches] == [25.0, 0.0]


def test_bars_of_a_group_keep_the_groups_colour():
    axes = axes_of(draw_bars(["a"], [Bars("x", [1.0], 0), Bars("y", [2.0], 5)], x_label="x"))
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [LIGHT["blue"], LIGHT["grey"]]
