import dataclasses

import numpy as np
import pytest

from mbrl.dynamics.assessment.channels import (
    FEW_ROWS,
    find_rare_choices,
    find_reward_outliers,
    measure_channels,
)
from tests.dynamics.systems import make_dataset

ROWS = make_dataset(episodes=20, steps=40).transitions()


def with_columns(*columns):
    """The toy's rows with further columns, `(at s, at s')` each."""
    before = np.column_stack((ROWS.observation, *(c[0] for c in columns))).astype(np.float32)
    after = np.column_stack((ROWS.next_observation, *(c[1] for c in columns))).astype(np.float32)
    return dataclasses.replace(ROWS, observation=before, next_observation=after)


def test_a_log_without_odd_columns_has_nothing_to_report():
    found = measure_channels(ROWS, ("x", "y"))
    assert found.names == ("x", "y")
    assert (found.constant, found.coarse) == ((), ())
    assert found.label(1) == "y"
    assert measure_channels(ROWS, None).label(1) == "1"
    assert measure_channels(ROWS, ("one name for two",)).names == ("0", "1")


def test_constants_and_coarse_columns_are_told_apart():
    rng, count = np.random.default_rng(0), len(ROWS)
    noise = lambda scale: scale * rng.normal(size=count)  # noqa: E731
    place = np.round(1e4 + noise(1.0), 2)
    rows = with_columns(
        (np.full(count, 3.0), np.full(count, 3.0)),
        (0.5 + noise(1e-6), 0.5 + noise(1e-6)),
        (place, place + noise(2e-3)),
        (place, place),  # a parameter: where nothing changes nothing is lost
    )
    found = measure_channels(rows, None)
    assert [(c.dimension, c.mean) for c in found.constant] == [(2, 3.0), (3, pytest.approx(0.5))]
    assert found.constant[0].std == 0.0
    assert found.constant[1].std == pytest.approx(1e-6, rel=0.1)
    (coarse,) = found.coarse
    assert coarse.dimension == 4
    assert coarse.resolution == 2.0**-10  # float32 between 8192 and 16384
    assert coarse.change == pytest.approx(2e-3, rel=0.1)


def test_absurd_rewards_are_found_where_they_are():
    assert find_reward_outliers(ROWS) is None
    reward = ROWS.reward.copy()
    reward[3 * 40 + 7], reward[5 * 40] = 1e12, -1e11
    found = find_reward_outliers(dataclasses.replace(ROWS, reward=reward))
    assert (found.count, found.episode, found.row, found.value) == (2, 3, 7, pytest.approx(1e12))
    rest = np.delete(ROWS.reward, [127, 200])
    assert (found.least, found.largest) == (rest.min(), rest.max())


def test_choices_that_few_or_no_rows_took_are_named():
    index = np.zeros(len(ROWS), dtype=int)
    index[:FEW_ROWS] = 1
    index[FEW_ROWS] = 2
    rows = dataclasses.replace(ROWS, action=np.eye(4, dtype=np.float32)[index])
    found = find_rare_choices(rows, ("stay", "left", "right", "jump"))
    assert [(choice.name, choice.rows) for choice in found] == [("jump", 0), ("right", 1)]
    assert measure_channels(rows, None).rare_choices == ()
