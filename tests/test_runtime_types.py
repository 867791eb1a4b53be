"""The check of annotations in tests: a wrong call is found whenever it is new, and what was seen passes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from mbrl.ops.polyak import polyak_update
from tests.runtime_types import CHECKS, check_new_calls, forget, jaxtyped


def halve(values: Float[Tensor, "n"], mode: str = "first") -> Float[Tensor, "m"]:
    return values[: len(values) // 2]


def widen(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    return torch.cat([values, values])


checked = check_new_calls(halve, beartype)


def test_the_package_is_checked_in_this_way() -> None:
    with pytest.raises(TypeCheckError, match="polyak_update"):
        polyak_update("target", "source", polyak_tau=0.5)  # pyright: ignore


@pytest.mark.parametrize("wrong", [torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), np.zeros(4), (1.0,)])
def test_a_wrong_call_after_many_right_ones_is_found(wrong: object) -> None:
    for _ in range(3 * CHECKS):
        assert len(checked(torch.zeros(4))) == 2
    with pytest.raises(TypeCheckError):
        checked(wrong)
    with pytest.raises(TypeCheckError):  # not only once
        checked(wrong)
    with pytest.raises(TypeCheckError, match="mode"):
        checked(torch.zeros(4), mode=1)


def test_what_comes_back_is_checked_for_every_new_shape() -> None:
    function = check_new_calls(widen, beartype)
    for count in range(1, 5):
        with pytest.raises(TypeCheckError, match="return value"):
            function(torch.zeros(count))


def test_only_the_first_calls_of_a_kind_are_checked_and_those_of_every_test() -> None:
    answers = iter([torch.zeros(2)] * CHECKS + ["unchecked", "checked"])

    def answer(count: int) -> Float[Tensor, "2"]:
        return next(answers)

    function = check_new_calls(answer, beartype)
    for _ in range(CHECKS):
        function(1)
    assert function(2) == "unchecked"
    forget()
    with pytest.raises(TypeCheckError):
        function(3)


def test_a_dataclass_is_checked_when_it_is_made() -> None:
    @jaxtyped(typechecker=beartype)
    @dataclass
    class Pair:
        left: Float[Tensor, "n"]
        right: Float[Tensor, "n"]

    for _ in range(2 * CHECKS):
        Pair(torch.zeros(2), torch.zeros(2))
    with pytest.raises(TypeCheckError):
        Pair(torch.zeros(2), torch.zeros(3))
