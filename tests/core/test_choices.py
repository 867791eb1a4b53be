"""Names of choices and the ids that stand for them outside."""

import gymnasium
import numpy as np
import pytest

from mbrl.core.choices import (
    MAX_CHOICES,
    are_ids,
    choice_ids,
    outer_actions,
    product_names,
    space_names,
    stated_names,
)


def test_several_integers_make_one_choice_as_numpy_ravels_them():
    names = product_names((2, 3), (0, 5))
    assert names == ("0,5", "0,6", "0,7", "1,5", "1,6", "1,7")
    assert choice_ids(names).tolist() == [[i, j + 5] for i, j in np.ndindex(2, 3)]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("0", "1", "3"), [[0], [1], [3]]),
        (("-1", "0", "1"), [[-1], [0], [1]]),
        (("left", "right"), [[0], [1]]),
        (("0", "01"), [[0], [1]]),  # 01 is no number as we write it
        (("1", "2,3"), [[0], [1]]),
    ],
)
def test_the_id_of_a_choice_is_its_number_or_its_place(names: tuple[str, ...], ids: list[list[int]]):
    assert choice_ids(names).tolist() == ids


def test_one_hot_actions_leave_as_ids():
    one_hot = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    assert outer_actions(one_hot, ("0", "1", "3")).tolist() == [3, 0, 1]
    assert outer_actions(one_hot, ("0,0", "0,1", "1,0")).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert are_ids(("0", "1"))
    assert not are_ids(("0", "2"))


def test_stated_choices_are_a_count_sizes_or_names():
    assert stated_names(3) == ("0", "1", "2")
    assert stated_names([2, 2]) == ("0,0", "0,1", "1,0", "1,1")
    assert stated_names(["a", "b"]) == ("a", "b")
    assert len(stated_names(MAX_CHOICES)) == MAX_CHOICES


@pytest.mark.parametrize(
    "choices", [0, -1, MAX_CHOICES + 1, [33, 32], [1] * 40, ["a", "a"], [], ["x"] * 2000]
)
def test_choices_that_are_none_are_refused(choices: int | list[int] | list[str]):
    with pytest.raises(ValueError, match=r"choices|choice|sizes"):
        stated_names(choices)


def test_gymnasiums_spaces_are_read():
    spaces = gymnasium.spaces
    assert space_names(spaces.Discrete(3, start=-1)) == ("-1", "0", "1")
    assert space_names(spaces.MultiDiscrete([2, 2])) == ("0,0", "0,1", "1,0", "1,1")
    assert space_names(spaces.MultiBinary(2)) == ("0,0", "0,1", "1,0", "1,1")
    assert len(space_names(spaces.MultiBinary((2, 3)))) == 64
    with pytest.raises(ValueError, match="are the most"):
        space_names(spaces.MultiBinary(11))
