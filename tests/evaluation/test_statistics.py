import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.evaluation.statistics import (
    Average,
    Method,
    bootstrap_interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
)

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


def improvement(strata, others, **options):
    return probability_of_improvement(strata, others, generator=generator(), **options)


def test_improvement_by_hand() -> None:
    # Wins of (1, 3, 3) over (2, 3): of 3 over 2 twice, ties 3 = 3 twice: (2 + 2 / 2) / 6.
    assert improvement([[1, 3, 3]], [[2, 3]]).estimate == 3 / 6
    # A second task won outright: the mean over tasks, not over pairs.
    assert improvement([[1, 3, 3], [9, 9]], [[2, 3], [0, 1, 2, 3]]).estimate == (0.5 + 1.0) / 2


tasks_of_two = st.lists(st.tuples(samples, samples), min_size=1, max_size=3)


@settings(max_examples=50, deadline=None)
@given(tasks=tasks_of_two)
def test_improvement_is_a_double_loop_and_a_fair_game(tasks: list[tuple[list[float], list[float]]]) -> None:
    strata, others = ([list(map(round, task[k])) for task in tasks] for k in (0, 1))
    loops = []
    for x, y in zip(strata, others, strict=True):
        loops.append(sum((a > b) + (a == b) / 2 for a in x for b in y) / (len(x) * len(y)))
    forth, back = improvement(strata, others, resamples=20), improvement(others, strata, resamples=20)
    assert forth.estimate == pytest.approx(sum(loops) / len(loops))
    assert forth.estimate + back.estimate == pytest.approx(1.0)
    if math.isfinite(forth.low):
        assert 0.0 <= forth.low <= forth.high <= 1.0


def test_improvement_is_the_mann_whitney_statistic() -> None:
    x, y = generator(1).normal(0.4, 1, size=9), generator(2).normal(size=7)
    assert improvement([x], [y]).estimate == pytest.approx(scipy.stats.mannwhitneyu(x, y).statistic / 63)


def test_improvement_resamples_both_methods_within_tasks() -> None:
    strata, others = [generator(1).normal(0.5, 1, size=6), [5, 5, 7]], [generator(2).normal(size=5), [5, 6]]
    interval = improvement(strata, others, resamples=4000)
    draws, found = generator(3), []
    for _ in range(4000):
        one, other = ([draws.choice(s, size=len(s)) for s in side] for side in (strata, others))
        found.append(np.mean([_share(x, y) for x, y in zip(one, other, strict=True)]))
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(found, [0.025, 0.975]), atol=0.02)


def _share(x, y):
    return np.mean([(a > b) + (a == b) / 2 for a in x for b in y])


def test_improvement_of_single_seeds_has_no_interval_and_tasks_must_match() -> None:
    assert "single value" in improvement([[1.0]], [[0.0]]).method
    with pytest.raises(ValueError, match="1 and 2 tasks"):
        improvement([[1.0]], [[0.0], [1.0]])


def profile(strata, thresholds, **options):
    return performance_profile(strata, thresholds, generator=generator(), **options)


def test_profile_by_hand() -> None:
    found = profile([[0, 10, 20], [10, 40]], [-1, 0, 10, 30, 40], resamples=50)
    assert found.share == (1.0, 0.8, 0.4, 0.2, 0.0)
    assert found.n == 5
    assert (found.low[0], found.high[0]) == (1.0, 1.0)
    assert (found.low[-1], found.high[-1]) == (0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(strata=st.lists(st.lists(st.integers(-20, 20), min_size=2, max_size=6), min_size=1, max_size=3))
def test_profile_is_a_count_falls_and_has_the_mean_below_it(strata: list[list[int]]) -> None:
    scores = [score for stratum in strata for score in stratum]
    found = profile(strata, range(-20, 20), resamples=30)
    assert found.share == tuple(sum(s > t for s in scores) / len(scores) for t in range(-20, 20))
    assert all(low <= high for low, high in zip(found.low, found.high, strict=True))
    assert list(found.low) == sorted(found.low, reverse=True)
    assert sum(found.share) - 20 == pytest.approx(
        np.mean(scores)
    )  # integral of the tail, unit steps from -20


def test_profile_band_is_the_binomial_one() -> None:
    # At a threshold that splits 40 runs evenly, a resampled share is binomial(40, 1/2) / 40.
    found = profile([list(range(40))], [19.5], resamples=4000)
    expected = scipy.stats.binom(40, 0.5).ppf([0.025, 0.975]) / 40
    np.testing.assert_allclose([found.low[0], found.high[0]], expected, atol=1 / 40)


def test_profile_of_a_single_seed_has_no_band() -> None:
    found = profile([[1.0, 2.0], [3.0]], [0.0])
    assert math.isnan(found.low[0])
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["high"] == [None]


@pytest.mark.slow
def test_intervals_of_improvement_and_profile_cover() -> None:
    draws, truth = generator(0), scipy.stats.norm.cdf(0.5 / math.sqrt(2))
    improved = profiled = 0
    for _ in range(300):
        x, y = ([draws.normal(shift, 1, size=15) for _ in range(2)] for shift in (0.5, 0.0))
        interval = probability_of_improvement(x, y, generator=draws, level=0.9, resamples=300)
        improved += interval.low <= truth <= interval.high
        found = performance_profile(x, [0.5], generator=draws, level=0.9, resamples=300)
        profiled += found.low[0] <= 0.5 <= found.high[0]
    assert 0.84 <= improved / 300 <= 0.95
    assert 0.84 <= profiled / 300 <= 0.97
