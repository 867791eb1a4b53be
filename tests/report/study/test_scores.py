import dataclasses
import json
import math

import numpy as np
import pytest

from mbrl.evaluation.statistics import bootstrap_interval
from mbrl.report.study.scores import (
    aggregate,
    comparison,
    improvements,
    reverse,
    run_value,
    standings,
    unit_of,
)
from tests.report.studies import dataset, full_study, run, small_study


@pytest.fixture(scope="module")
def study(doctor_report):
    return full_study(doctor_report, points=20)


def test_a_seed_is_the_mean_of_its_episodes(doctor_report):
    study = small_study(doctor_report, {"bc": [10.0, 30.0, 80.0]})
    (standing,) = standings(study, study.datasets[0])
    assert standing.values == {0: 10.0, 1: 30.0, 2: 80.0}
    assert standing.averages["mean"].estimate == 40.0
    assert standing.averages["median"].estimate == 30.0
    assert standing.worst == (0, 10.0)
    assert standing.iqm == bootstrap_interval(
        [10.0, 30.0, 80.0], generator=np.random.default_rng(0), average="iqm"
    )


def test_times_and_updates_are_means_of_finished_runs(doctor_report):
    runs = [
        run("d", "mopo", 0, 1.0, seconds=10.0),
        run("d", "mopo", 1, 2.0, seconds=30.0),
        run("d", "mopo", 2),
    ]
    study = small_study(doctor_report, {"mopo": runs})
    (standing,) = standings(study, study.datasets[0])
    assert (standing.train_seconds, standing.fit_seconds, standing.seconds) == (20.0, 80.0, 100.0)
    assert (standing.updates, standing.seeds) == (1000.0, "2 of 3")


def test_what_did_not_finish_counts_as_planned_and_has_no_average(doctor_report):
    crashed = run("d", "bc", 0, status="failed", cause="?")
    study = small_study(doctor_report, {"bc": [crashed, run("d", "bc", 1)]})
    (standing,) = standings(study, study.datasets[0])
    assert (standing.seeds, standing.failed, standing.worst, standing.seconds) == ("0 of 2", 1, None, None)
    assert math.isnan(standing.iqm.estimate)
    assert comparison(study, study.datasets[0]).methods == ()


def test_the_unit_is_the_return_where_there_are_no_references(doctor_report):
    bare = dataclasses.replace(dataset("d", doctor_report), scores=None)
    assert (unit_of(bare), unit_of(dataset("d", doctor_report))) == ("episode return", "normalised score")
    finished = run("d", "bc", 0, 5.0)
    assert (run_value(finished, "episode return"), run_value(finished, "normalised score")) == (50.0, 5.0)
    assert run_value(dataclasses.replace(finished, scores=None), "normalised score") is None
    assert run_value(dataclasses.replace(finished, scores=(math.nan,)), "normalised score") is None
    assert run_value(dataclasses.replace(finished, status="failed"), "normalised score") is None


def test_the_log_is_the_reference(doctor_report):
    study = small_study(doctor_report, {"bc": [1.0, 2.0]}, scores=tuple(map(float, range(20))))
    against = comparison(study, study.datasets[0])
    assert against.behaviour.estimate == 9.5
    assert against.best_tenth == 18.5


def test_averages_pool_the_datasets_with_references(study):
    total = aggregate(study)
    assert total.datasets == ("random", "expert")  # mixed has none
    scores = [
        run_value(item, "normalised score")
        for name in total.datasets
        for item in study.of(name, "cql")
        if item.status == "done"
    ]
    assert total.averages["cql"]["mean"].estimate == pytest.approx(np.mean(scores))
    assert total.averages["cql"]["iqm"].n == total.profiles["cql"].n == len(scores) == 9
    assert total.left_out == {}


def test_an_algorithm_that_lacks_a_dataset_is_left_out_and_named(study):
    runs = [
        dataclasses.replace(item, status="failed")
        if (item.dataset, item.algorithm) == ("expert", "iql")
        else item
        for item in study.runs
    ]
    total = aggregate(dataclasses.replace(study, runs=tuple(runs)))
    assert total.left_out == {"iql": "no finished run on expert"}
    assert "iql" not in total.averages
    assert "bc" in total.averages


def test_pairs_take_every_dataset_that_both_have(study):
    pairs = {(pair.first, pair.second): pair for pair in improvements(study)}
    assert len(pairs) == 7 * 6 / 2
    pair = pairs["bc", "mobile"]
    assert pair.datasets == ("random", "mixed", "expert")
    shares = []
    for item in study.datasets:
        one, other = (
            [run_value(r, unit_of(item)) for r in study.of(item.label, label)] for label in ("bc", "mobile")
        )
        shares.append(np.mean([(a > b) + (a == b) / 2 for a in one for b in other]))
    assert pair.probability.estimate == pytest.approx(np.mean(shares))
    (alone,) = [p for p in improvements(study, study.datasets[2:]) if (p.first, p.second) == ("bc", "mobile")]
    assert alone.probability.estimate == pytest.approx(shares[2])
    turned = reverse(pair)
    assert (turned.first, turned.second) == ("mobile", "bc")
    assert turned.probability.estimate == 1 - pair.probability.estimate
    assert turned.probability.low == 1 - pair.probability.high


def test_pairs_without_a_common_dataset_are_left_out(doctor_report):
    study = small_study(doctor_report, {"bc": [1.0, 2.0], "iql": [run("d", "iql", 0), run("d", "iql", 1)]})
    assert improvements(study) == []


def test_figures_repeat_themselves(study):
    one, other = ([p.probability.to_json() for p in improvements(study)] for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(other, allow_nan=False)
