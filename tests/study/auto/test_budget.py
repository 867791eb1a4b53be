"""Time is shared out to the last second that can be used."""

import pytest

from mbrl.study.auto.budget import share_out, time_training
from mbrl.study.auto.config import load_auto
from tests.run.toy import TINY_DYNAMICS, make_dataset, write_dataset

COST = {"a": 1.0, "b": 2.0, "c": 10.0}
EQUAL = dict.fromkeys(COST, 1.0)
MANY = dict.fromkeys(COST, 10**6)


def test_parts_of_time_go_by_weight():
    assert share_out(600.0, COST, weights=EQUAL, most=MANY, least=1) == {"a": 200, "b": 100, "c": 20}
    weighted = share_out(600.0, COST, weights={"a": 1.0, "b": 1.0, "c": 4.0}, most=MANY, least=1)
    assert weighted == {"a": 100, "b": 50, "c": 40}


def test_what_one_cannot_use_goes_to_the_others():
    found = share_out(600.0, COST, weights=EQUAL, most={**MANY, "a": 100}, least=1)
    assert found == {"a": 100, "b": 120, "c": 25}  # 500 seconds are left for two
    enough = share_out(1e9, COST, weights=EQUAL, most={"a": 7, "b": 8, "c": 9}, least=5)
    assert enough == {"a": 7, "b": 8, "c": 9}


def test_who_cannot_make_enough_updates_is_left_out_and_the_others_have_its_time():
    assert share_out(600.0, COST, weights=EQUAL, most=MANY, least=50) == {"a": 300, "b": 150}
    assert share_out(60.0, COST, weights=EQUAL, most=MANY, least=50) == {"a": 60}
    assert share_out(10.0, COST, weights=EQUAL, most=MANY, least=50) == {}
    assert share_out(-1.0, COST, weights=EQUAL, most=MANY, least=50) == {}
    # One that asks for few updates by itself is not left out for that.
    assert share_out(600.0, COST, weights=EQUAL, most={**MANY, "c": 10}, least=50)["c"] == 10


def test_updates_are_rounded_down_to_what_a_clock_knows():
    assert share_out(12_345.0, {"a": 1.0}, weights={"a": 1.0}, most={"a": 10**6}, least=1) == {"a": 12_000}


def test_an_update_is_timed_with_its_share_of_roll_outs(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mbrl.study.auto.budget.PROBE_SECONDS", 0.05)
    source = load_auto(overrides=["algorithms.bc.learner.hidden=[8]", f"dynamics={TINY_DYNAMICS}"])
    log = write_dataset(tmp_path)
    resolved = source.study(str(log)).resolve("bc", seed=0, dataset=str(log))
    seconds = time_training(resolved, make_dataset(), None)
    assert 0 < seconds < 0.5
