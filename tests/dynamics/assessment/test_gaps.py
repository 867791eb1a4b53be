"""What a model does not know, on rows whose answer is known by construction."""

import numpy as np
import pytest

from mbrl.core.types import SpaceSpec
from mbrl.dynamics.assessment.gaps import Doubt, doubtful_ranges, map_doubt, unlogged_actions
from mbrl.dynamics.gap_report import DoubtfulRange, GapReport, UnloggedAction, range_words


def rows(n: int = 4000, seed: int = 0) -> Doubt:
    """Three channels; four times as unsure, and twice as wrong, where the second exceeds 3."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.uniform(-1, 1, n), rng.uniform(0, 4, n), rng.uniform(-1, 1, n)], 1)
    far = values[:, 1] > 3
    error = np.where(far, 2.0, 1.0)
    error[n // 2 :] = np.nan  # the second half was fitted to
    return Doubt(values, np.where(far, 4.0, 1.0) * rng.uniform(0.99, 1.01, n), error)


def test_a_doubtful_range_is_found_with_its_channel_and_its_ends():
    (found,) = doubtful_ranges(rows())
    assert found.channel == 1
    assert found.high is None
    assert found.low == pytest.approx(3.0, abs=0.05)
    assert found.share == pytest.approx(0.25, abs=0.02)
    assert found.doubt == pytest.approx(4, rel=0.02)
    assert found.error == pytest.approx(2 / np.sqrt(0.25 * 4 + 0.75), rel=0.03)


def test_doubt_without_errors_is_no_gap():
    one = rows()
    error = np.where(one.values[:, 1] > 3, 0.5, 1.0)
    assert doubtful_ranges(Doubt(one.values, one.doubt, error)) == ()


def test_what_is_usual_is_no_gap():
    one = rows()
    usual = np.where(one.values[:, 1] < 2.05, 4.0, 0.1)
    assert doubtful_ranges(Doubt(one.values, usual, np.ones(len(usual)))) == ()
    constant = Doubt(np.zeros((100, 2)), np.ones(100), np.ones(100))
    assert doubtful_ranges(constant) == ()
    assert map_doubt(constant) is None


def test_a_few_rows_are_no_evidence():
    one = rows()
    doubt = np.ones(len(one.doubt))
    doubt[one.values[:, 1] > 3.995] = 100.0  # some five rows
    assert doubtful_ranges(Doubt(one.values, doubt, one.error)) == ()


def test_the_map_takes_the_channels_along_which_doubt_varies():
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 1, (20_000, 3))
    doubt = np.exp(2 * values[:, 2] + 0.5 * values[:, 0])
    found = map_doubt(Doubt(values, doubt, np.full(len(doubt), np.nan)))
    assert found is not None
    assert found.channels == (2, 0)
    # Eight ranges of a uniform channel hold all but 1/64 of its variance; the channels are independent.
    total = 4 + 0.25
    assert found.explained == pytest.approx((63 / 64 * 4 / total, 63 / 64 * 0.25 / total), abs=0.012)
    assert sum(found.count) == 20_000
    exact = np.exp(2 * np.array(found.x) + 0.5 * np.array(found.y)) / np.median(doubt)
    assert np.array(found.doubt) == pytest.approx(exact, rel=0.1)


def test_actions_that_are_used_in_part():
    rng = np.random.default_rng(2)
    actions = np.stack([rng.uniform(-1, 1, 5000), rng.uniform(-0.5, 0.5, 5000)], 1)
    spec = SpaceSpec(1, 2, act_low=(-1.0, -1.0), act_high=(1.0, 1.0))
    (found,) = unlogged_actions(actions, spec, first=1)
    assert (found.channel, found.bound_low, found.bound_high) == (2, -1.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-0.495, 0.495), abs=0.01)


def test_gaps_are_told_in_words():
    report = GapReport(
        measure="max_dev",
        channels=("angle", "torque"),
        ranges=(DoubtfulRange(channel=0, low=2.0, high=None, share=0.012, doubt=3.21, error=2.4),),
        unlogged=(UnloggedAction(channel=1, low=-0.5, high=0.5, bound_low=-1.0, bound_high=1.0),),
    )
    first, second = report.next_to_log()
    assert first == (
        "Log more with angle above 2: 1.2 % of the rows, where the model is 3.2 times as unsure as usual, "
        "held-out errors are 2.4 times as large."
    )
    assert second.startswith("Log torque beyond -0.5 to 0.5, if the machine permits: it may be -1 to 1")
    assert [range_words(*ends) for ends in ((None, 1.0), (1.0, 2.0), (None, None))] == [
        "below 1",
        "between 1 and 2",
        "anywhere",
    ]
