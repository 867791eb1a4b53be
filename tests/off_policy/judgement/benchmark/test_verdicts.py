"""Verdicts under other thresholds: of a report that one threshold decides, and counted by hand."""

import dataclasses
import math

import pytest

from mbrl.off_policy.judgement.benchmark.answers import BenchLog, JudgedPolicy, OPEBench
from mbrl.off_policy.judgement.benchmark.verdicts import (
    RULES,
    SHIPPED,
    verdict_share,
    verdicts_by_rule,
    wrong_go_share,
)
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.ops.shares import wilson_interval
from tests.off_policy.reports import report


def only_values(support: float) -> Measured:
    """Only fitted values can speak, and they lie above the behaviour."""
    found = report(None, (3.0, 7.0), None, baseline=2.0, drift=0.01, support=support)
    return found.model_copy(update={"backtest": None})


@pytest.mark.parametrize(
    ("support", "strict", "shipped", "loose"),
    [
        (0.01, "go_with_guard", "go_with_guard", "go_with_guard"),
        (0.07, "cannot_tell", "go_with_guard", "go_with_guard"),
        (0.15, "cannot_tell", "cannot_tell", "go_with_guard"),
        (0.30, "cannot_tell", "cannot_tell", "cannot_tell"),
    ],
)
def test_a_report_is_judged_under_every_rule(support: float, strict: str, shipped: str, loose: str) -> None:
    found = verdicts_by_rule(only_values(support))
    assert set(found) == set(RULES)
    assert found["most_support_share 0.05"] == strict
    assert found[SHIPPED] == shipped
    assert found["most_support_share 0.2"] == loose


def policy(truth: float, verdict: str) -> JudgedPolicy:
    return JudgedPolicy(f"p{truth}", truth, 0.1, {}, verdict)


def bench() -> OPEBench:
    policies = (policy(0.0, "go_with_guard"), policy(1.0, "no_go"), policy(2.0, "go"), policy(3.0, "no_go"))
    log = BenchLog("toy", "toy.log", "the estimand", 1.5, policies, planned=4)
    return OPEBench("toy", (log,), {}, 1.0, {})


def test_wrong_go_is_a_share_of_the_policies_that_are_truly_worse() -> None:
    assert wrong_go_share(bench()) == 0.0
    assert wrong_go_share(bench(), ("go", "go_with_guard")) == 0.5
    better = dataclasses.replace(bench().logs[0], baseline=-1.0)
    assert math.isnan(wrong_go_share(dataclasses.replace(bench(), logs=(better,))))


def test_an_unknown_behaviour_leaves_nothing_to_be_better_than() -> None:
    log = dataclasses.replace(bench().logs[0], baseline=math.nan)
    unknown = dataclasses.replace(bench(), logs=(log,))
    assert list(unknown.cases()) == []
    assert math.isnan(wrong_go_share(unknown))


def test_judgements_of_a_task_may_stand_and_fall_together() -> None:
    judged = [("go", "a"), ("no_go", "a"), ("go_with_guard", "b"), ("no_go", "b")]
    assert verdict_share(judged, ("go", "go_with_guard")) == (0.5, *wilson_interval(0.5, 2.0))
    twice = verdict_share([*judged, *judged], ("go", "go_with_guard"))
    assert twice == verdict_share(judged, ("go", "go_with_guard"))  # no surer for a second log of each task
    uneven = [("no_go", "a")] * 3 + [("no_go", "b")]
    assert verdict_share(uneven, ("go",)) == (0.0, *wilson_interval(0.0, 4**2 / (3**2 + 1**2)))
    assert verdict_share([], ("go",)) is None
