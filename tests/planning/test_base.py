"""What planners refuse, by the row that is wrong."""

import dataclasses

import pytest
import torch

from mbrl.planning.base import Budget, Hints, check_call, leave_inference
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.noise import RowNoise
from tests.planning.tasks import DOUBLE, box_problem, states, table_problem

BOX = box_problem()  # three observed dimensions, two of actions
TABLE = table_problem(
    torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=DOUBLE), values=torch.zeros(2, dtype=DOUBLE)
)
OBS = torch.zeros(4, 3, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "needs `sims`, `milliseconds` or both"),
        ({"sims": 0}, "0 sims"),
        ({"milliseconds": 0.0}, "more than 0"),
        ({"milliseconds": float("nan")}, "more than 0"),
    ],
)
def test_a_budget_has_a_limit_above_0(limits: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Budget(**limits)


def _nan_in(row: int, *shape: int) -> torch.Tensor:
    values = torch.zeros(*shape, dtype=DOUBLE)
    values[row].fill_(torch.nan)
    return values


@pytest.mark.parametrize(
    ("obs", "hints", "message"),
    [
        (torch.zeros(4, 2, dtype=DOUBLE), Hints(), r"\[b, 3\], not \[4, 2\]"),
        (_nan_in(2, 4, 3), Hints(), "observation in row 2 is not finite"),
        (OBS, Hints(candidates=torch.zeros(4, 0, 2)), "with k > 0"),
        (OBS, Hints(candidates=torch.zeros(4, 1, 3)), r"candidates are \[4, k, 2\]"),
        (OBS, Hints(candidates=_nan_in(3, 4, 1, 2)), "candidates in row 3 are not finite"),
        (OBS, Hints(warm=_nan_in(1, 4, 2, 2)), "warm in row 1 are not finite"),
        (OBS, Hints(elites=torch.zeros(4, 1, 2, 2)), "come with the warm plan"),
        (OBS, Hints(warm=torch.zeros(3, 2, 2)), r"warm are \[4, l, 2\], not \[3, 2, 2\]"),
        (OBS, Hints(mask=torch.ones(4, 2, dtype=torch.bool)), "masks are for discrete actions"),
    ],
)
def test_calls_that_fit_no_plan_are_refused(obs: torch.Tensor, hints: Hints, message: str):
    with pytest.raises(ValueError, match=message):
        check_call(obs, RowNoise(torch.arange(4)), hints, problem=BOX)


def test_masks_leave_every_row_an_action():
    mask = torch.tensor([[True, False, False], [False, False, False]])
    with pytest.raises(ValueError, match="row 1 leaves no valid action"):
        check_call(states(0, 1), RowNoise(torch.arange(2)), Hints(mask=mask), problem=TABLE)
    with pytest.raises(ValueError, match=r"\[2, 3\], not \[1, 3\]"):
        check_call(states(0, 1), RowNoise(torch.arange(2)), Hints(mask=mask[:1]), problem=TABLE)


def test_rows_that_have_no_warm_plan_may_hold_anything():
    warm = _nan_in(1, 4, 2, 2)
    hints = Hints(warm=warm, has_warm=torch.tensor([True, False, True, True]))
    check_call(OBS, RowNoise(torch.arange(4)), hints, problem=BOX)


def test_every_state_needs_its_own_stream():
    with pytest.raises(ValueError, match="4 states need as many streams of noise, not 3"):
        check_call(OBS, RowNoise(torch.arange(3)), Hints(), problem=BOX)


def test_results_leave_inference_mode_as_they_were():
    with torch.inference_mode():
        inside = act_by_policy(BOX, OBS + 0.2, milliseconds=1.0)
    outside = leave_inference(inside)
    weight = torch.ones(4, dtype=DOUBLE, requires_grad=True)
    (weight * outside.value).sum().backward()
    assert torch.equal(weight.grad, inside.value)
    for field in dataclasses.fields(outside):
        value = getattr(outside, field.name)
        if isinstance(value, torch.Tensor):
            assert not value.is_inference()
            assert torch.equal(value.nan_to_num(), getattr(inside, field.name).nan_to_num())
    assert not outside.stats.is_fallback.is_inference()
