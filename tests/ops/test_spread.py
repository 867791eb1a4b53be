import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl.ops.spread import PlausibleRange, robust_scale


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "values",
    [
        normal(14_000),
        torch.linspace(-16.0, 0.0, 300),
        torch.distributions.Exponential(1.0).icdf(torch.linspace(0.0, 0.9999, 2000)),
        torch.tensor([-1.0, 1.0] * 50),
        torch.tensor([0.0] * 970 + [1.0] * 30),  # a success in 3 % of the rows
        torch.tensor([0.0] * 1997 + [1.0] * 3),  # and in 0.15 %
    ],
)
def test_of_ordinary_values_it_is_their_deviation_to_the_last_bit(values):
    assert robust_scale(values) == float(values.double().std(correction=0))
    assert torch.equal(PlausibleRange.of_most(values).settle(values), values.double())


@pytest.mark.parametrize("outlier", [-1e2, 1e12, 3e38, -3e38])
@pytest.mark.parametrize("n", [30, 1200, 14_000])
def test_one_outlier_hardly_moves_it(n, outlier):
    values = normal(n)
    spoiled = values.clone()
    spoiled[n // 3] = outlier
    assert robust_scale(spoiled) == pytest.approx(robust_scale(values), rel=0.01 if n >= 1200 else 0.3)
    assert robust_scale(spoiled) < 1.5


@pytest.mark.parametrize("outlier", [-1e2, 1e12])
def test_one_outlier_among_equal_or_sparse_values_does_not_count(outlier):
    alive = torch.ones(1200)
    alive[7] = outlier
    assert PlausibleRange.of_most(alive) == (1.0, 1.0, 1.0, 1.0)
    assert robust_scale(alive) == 1.0
    sparse = torch.tensor([0.0] * 1188 + [1.0] * 12)
    spoiled = sparse.clone()
    spoiled[7] = outlier
    assert robust_scale(spoiled) == pytest.approx(robust_scale(sparse), rel=1.2)


def test_by_hand():
    # n = 20: one value is cut off each end; 1 .. 18 are 17 wide, so the fences are -84 and 103.
    values = torch.arange(20.0)
    assert PlausibleRange.of_most(values) == (1 - 5 * 17, 18 + 5 * 17, 0, 19)
    values[-1] = 1e6
    assert PlausibleRange.of_most(values) == (-84, 103, 0, 18)
    assert robust_scale(values) == pytest.approx(np.array([*range(19), 18]).std())


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [50.0, 1e3, 1e12])
def test_values_that_nothing_explains_are_named_in_any_unit(unit: float, size: float):
    values = unit * normal(1200)
    rest = values.clone()
    assert not PlausibleRange.of_all_but_few(values).is_outlier(values).any()
    values[7], values[8] = size * unit, -3 * size * unit
    found = PlausibleRange.of_all_but_few(values)
    assert found.is_outlier(values).nonzero()[:, 0].tolist() == [7, 8]
    rest = torch.cat((rest[:7], rest[9:]))
    # Left out of statistics; and among what is learned still beyond all others, by five of their ranges.
    settled, clipped = found.settle(values), found.clip(values)
    assert (settled[7], settled[8]) == (rest.max(), rest.min())
    width = float(rest.max() - rest.min())
    assert 4.0 < float(clipped[7] - rest.max()) / width <= 5.0
    assert 4.0 < float(rest.min() - clipped[8]) / width <= 5.0
    for changed in (settled, clipped):
        assert torch.equal(torch.cat((changed[:7], changed[9:])), rest)


def test_what_comes_back_and_what_is_rare_are_no_outliers_of_what_is_learned():
    sparse = torch.zeros(5000)
    sparse[17] = 1e9
    crash = normal(5000)
    crash[::500] = -1e4  # 1 in 500
    for values in (sparse, crash, torch.tensor([2.0]), torch.tensor([1.0, 1e12]), torch.ones(40)):
        assert not PlausibleRange.of_all_but_few(values).is_outlier(values).any()


def test_beside_values_that_are_all_the_same_their_size_is_the_width():
    alive = torch.ones(1200)
    alive[3], alive[4] = -100.0, 5.0
    found = PlausibleRange.of_all_but_few(alive)
    assert found == (-4.0, 6.0, 1.0, 5.0)
    assert found.is_outlier(alive).nonzero()[:, 0].tolist() == [3]


def test_equal_outliers_do_not_hide_each_other():
    values = normal(100)
    values[[17, 90]] = 1e12
    assert PlausibleRange.of_all_but_few(values).is_outlier(values).nonzero()[:, 0].tolist() == [17, 90]


def test_a_bonus_that_all_values_share_stays_within_five_units():
    bonus = 1.0 + 0.05 * normal(500)
    assert robust_scale(bonus) == pytest.approx(0.2, rel=0.01)
    assert robust_scale(-bonus) == pytest.approx(0.2, rel=0.01)
    assert robust_scale(1.0 + 0.3 * normal(500)) == pytest.approx(0.3, rel=0.1)  # nothing to bound


def test_values_that_hardly_vary_are_measured_by_their_size():
    assert robust_scale(1.0 + 1e-6 * normal(500)) == pytest.approx(1.0, rel=1e-5)
    assert robust_scale(torch.full((50,), -3.0)) == 3.0


def test_what_is_nearly_always_zero_is_measured_by_what_is_not():
    values = torch.zeros(100_000)
    values[5] = 10.0
    assert robust_scale(values) == pytest.approx(10 * math.sqrt(1e-5), rel=1e-3)
    assert robust_scale(torch.zeros(10)) == 1.0
    assert robust_scale(torch.tensor([3.0])) == 3.0
    assert robust_scale(torch.tensor([1.0, 3.0])) == 1.0


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40), st.integers(-40, 40))
def test_values_times_a_power_of_two_have_exactly_that_much_more_scale(values, power):
    x = torch.tensor(values, dtype=torch.float64)
    if float(x.abs().max()) == 0 or float(x.abs()[x != 0].min()) < 1e-30:
        return
    assert robust_scale(x * 2.0**power) == 2.0**power * robust_scale(x)
