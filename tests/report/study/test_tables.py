import dataclasses

import pytest

from mbrl.report.kit.table import TERMINAL_WIDTH, to_text
from mbrl.report.study.fact_tables import alarm_messages, cost_table, data_table, model_table, shift_table
from mbrl.report.study.scores import improvements
from mbrl.report.study.tables import (
    failure_tables,
    improvement_table,
    score_table,
    seed_table,
    study_table,
)
from tests.report.studies import full_study, run, small_study


@pytest.fixture(scope="module")
def study(doctor_report):
    return full_study(doctor_report, points=20)


def rows_of(table):
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_the_terminal_shows_scores_recommendations_and_failures(study):
    text = to_text(study_table(study))
    assert max(map(len, text.splitlines())) <= TERMINAL_WIDTH
    for piece in (
        "Normalised score on random",
        "Episode return on mixed",
        "Normalised score over random, expert",
        "Recommendations",
        "2 runs of 105 without a score",
        "The critic diverged at step 41,000",
        "4 of 5",
    ):
        assert piece in text
    score_lines = [line for line in text.splitlines() if line.startswith("  mobile") and "5 of 5" in line]
    assert len(score_lines) == 3  # one line each: no row is folded


def test_times_and_updates_stand_beside_every_score(doctor_report):
    study = small_study(doctor_report, {"bc": [1.0, 3.0], "mopo": [5.0, 7.0]}, seconds={"mopo": 40.0})
    rows = rows_of(score_table(study, study.datasets[0]))
    assert rows["mopo"]["train s"] == "40"
    assert rows["mopo"]["fit s"] == "80"
    assert rows["mopo"]["updates"] == "1,000"
    assert rows["bc"]["fit s"] == "-"
    assert rows["mopo"]["worst"] == "5"
    assert rows["mopo"]["mean"] == "6 [5, 7]"
    assert rows["logged mean"]["mean"].startswith("20 [")
    short = rows_of(score_table(study, study.datasets[0], is_short=True))
    assert short["mopo"]["seconds"] == "120"


def test_an_algorithm_without_a_finished_seed_keeps_its_row(doctor_report):
    crashed = run("d", "iql", 0, status="failed", cause="out of memory")
    study = small_study(doctor_report, {"bc": [1.0, 3.0], "iql": [crashed, run("d", "iql", 1)]})
    row = rows_of(score_table(study, study.datasets[0]))["iql"]
    assert (row["IQM"], row["seeds"]) == ("no finished seed", "0 of 2")
    assert list(seed_table(study, study.datasets[0]).rows[1]) == ["iql", "failed", "missing"]
    (table,) = failure_tables(study)
    assert [row[3] for row in table.rows] == ["failed: out of memory", "not run yet"]
    to_text(study_table(study))


def test_a_finished_run_without_a_finite_score_is_not_dropped_in_silence(doctor_report):
    broken = run("d", "bc", 0, 1.0, scores=(float("nan"),))
    study = small_study(doctor_report, {"bc": [broken, 2.0]})
    (table,) = failure_tables(study)
    assert table.rows[0][3] == "finished, but no finite score"
    assert rows_of(score_table(study, study.datasets[0]))["bc"]["seeds"] == "1 of 2"


def test_nothing_failed_gives_no_table(doctor_report):
    assert failure_tables(small_study(doctor_report, {"bc": [1.0, 2.0]})) == []


def test_the_matrix_of_pairs_sums_to_one_across_the_diagonal(study):
    table = improvement_table(study, improvements(study))
    for i, row in enumerate(table.rows):
        assert row[i + 1] == "-"
        for j, other in enumerate(table.rows):
            if i != j:
                assert float(row[j + 1]) + float(other[i + 1]) == pytest.approx(1.0, abs=0.011)


def test_shift_columns_are_means_over_seeds(doctor_report):
    study = small_study(doctor_report, {"bc": [1.0, 2.0, 3.0], "iql": [1.0, 2.0, 3.0]})
    shifts = [
        {"knn_share": 0.25, "value_gap": 3.0, "alarms": ["Far by 0.25."], "step": 100, "text": "no number"},
        {"knn_share": 0.75, "value_gap": None, "alarms": ["Far by 0.75."]},
        None,
    ]
    runs = [
        dataclasses.replace(item, shift=shifts[item.seed], alarms=("Slow.",) if item.seed == 2 else ())
        if item.algorithm == "bc"
        else item
        for item in study.runs
    ]
    study = dataclasses.replace(study, runs=tuple(runs))
    table = shift_table(study, study.datasets[0])
    assert table.columns == ("algorithm", "far from data", "value gap", "runs with alarms")
    assert [list(row) for row in table.rows] == [
        ["bc", "50.0 %", "3", "3 of 3"],
        ["iql", "-", "-", "0 of 3"],
    ]
    texts = [message.text for message in alarm_messages(study, study.datasets[0])]
    assert texts == ["d, bc (2 seeds), for example: Far by 0.25.", "d, bc (1 seed): Slow."]


def test_without_diagnostics_there_is_no_table_of_shift(doctor_report):
    study = small_study(doctor_report, {"bc": [1.0, 2.0]})
    assert shift_table(study, study.datasets[0]) is None


def test_models_are_averaged_over_fits_and_the_horizon_shows_its_range(study):
    fits = dict(study.datasets[0].dynamics)
    fits[0] = fits[0].model_copy(
        update={
            "open_loop": fits[0].open_loop.model_copy(update={"trusted_horizon": 9}),
            "calibration": fits[0].calibration.model_copy(update={"ece": (0.06, 0.06, 0.06)}),
        }
    )
    changed = dataclasses.replace(study.datasets[0], dynamics=fits)
    bare = dataclasses.replace(study.datasets[1], dynamics={})
    rows = rows_of(model_table(dataclasses.replace(study, datasets=(changed, bare))))
    assert rows["random"]["trusted steps"] == "3 to 9"
    assert rows["random"]["coverage error"] == pytest.approx(0.02)
    assert rows["random"]["best rank correlation"] == "ens_std: 0.600"
    assert rows["mixed"]["fits"] == 0


def test_costs_are_seconds_and_updates_per_second(doctor_report):
    study = small_study(doctor_report, {"mopo": [5.0, 7.0]}, seconds={"mopo": 40.0})
    row = rows_of(cost_table(study, study.datasets[0]))["mopo"]
    assert (row["together s"], row["updates / s"]) == ("120", "25")


def test_data_rows_name_the_unit_and_count_the_findings(study, doctor_report):
    row = rows_of(data_table(study))["mixed"]
    assert (row["unit"], row["episodes"], row["errors"], row["warnings"]) == ("episode return", 10, 0, 1)
    empty = doctor_report.model_copy(update={"stats": None})
    changed = dataclasses.replace(study.datasets[0], report=empty)
    assert rows_of(data_table(dataclasses.replace(study, datasets=(changed,))))["random"]["episodes"] == "-"
