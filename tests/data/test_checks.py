import dataclasses

import numpy as np
import pytest

from mbrl.data.checks import all_problems, first_problem
from tests.data.logs import SPEC, make_raw


def with_value(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    copy = array.copy()
    copy[place] = value
    return copy


RAW = make_raw()
BAD = [
    ("observations", with_value(RAW.observations, (2, 1), np.nan), 2, "nan"),
    ("observations", with_value(RAW.observations, (4, 0), 1e300), 4, "not finite in float32"),
    ("observations", RAW.observations[:-1], 4, "4 observations for 4 actions"),
    ("observations", RAW.observations[:2], 2, "2 rows"),
    ("observations", RAW.observations[:, :1], None, "1 dimensions"),
    ("observations", RAW.observations[:, :, None], None, "3 axes"),
    ("observations", RAW.observations.astype(object), None, "dtype object"),
    ("observations", np.full((5, 2), "x"), None, "not numeric"),
    ("actions", with_value(RAW.actions, (3, 0), np.inf), 3, "inf"),
    ("actions", with_value(RAW.actions, (1, 0), 1.01), 1, "beyond"),
    ("actions", np.zeros((4, 2)), None, "2 dimensions"),
    ("actions", RAW.actions[:3], 3, "3 rows"),
    ("rewards", with_value(RAW.rewards, (0,), -np.inf), 0, "inf"),
    ("rewards", np.zeros(0), None, "no steps"),
    ("rewards", np.array(1.0), None, "no steps"),
    ("terminations", np.array([0, 1, 0, 0]), 1, "goes on after a flagged step"),
    ("truncations", np.array([1, 0, 0, 1]), 0, "goes on after a flagged step"),
    ("terminations", np.array([0, 0, 0, 2]), 3, "neither 0 nor 1"),
    ("truncations", np.array([False] * 3), 3, "3 rows"),
    ("behaviour_log_prob", np.array([0.0, np.nan, 0.0, 0.0]), 1, "nan"),
    ("timestamps", np.array([0.0, 1.0, 1.0, 2.0, 3.0]), 2, "time goes from"),
    ("timestamps", np.array([0.0, 1.0, np.nan, 2.0, 3.0]), 2, "time goes from"),
]


@pytest.mark.parametrize(("field", "values", "row", "words"), BAD)
def test_problem_names_its_place(field: str, values: np.ndarray, row: int | None, words: str):
    bad = dataclasses.replace(RAW, **{field: values})
    problem = first_problem(bad, SPEC, file="log.hdf5")
    assert problem is not None
    assert (problem.file, problem.episode, problem.field, problem.row) == (
        "log.hdf5",
        "episode_7",
        field,
        row,
    )
    assert words in problem.problem
    assert problem.remedy
    assert all(part in str(problem) for part in ("log.hdf5", "episode_7", field, "Remedy"))


def test_sound_episode_has_no_problem():
    sound = dataclasses.replace(RAW, timestamps=np.arange(5.0), behaviour_log_prob=np.zeros(4))
    assert all_problems(sound, SPEC) == []


def test_overlapping_flags():
    both = dataclasses.replace(RAW, terminations=RAW.truncations)
    problem = first_problem(both, SPEC)
    assert problem is not None
    assert problem.row == 3
    assert "overlap=terminated" in str(problem)


def test_rounding_at_a_bound_is_not_beyond_it():
    """The tolerance is 1e-4 of the range of each dimension."""
    inside = dataclasses.replace(RAW, actions=with_value(RAW.actions, (0, 0), 1.0 + 1.9e-4))
    outside = dataclasses.replace(RAW, actions=with_value(RAW.actions, (0, 0), 1.0 + 2.1e-4))
    assert first_problem(inside, SPEC) is None
    assert first_problem(outside, SPEC) is not None


def test_bounds_hold_per_dimension():
    spec = dataclasses.replace(SPEC, act_dim=2, act_low=(-1.0, -5.0), act_high=(1.0, 5.0))
    raw = dataclasses.replace(RAW, actions=np.tile([0.5, 4.0], (4, 1)))
    assert first_problem(raw, spec) is None
    swapped = dataclasses.replace(RAW, actions=np.tile([4.0, 0.5], (4, 1)))
    problem = first_problem(swapped, spec)
    assert problem is not None
    assert "dimension 0" in problem.problem


def test_all_problems_are_listed():
    bad = dataclasses.replace(
        RAW,
        observations=with_value(RAW.observations, (1, 1), np.nan),
        rewards=with_value(RAW.rewards, (2,), np.nan),
        terminations=np.array([True, False, False, False]),
    )
    fields = [problem.field for problem in all_problems(bad, SPEC)]
    assert fields == ["observations", "rewards", "terminations"]
