import dataclasses
import math

from mbrl.off_policy.judgement.benchmark.answers import Answer, BenchLog, JudgedPolicy, OPEBench
from mbrl.off_policy.judgement.benchmark.verdicts import SHIPPED
from mbrl.report.kit.table import TERMINAL_WIDTH, to_text
from mbrl.report.ope_bench.plots import estimates_against_truth
from mbrl.report.ope_bench.tables import bench_tables, threshold_table, total_table, verdict_table
from tests.off_policy.benches import NOTHING, bench


def test_tables_fit_the_terminal_and_json_is_strict():
    failed = dataclasses.replace(bench(), failures={"estimate.toy": "out of memory"})
    renamed = {"estimator_01": failed.logs[0].policies[0].answers["good"]}
    policies = (
        dataclasses.replace(failed.logs[0].policies[0], answers=renamed),
        *failed.logs[0].policies[1:],
    )
    failed = dataclasses.replace(failed, logs=(dataclasses.replace(failed.logs[0], policies=policies),))
    text = to_text(bench_tables(failed))
    assert "estimator_01" in text  # not folded
    assert max(map(len, text.splitlines())) <= TERMINAL_WIDTH
    assert "out of memory" in text
    assert not failed.is_complete
    assert bench().is_complete
    row = total_table(bench()).rows[0]
    assert row[:5] == ("good", "100 %", "100 %", "0.80", "-")
    assert row[7:9] == ("75 %", "75 %")


def test_the_figure_has_a_panel_for_each_estimator_that_answered():
    found = bench()
    figure = estimates_against_truth(found, found.logs[0])
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["good: 0.80"]
    far = dataclasses.replace(found.logs[0].policies[0], answers={"good": Answer(99.0, 98.0, 100.0, True)})
    log = dataclasses.replace(found.logs[0], policies=(far, *found.logs[0].policies[1:]))
    figure = estimates_against_truth(found, log)
    assert figure is not None
    assert figure.axes[0].get_title().endswith("1 outside")
    silent = dataclasses.replace(log, policies=(dataclasses.replace(far, answers={"silent": NOTHING}),))
    assert estimates_against_truth(found, silent) is None


def policy(truth: float, shipped: str, strict: str) -> JudgedPolicy:
    by_rule = {SHIPPED: shipped, "most_support_share 0.05": strict}
    return JudgedPolicy(f"p{truth}", truth, 0.1, {}, shipped, by_rule)


def judged() -> OPEBench:
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
    table = next(table for table in bench_tables(judged()) if "threshold" in table.caption)
    rows = {str(row[0]): row for row in table.rows}
    # of four better ones one got GO, one a guard, one NO-GO; of two worse ones one a guard, one NO-GO;
    # the upper ends are Wilson's of a single case, z = 1.96: z^2 / (1 + z^2) = 79.3 % of none, and so on
    assert rows[SHIPPED][1:] == (
        "25.0 %", "0.0 % (<= 79.3)", "50.0 %", "50.0 % (<= 94.5)", "50.0 %", "25.0 % (<= 88.2)",
    )  # fmt: skip
    strict = rows["most_support_share 0.05"]
    assert (strict[1], strict[3], strict[4][:5], strict[6][:5]) == ("25.0 %", "25.0 %", "0.0 %", "0.0 %")
    assert rows["least_ess 10.0"][1:] == ("-",) * 6  # nobody was judged by it
    assert max(map(len, to_text([table]).splitlines())) <= TERMINAL_WIDTH


def test_an_unknown_behaviour_leaves_nothing_to_be_better_than() -> None:
    log = dataclasses.replace(judged().logs[0], baseline=math.nan)
    unknown = dataclasses.replace(judged(), logs=(log,))
    assert threshold_table(list(unknown.cases())).rows[0][1:] == ("-",) * 6
    assert [row[1] for row in verdict_table(unknown).rows] == [0, 0]
