import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.flags import advise_overlap, first_odd_flag, flag_error, read_flags
from mbrl.data.info import DatasetInfo
from mbrl.data.inspection.report import inspect_log
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawEpisode, RawLog
from tests.data.logs import make_raw

REPORT = functools.partial(DataError, file="log")


@pytest.mark.parametrize(
    "values",
    [np.array([True, False]), np.array([0, 1], np.uint8), np.array([0.0, 1.0]), np.array([[0], [1]])],
)
def test_flags_are_booleans_or_zeros_and_ones(values: np.ndarray):
    assert first_odd_flag(values) is None
    assert read_flags(values, REPORT, field="x", count=2).tolist() in ([True, False], [False, True])


@pytest.mark.parametrize(
    ("values", "row", "shown"),
    [
        (np.array(["False", "True"]), 0, "'False' of dtype <U5"),
        (np.array([b"0", b"1"]), 0, "of dtype |S1"),
        (np.array([0, np.nan]), 1, "'nan'"),
        (np.array([0, 1, 0.3]), 2, "'0.3'"),
        (np.array([0, 2]), 1, "'2'"),
        (np.array([-1, 0]), 0, "'-1'"),
        (np.array([None, True]), 0, "'None' of dtype object"),
        (np.array([1 + 0j]), 0, "of dtype complex128"),
    ],
)
def test_anything_else_is_told_with_its_row_and_value(values: np.ndarray, row: int, shown: str):
    error = flag_error(values, REPORT, field="terminals")
    assert error is not None
    assert (error.file, error.field, error.row) == ("log", "terminals", row)
    assert shown in error.problem
    with pytest.raises(DataError, match="neither 0 nor 1"):
        read_flags(values, REPORT, field="terminals", count=len(values))


def test_a_flag_for_each_row():
    for values in (np.zeros(3), np.zeros((2, 2)), np.array(0.0)):
        with pytest.raises(DataError, match="2 flags are needed"):
            read_flags(values, REPORT, field="x", count=2)


def ended(steps: int, *, terminated: float, truncated: float) -> RawEpisode:
    ends = np.arange(steps) == steps - 1
    return dataclasses.replace(
        make_raw(steps),
        terminations=np.where(ends, terminated, 0.0),
        truncations=np.where(ends, truncated, 0.0),
    )


def log(*raws: RawEpisode, limit: int | None = None) -> RawLog:
    info = DatasetInfo(name="log", max_episode_steps=limit)
    return RawLog(file=Path("log"), episodes=raws, info=info, act_low=(-1.0,), act_high=(1.0,))


def load(found: RawLog, **options: object) -> Dataset:
    return assemble(found, LoadOptions.model_validate(options))


BOTH = {"terminated": 1.0, "truncated": 1.0}


def test_a_common_length_of_steps_with_both_flags_is_a_time_limit():
    failures = [ended(steps, terminated=1.0, truncated=0.0) for steps in (3, 5)]
    found = log(*[ended(9, **BOTH)] * 3, *failures)
    with pytest.raises(DataError, match="all 3 episodes with both flags end at step 9") as caught:
        load(found)
    assert "overlap=truncated fits" in str(caught.value)
    (error,) = (f for f in inspect_log(log(ended(9, **BOTH), ended(9, **BOTH), *failures)).findings[:1])
    assert "overlap=truncated fits" in error.remedy
    data = load(found, overlap="truncated")
    assert [(e.terminated, e.truncated) for e in data.episodes] == [(False, True)] * 3 + [(True, False)] * 2
    assert data.dropped == {"overlapping flags: truncation wins": 3}


def test_many_lengths_are_failures():
    found = log(*[ended(steps, **BOTH) for steps in (4, 7, 9)])
    with pytest.raises(DataError, match="end after 4 to 9 steps, as failures do") as caught:
        load(found)
    assert "overlap=terminated fits" in str(caught.value)
    assert all(episode.terminated for episode in load(found, overlap="terminated").episodes)


def test_a_single_episode_is_compared_with_the_limit_that_the_log_states():
    assert "overlap=truncated fits" in advise_overlap([ended(9, **BOTH)], 9)
    assert advise_overlap([ended(9, **BOTH)], None) == ""
    with pytest.raises(DataError, match=r"overlap=terminated if the task ended.*overlap=truncated if a time"):
        load(log(ended(9, **BOTH)))


def test_overlap_is_settled_before_a_missing_successor_is():
    """A truncated last step without a successor is dropped; a terminated one keeps its reward."""
    raw = ended(4, **BOTH)
    short = dataclasses.replace(raw, observations=raw.observations[:-1], final_observation="absent")
    cut = load(log(short, make_raw()), overlap="truncated").episodes[0]
    assert (len(cut), cut.truncated, cut.is_final_observation_known) == (3, True, True)
    kept = load(log(short, make_raw()), overlap="terminated").episodes[0]
    assert (len(kept), kept.terminated, kept.is_final_observation_known) == (4, True, False)


@pytest.mark.parametrize("value", [0.3, np.nan, 2.0])
@pytest.mark.parametrize("overlap", ["error", "terminated", "truncated"])
def test_no_repair_turns_what_is_no_flag_into_one(value: float, overlap: str):
    raw = ended(4, terminated=value, truncated=1.0)
    absent = dataclasses.replace(raw, observations=raw.observations[:-1], final_observation="absent")
    for found in (log(raw), log(absent)):
        with pytest.raises(DataError, match="neither 0 nor 1") as caught:
            load(found, overlap=overlap)
        assert (caught.value.field, caught.value.row) == ("terminations", 3)
