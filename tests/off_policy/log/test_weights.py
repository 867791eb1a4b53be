import dataclasses
import math

import numpy as np
import pytest

from mbrl.off_policy.log.weights import (
    WeightTransform,
    exp_weights,
    final_block,
    final_ess,
    first_empty_step,
    log_sum_exp,
    weight_blocks,
)
from tests.off_policy.logs import logged


@pytest.mark.parametrize("entries", [1, 80, 1_000_000])
def test_weights_are_products_of_ratios_however_time_is_cut(entries: int):
    arrays = logged()
    weight = np.cumprod(np.exp(arrays.log_ratio), 1)
    share = weight / weight.sum(0)
    for block in weight_blocks(arrays, entries=entries):
        np.testing.assert_allclose(np.exp(block.log_weight), weight[:, block.rows], rtol=1e-12)
        np.testing.assert_allclose(block.share, share[:, block.rows], rtol=1e-12)
        before = np.concatenate([np.full((40, 1), 1 / 40), share], 1)[:, block.rows]
        np.testing.assert_allclose(block.previous_share, before, rtol=1e-12)
    last = final_block(arrays)
    np.testing.assert_allclose(last.share[:, -1], share[:, -1], rtol=1e-12)
    assert final_ess(arrays) == pytest.approx(1 / np.square(share[:, -1]).sum(), rel=1e-12)


def test_long_products_neither_overflow_nor_vanish():
    arrays = logged()
    ratio = np.random.default_rng(0).uniform(math.log(0.1), math.log(10.0), (40, 5000)) - 2.0
    empty = np.zeros((40, 5000))
    long = dataclasses.replace(
        arrays, log_ratio=ratio, reward=empty, action_value=empty, value=np.zeros((40, 5001))
    )
    assert np.exp(ratio.sum(1)).max() == 0.0  # what a product would say
    assert final_block(long).share[:, -1].sum() == pytest.approx(1.0)
    assert 1.0 <= final_ess(long) <= 40.0


def test_a_step_without_any_weight_is_named():
    arrays = logged()
    log_ratio = arrays.log_ratio.copy()
    log_ratio[:, 2] = -np.inf
    dead = dataclasses.replace(arrays, log_ratio=log_ratio)
    assert first_empty_step(dead) == 2
    assert first_empty_step(arrays) == arrays.steps
    assert final_ess(dead) == 0.0


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (WeightTransform(cap=2.0), [0.5, 2.0, 2.0]),
        (WeightTransform(switch=3.0), [0.5, 2.0, 0.0]),
        (WeightTransform(shrinkage=2.0), [2 * 0.5 / 2.25, 2 * 2 / 6.0, 2 * 4 / 18.0]),
        (WeightTransform(), [0.5, 2.0, 4.0]),
    ],
)
def test_changes_of_a_weight(transform: WeightTransform, expected: list[float]):
    found = np.exp(transform.on_weight(np.log([0.5, 2.0, 4.0])))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_limit_of_every_ratio_comes_before_the_product():
    transform = WeightTransform(clip_log_ratio=(-1.0, 0.5))
    assert transform.on_ratio(np.array([-3.0, 0.2, 2.0])).tolist() == [-1.0, 0.2, 0.5]
    arrays = logged()
    weight = np.exp(np.cumsum(np.clip(arrays.log_ratio, -1.0, 0.5), 1))
    np.testing.assert_allclose(np.exp(final_block(arrays, transform).log_weight), weight, rtol=1e-12)


def test_a_weight_that_no_number_holds_is_nan():
    assert np.isnan(exp_weights(np.array([701.0]))[0])
    assert exp_weights(np.array([-np.inf, 0.0])).tolist() == [0.0, 1.0]


def test_the_logarithm_of_a_sum_survives_large_and_missing_terms():
    found = log_sum_exp(np.array([[1000.0, -np.inf], [1000.0, -np.inf]]))
    assert found.tolist() == [1000.0 + math.log(2.0), -np.inf]
