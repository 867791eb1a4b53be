"""Verdicts under other thresholds: of a report that one threshold decides, and counted by hand."""

import dataclasses
import math
from typing import Any

import pytest

from mbrl.report.kit.table import TERMINAL_WIDTH, to_text
from mbrl.report.ope_bench.rules import RULES, SHIPPED, rule_table, verdicts_by_rule
from mbrl.report.ope_bench.scores import (
    BenchLog,
    JudgedPolicy,
    OPEBench,
    bench_json,
    bench_tables,
    verdict_table,
    wrong_go_share,
)


def report(*, support: float) -> dict[str, Any]:
    """Only fitted values can speak, and they lie above the behaviour."""
    value = {
        "name": "fqe", "family": "value", "point": 5.0, "se": 1.0, "ci95": [3.0, 7.0],
        "n_eff": 50.0, "flags": [], "valid": True, "why_not": None,
    }  # fmt: skip
    baseline = {"policy": "behaviour", "value": 2.0, "paired": {}}
    return {
        "estimates": [value],
        "diagnostics": {"fqe_drift": 0.01, "support_share": support},
        "baseline": baseline,
    }


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
    found = verdicts_by_rule(report(support=support))
    assert set(found) == set(RULES)
    assert found["most_support_share 0.05"] == strict
    assert found[SHIPPED] == shipped
    assert found["most_support_share 0.2"] == loose


def policy(truth: float, shipped: str, strict: str) -> JudgedPolicy:
    by_rule = {SHIPPED: shipped, "most_support_share 0.05": strict}
    return JudgedPolicy(f"p{truth}", truth, 0.1, {}, shipped, by_rule)


def bench() -> OPEBench:
    policies = (
        policy(0.0, "go_with_guard", "cannot_tell"),
        policy(1.0, "no_go", "no_go"),
        policy(2.0, "go", "go"),
        policy(3.0, "no_go", "cannot_tell"),
        policy(4.0, "go_with_guard", "cannot_tell"),
        policy(5.0, "cannot_tell", "cannot_tell"),
    )
    log = BenchLog("toy", "toy.log", "the estimand", 1.5, policies, planned=6)
    return OPEBench("toy", (log,), {}, 1.0, {})


def test_shares_counted_by_hand() -> None:
    table = next(table for table in bench_tables(bench()) if "threshold" in table.caption)
    rows = {str(row[0]): row for row in table.rows}
    # of the four better ones one got GO, one a guard, one NO-GO; of the two worse ones one a guard, one NO-GO
    assert rows[SHIPPED][1:] == (
        "25.0 %", "0.0 % (<= 65.8)", "50.0 %", "50.0 % (<= 90.5)", "50.0 %", "25.0 % (<= 69.9)",
    )  # fmt: skip
    strict = rows["most_support_share 0.05"]
    assert (strict[1], strict[3], strict[4][:5], strict[6][:5]) == ("25.0 %", "25.0 %", "0.0 %", "0.0 %")
    assert rows["least_ess 10.0"][1:] == ("-",) * 6  # nobody was judged by it
    assert max(map(len, to_text([table]).splitlines())) <= TERMINAL_WIDTH
    assert bench_json(bench())["logs"][0]["policies"][0]["by_rule"][SHIPPED] == "go_with_guard"


def test_an_unknown_behaviour_leaves_nothing_to_be_better_than() -> None:
    log = dataclasses.replace(bench().logs[0], baseline=math.nan)
    unknown = dataclasses.replace(bench(), logs=(log,))
    assert (
        rule_table([(p.by_rule, is_better) for p, is_better in unknown.compared()]).rows[0][1:] == ("-",) * 6
    )
    assert [row[1] for row in verdict_table(unknown).rows] == [0, 0]
    assert math.isnan(wrong_go_share(unknown))
