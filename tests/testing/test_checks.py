"""What checks are made of."""

import math
import subprocess
import sys

import pytest
import torch

from mbrl.testing.checks import CheckError, expect_all, expect_close, expect_refusal, find_difference


def test_equal_containers_do_not_differ() -> None:
    value = {"a": [1, 2.5, None, math.nan], "b": {"c": torch.arange(3)}, "d": "text"}
    assert find_difference(value, {**value, "a": [1, 2.5, None, math.nan]}) is None


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"a": torch.tensor([1.0, 2.0]), "b": [1]}, r"^\.a differs in 1 of 2 entries$"),
        (
            {"a": torch.tensor([1.0, 3.0]).double(), "b": [1]},
            r"^\.a is \[2\] torch.float32 and \[2\] torch.fl",
        ),
        ({"a": torch.tensor([1.0, 3.0]), "b": [2]}, r"^\.b\[0\] is 1 and 2$"),
        ({"a": torch.tensor([1.0, 3.0]), "b": [1, 2]}, r"^\.b has 1 and 2 items$"),
        ({"a": torch.tensor([1.0, 3.0])}, r"^the value has the keys a, b and a$"),
        (3, "^the value is "),
    ],
)
def test_the_first_difference_is_named_by_its_place(second: object, words: str) -> None:
    first = {"a": torch.tensor([1.0, 3.0]), "b": [1]}
    found = find_difference(first, second)
    assert found is not None
    assert __import__("re").search(words, found), found


def test_expectations_say_what_was_expected_and_what_came() -> None:
    with pytest.raises(CheckError, match=r"^expected positive rows; came others in the rows \[1\]$"):
        expect_all(torch.tensor([True, False]), "positive rows")
    with pytest.raises(CheckError, match=r"^expected the same; came a difference of 2$"):
        expect_close(torch.tensor([1.0]), torch.tensor([3.0]), "the same", rtol=0.1)
    expect_close(torch.tensor([math.nan]), torch.tensor([math.nan]), "the same", rtol=0.0)
    with pytest.raises(CheckError, match="came a result"):
        expect_refusal(lambda: 1, "words")
    expect_refusal(lambda: int("no number"), "no number")


def test_the_checks_need_no_test_framework() -> None:
    program = "import sys, mbrl.testing; print(sorted({'pytest', '_pytest', 'hypothesis'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
