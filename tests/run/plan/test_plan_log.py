"""What plans cost, added up by hand."""

import dataclasses
import math

import pytest
import torch

from mbrl.planning.base import Budget, PlanResult, PlanStats
from mbrl.run.plan.planning import PlanLog


def result(rows: int, *, milliseconds: float, uncertainty: float, sims: int, falls_back: bool) -> PlanResult:
    zero, flags = torch.zeros(rows), torch.full((rows,), falls_back)
    stats = PlanStats(sims, 1, 10 * rows, 5, milliseconds, False, flags, 1, 3, 0)
    table = torch.zeros(rows, 1, dtype=torch.int64)
    made = PlanResult(
        zero[:, None], zero[:, None, None], table[:, 0], zero[:, None, None], torch.ones(rows, 1), table,
        table, *[zero] * 7, stats, *[torch.zeros(rows, 3)] * 2,
    )  # fmt: skip
    return dataclasses.replace(made, uncertainty=torch.full((rows,), uncertainty))


def test_the_summary_counts_states_and_measures_calls() -> None:
    log = PlanLog()
    log.note(result(9, milliseconds=99.0, uncertainty=9.0, sims=1, falls_back=True))
    log.clear()
    log.note(result(1, milliseconds=10.0, uncertainty=2.0, sims=30, falls_back=False))
    log.note(result(3, milliseconds=30.0, uncertainty=4.0, sims=10, falls_back=False))
    log.note(result(1, milliseconds=20.0, uncertainty=math.nan, sims=0, falls_back=True))
    found = log.summary(Budget(milliseconds=25.0))
    assert (found["calls"], found["plans"], found["deadline_misses"]) == (3, 5, 1)
    assert found["plans_per_second"] == pytest.approx(5 / 0.060)
    assert found["sims_per_second"] == pytest.approx(60 / 0.060)
    assert found["milliseconds"]["p50"] == 20.0
    assert found["fallback_share"] == pytest.approx(0.2)
    assert found["uncertainty"] == pytest.approx((2 + 3 * 4) / 4)  # an unknown one does not count
    assert found["sims_per_plan"] == 12.0
    assert found["bad_rows"] == 3


def test_nothing_is_said_of_nothing() -> None:
    log = PlanLog()
    assert log.summary(Budget(sims=1)) == {}
    log.note(result(1, milliseconds=math.nan, uncertainty=math.nan, sims=1, falls_back=True))
    found = log.summary(Budget(sims=1))
    assert found["plans_per_second"] is found["uncertainty"] is found["deadline_misses"] is None
