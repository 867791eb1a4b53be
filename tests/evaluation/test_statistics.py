import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.evaluation.statistics import Average, Method, bootstrap_interval, iqm, stratified_interval

samples = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_known_averages() -> None:
    values = [8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0]
    estimates = {
        average: bootstrap_interval(values, generator=generator(), average=average, resamples=10).estimate
        for average in ("mean", "median", "iqm")
    }
    assert estimates == {"mean": 729 / 8, "median": 4.5, "iqm": 4.5}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([1, 2, 6], 3.0), ([0, 2, 4, 90], 3.0), ([0, 1, 2, 3, 90], 2.0), (range(1, 9), 4.5)],
)
def test_the_iqm_cuts_a_quarter_at_either_end(values: list[float], expected: float) -> None:
    assert iqm(values) == expected
    assert iqm(list(reversed(values))) == expected


def test_the_iqm_works_along_an_axis() -> None:
    table = generator().normal(size=(3, 8))
    np.testing.assert_allclose(iqm(table, axis=0), [iqm(column) for column in table.T])


@pytest.mark.parametrize("average", ["mean", "median", "iqm"])
def test_one_value_has_no_interval_and_says_why(average: Average) -> None:
    interval = bootstrap_interval([2.5], generator=generator(), average=average)
    assert (interval.estimate, interval.n) == (2.5, 1)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert "single value" in interval.method
    assert json.loads(json.dumps(interval.to_json(), allow_nan=False))["low"] is None


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_values_have_an_interval_without_width(method: Method) -> None:
    interval = bootstrap_interval([7.0] * 5, generator=generator(), method=method)
    assert (interval.estimate, interval.low, interval.high) == (7.0, 7.0, 7.0)


@settings(max_examples=50, deadline=None)
@given(
    values=samples,
    average=st.sampled_from(["mean", "median", "iqm"]),
    method=st.sampled_from(["percentile", "bca"]),
)
def test_an_interval_lies_within_the_data_and_is_repeatable(
    values: list[float], average: Average, method: Method
) -> None:
    draws = [
        bootstrap_interval(
            values, generator=generator(4), average=average, method=method, resamples=50
        ).to_json()
        for _ in range(2)
    ]
    assert draws[0] == draws[1]
    if draws[0]["low"] is not None:
        slack = 1e-9 * (1 + max(map(abs, values)))
        assert min(values) - slack <= draws[0]["low"] <= draws[0]["high"] <= max(values) + slack


def test_the_percentile_interval_is_that_of_a_plain_loop() -> None:
    values = generator(1).exponential(size=12)
    interval = bootstrap_interval(values, generator=generator(2), resamples=4000)
    draws = generator(3)
    means = [values[draws.integers(12, size=12)].mean() for _ in range(4000)]
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(means, [0.025, 0.975]), atol=0.03)


def test_a_large_sample_has_the_normal_interval() -> None:
    values = generator(1).normal(3.0, 2.0, size=400)
    for method in ("percentile", "bca"):
        interval = bootstrap_interval(values, generator=generator(2), method=method, level=0.9)
        half = scipy.stats.norm.ppf(0.95) * values.std(ddof=1) / 20
        np.testing.assert_allclose(
            [interval.low, interval.high], [values.mean() - half, values.mean() + half], atol=0.02
        )


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover(method: Method) -> None:
    draws = generator(0)
    hits = 0
    for _ in range(300):
        interval = bootstrap_interval(
            draws.normal(size=20), generator=draws, level=0.9, method=method, resamples=300
        )
        hits += interval.low <= 0.0 <= interval.high
    assert 0.82 <= hits / 300 <= 0.95


def test_strata_are_resampled_within_tasks() -> None:
    # Two tasks far apart: resampling across tasks would give an interval hundreds of points wide.
    tasks = [[0.0, 1.0, 2.0, 1.0], [1000.0, 1001.0, 1002.0]]
    interval = stratified_interval(tasks, generator=generator(), average="mean")
    assert interval.estimate == pytest.approx(np.mean([*tasks[0], *tasks[1]]))
    assert interval.n == 7
    assert 0 < interval.high - interval.low < 2
    mixed = bootstrap_interval([*tasks[0], *tasks[1]], generator=generator())
    assert mixed.high - mixed.low > 300


def test_the_stratified_iqm_is_over_all_scores_together() -> None:
    assert stratified_interval([[0, 100, 3], [2, 4, 1, 50, -9]], generator=generator()).estimate == 2.5


@pytest.mark.parametrize(
    ("strata", "problem"),
    [
        ([], "row of values"),
        ([[1.0], []], "row of values"),
        ([[[1.0]]], "row of values"),
        ([[1, math.nan]], "finite"),
    ],
)
def test_what_cannot_be_averaged_is_refused(strata: list[list[float]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        stratified_interval(strata, generator=generator())
