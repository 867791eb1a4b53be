import dataclasses

import numpy as np
import pytest

from mbrl.data.splits import Split
from mbrl.dynamics.assessment.termination import measure_termination, predict_termination, score_termination
from mbrl.dynamics.termination import NeverTerminates
from tests.dynamics.systems import EndsBeyond, make_dataset


def score(probability, terminated, *, train_rows=96, train_terminated=3):
    return score_termination(
        np.array(probability),
        np.array(terminated),
        is_learned=True,
        train_rows=train_rows,
        train_terminated=train_terminated,
    )


def test_scores_by_hand():
    report = score([0.9, 0.6, 0.2, 0.1], [True, False, True, False])
    assert report.precision == 0.5
    assert report.recall == 0.5
    assert report.brier == pytest.approx((0.01 + 0.36 + 0.64 + 0.01) / 4)
    assert report.brier_constant == 0.25
    assert report.predicted_rate == pytest.approx(0.45)
    assert (report.rows, report.terminated, report.train_terminated) == (4, 2, 3)
    assert report.logged_rate == 0.05  # 5 of 100
    assert report.logged_rate_high == pytest.approx(0.1118, abs=1e-4)  # Wilson, 95 %
    silent = score([0.0, 0.0], [False, False])
    assert silent.precision is None
    assert silent.recall is None


def test_a_rule_that_is_the_systems_own_is_right_about_every_step():
    dataset = make_dataset(episodes=40, steps=30, wall=1.0)
    half = [dataset.select(range(20)), dataset.select(range(20, 40))]
    report = measure_termination(EndsBeyond(1.0), Split(*half, is_by_block=False))
    assert report.terminated == half[1].transitions().terminated.sum() > 0
    assert (report.precision, report.recall, report.brier) == (1.0, 1.0, 0.0)
    assert report.is_learned is False
    never = measure_termination(NeverTerminates(), Split(*half, is_by_block=False))
    assert never.recall == 0.0
    assert never.brier == pytest.approx(half[1].transitions().terminated.mean())


def test_steps_without_a_successor_are_not_asked_about():
    dataset = make_dataset(episodes=40, steps=30, wall=1.0)
    hidden = dataclasses.replace(
        dataset,
        episodes=tuple(
            dataclasses.replace(e, is_final_observation_known=not e.terminated) for e in dataset.episodes
        ),
    )
    report = measure_termination(EndsBeyond(1.0), Split(hidden, hidden, is_by_block=False))
    assert report.terminated == report.train_terminated == 0
    assert report.rows == int((~dataset.transitions().terminated).sum())


def test_blocks_do_not_show():
    rows = make_dataset(episodes=40, steps=60, wall=2.0).transitions()
    assert len(rows) > 1024
    expected = rows.next_observation[:, 0] > 0.5
    assert np.array_equal(predict_termination(EndsBeyond(0.5), rows), expected.astype(float))
