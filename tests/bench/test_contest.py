"""Ratios, shares and tables of known windows; whole benchmarks of a blink."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mbrl.bench.contest import BenchSettings, run_bench
from mbrl.bench.processes import Window
from mbrl.bench.registry import ROWS
from mbrl.bench.results import BenchReport, Contender, RowResult, fastest
from mbrl.bench.rows.dynamics import rollout_flops
from mbrl.bench.statistics import Spread
from mbrl.bench.tables import bench_tables
from mbrl.bench.worker import GEMM
from mbrl.bench.workload import Workload
from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.learners.base import LEARNERS
from mbrl.report.kit.table import to_text

TINY = dataclasses.replace(Workload(), transitions=1000, starts=30, episodes=1)


def _windows(*rates: float) -> tuple[Window, ...]:
    return tuple(Window(round(2 * rate), 2.0, 300_000_000 + k) for k, rate in enumerate(rates))


def _row() -> RowResult:
    ours = Contender("mbrl loop", "1", _windows(100.0, 50.0, 100.0))
    theirs = Contender("d3rlpy fit", "2", _windows(25.0, 12.5, 20.0), against="mbrl loop", target=4.5)
    return RowResult("bc", "updates", 1e8, 0.6, 50.0, (ours, theirs), gemm=(2e10, 1e10, 1e10))


def _report() -> BenchReport:
    settings = {"windows": 3, "seconds": 2.0, "threads": 1}
    peak = {"256": Spread(20.0, 19.0, 21.0), "512": Spread(30.0, 10.0, 31.0)}
    return BenchReport(settings, {"cpus": 2}, peak, (_row(),), ("a note",))


def test_every_learner_has_a_row() -> None:
    assert {ROWS.get(name).learner for name in ROWS.names()} >= set(LEARNERS.names())


def test_peers_are_compared_with_modes_that_exist() -> None:
    for name in ROWS.names():
        row = ROWS.get(name)
        if row.peers:
            assert {peer.against for peer in row.peers} <= set(row.build(TINY))


def test_ratio_and_share_by_hand() -> None:
    row = _row()
    ours, theirs = row.contenders
    assert row.ratio(ours) is None
    assert row.ratio(theirs) == Spread(4.0, 4.0, 5.0)
    # 100 updates of 0.1 GFLOP against 20 GFLOP a second, and so on by round
    assert row.share(ours) == Spread(0.5, 0.5, 1.0)
    assert dataclasses.replace(row, flops=None).share(ours) is None
    assert ours.resident == (300_000_000, 300_000_002)


def test_the_peak_is_the_fastest_size() -> None:
    report = _report()
    assert fastest(report.peak) == "512"
    assert report.to_json()["gemm_peak"]["gflops"]["median"] == 30.0


def test_json_is_plain_and_holds_every_window() -> None:
    value = json.loads(json.dumps(_report().to_json()))
    ours, theirs = value["rows"][0]["contenders"]
    assert ours["rates"] == [100.0, 50.0, 100.0]
    assert (ours["ratio"], theirs["ratio"]["median"], theirs["target"]) == (None, 4.0, 4.5)
    assert value["notes"] == ["a note"]


def test_tables_fit_a_terminal_and_say_which_targets_are_met() -> None:
    text = to_text(bench_tables(_report()))
    assert max(map(len, text.splitlines())) <= 100
    lines = [line.split() for line in text.splitlines()]
    assert ["bc", "updates", "mbrl", "loop", "100", "50", "to", "100", "50", "%", "300"] in lines
    assert [
        "bc",
        "mbrl",
        "loop",
        "/",
        "d3rlpy",
        "fit",
        "4.00",
        "4.00",
        "to",
        "5.00",
        ">=",
        "4.5",
        "no",
    ] in lines
    assert any(line[-3:] == [">=", "0.6", "no"] for line in lines)
    assert [
        "bc",
        "updates",
        "a",
        "second,",
        "mbrl",
        "loop",
        "100",
        "50",
        "to",
        "100",
        ">=",
        "50",
        "yes",
    ] in lines


def test_a_rate_below_its_target_is_not_met() -> None:
    report = _report()
    slow = dataclasses.replace(report, rows=(dataclasses.replace(report.rows[0], rate_target=150.0),))
    line = next(line for line in to_text(bench_tables(slow)).splitlines() if "updates a second," in line)
    assert line.split()[-3:] == [">=", "150", "no"]
    assert slow.to_json()["rows"][0]["rate_target"] == 150.0


def test_a_step_of_the_ratio_estimators_counts_once_for_all_six() -> None:
    (work,) = ROWS.get("ratios").build(TINY).values()
    assert work() == 1_000_000


@pytest.mark.parametrize(
    "name", [pytest.param("ensemble", marks=pytest.mark.slow), "rollouts", "rollouts_penalised", "evaluation"]
)
def test_work_is_counted_in_the_units_of_its_row(name: str) -> None:
    (work,) = ROWS.get(name).build(TINY).values()
    expected = {"ensemble": 100, "evaluation": 1000}.get(name, TINY.starts * TINY.horizon)
    assert [work(), work()] == [expected, expected]


def test_penalised_rollouts_need_all_elites() -> None:
    one, five = rollout_flops(TINY, elites=1), rollout_flops(TINY, elites=5)
    member = 2 * (14 * 200 + 3 * 200 * 200 + 200 * 24)
    assert five - one == 4 * member


def test_unknown_rows_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Unknown benchmark row 'nope'"):
        run_bench(["nope"], BenchSettings(), SilentProgress())


@pytest.mark.slow
def test_a_whole_benchmark_without_other_libraries(tmp_path: Path) -> None:
    python = tmp_path / "python"  # an interpreter that has nothing but itself
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    settings = BenchSettings(windows=2, seconds=0.01, peer_python=str(python), workload=TINY)
    report = run_bench(["bc"], settings, SilentProgress())
    (row,) = report.rows
    assert [contender.name for contender in row.contenders] == ["mbrl loop", "mbrl update"]
    assert [len(contender.windows) for contender in row.contenders] == [2, 2]
    assert len(row.gemm) == 2
    assert any("--peer-python" in note for note in report.notes)
    assert set(report.peak) == {"256", "512", "1024", "2048"}
    assert GEMM not in {row.name for row in report.rows}


@pytest.mark.slow
def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    from tests.cli.test_cli import call, call_json

    out = tmp_path / "results" / "bench.json"
    value: dict[str, Any] = call_json(
        "bench", "--rows", "evaluation", "--windows", 1, "--seconds", 0, "--out", out
    )
    assert value["path"] == str(out)
    assert [row["row"] for row in json.loads(out.read_text())["rows"]] == ["evaluation"]
    names = [contender["name"] for contender in value["rows"][0]["contenders"]]
    assert names == ["mbrl evaluate", "gymnasium loop"]
    assert "mbrl evaluate / gymnasium loop" in out.with_suffix(".md").read_text()
    assert "must end in .json" in call("bench", "--out", tmp_path / "x.txt", status=1).stderr
