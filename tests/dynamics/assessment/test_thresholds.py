import numpy as np
import pytest

from mbrl.dynamics.assessment.thresholds import FEW_ROWS, fit_thresholds


def test_few_held_out_rows_are_joined_by_training_rows():
    held_out, train = {"u": np.arange(100.0)}, {"u": np.arange(100.0, 1000.0)}
    found = fit_thresholds(held_out, train, quantiles=(0.5, 1.0))
    assert found == {"u": {0.5: 499.5, 0.95: pytest.approx(949.05), 1.0: 999.0}}


def test_many_held_out_rows_speak_alone_but_for_far_quantiles():
    held_out, train = {"u": np.linspace(0.0, 1.0, FEW_ROWS)}, {"u": np.full(1000, 5.0)}
    found = fit_thresholds(held_out, train, quantiles=(0.9, 0.99, 0.999, 1.0))["u"]
    assert [found[q] for q in (0.9, 0.95, 0.99)] == pytest.approx([0.9, 0.95, 0.99])
    assert [found[q] for q in (0.999, 1.0)] == [5.0, 5.0]


def test_each_measure_has_its_own():
    values = {"first": np.zeros(10), "second": np.ones(10)}
    found = fit_thresholds(values, values, quantiles=(1.0,))
    assert found == {"first": {0.95: 0.0, 1.0: 0.0}, "second": {0.95: 1.0, 1.0: 1.0}}


def test_training_rows_of_which_a_measure_knows_nothing_do_not_count():
    train = {"u": np.array([np.inf, np.nan, 3.0])}
    assert fit_thresholds({"u": np.array([1.0])}, train, quantiles=(1.0,))["u"] == {0.95: 2.9, 1.0: 3.0}
