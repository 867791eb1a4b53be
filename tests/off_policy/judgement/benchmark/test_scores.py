import dataclasses
import json
import math

import pytest

from mbrl.off_policy.judgement.benchmark.answers import Answer, OPEBench
from mbrl.off_policy.judgement.benchmark.scores import bench_json, score_estimator
from tests.off_policy.benches import NOTHING, bench


def test_scores_worked_by_hand():
    score = score_estimator(bench().logs[0], "good", resamples=50)
    assert (score.asked, score.answered, score.valid) == (4, 4, 4)
    assert score.covered == score.covered_valid == (True, False, True, True)  # 1.0 lies outside of [2, 4]
    # ranks 1, 3, 2, 4
    assert score.metrics["spearman"].value == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert score.metrics["regret"].value == 0.0
    assert score.metrics["error"].value == pytest.approx((0.5 + 2.0 + 0.0 + 1.0) / 4 / 4)
    assert score.metrics["type_one"].value == 0.0
    assert score.metrics["type_two"].value == 0.5  # 1.0 is below 1.5 and judged 3.0
    low, high = score.intervals["spearman"]
    assert low < high


def test_the_peer_is_ranked_on_the_policies_that_the_estimator_answered():
    log = bench().logs[0]
    points, known = (3.0, 2.0, 1.0, 9.0), (True, True, True, False)
    policies = tuple(
        dataclasses.replace(
            p,
            answers={
                **p.answers,
                "peer": Answer(point, point, point, is_valid=True),
                "some": p.answers["good"] if is_known else NOTHING,
            },
        )
        for p, point, is_known in zip(log.policies, points, known, strict=True)
    )
    log = dataclasses.replace(log, policies=policies)
    of_all, of_some = (score_estimator(log, name, peer="peer") for name in ("good", "some"))
    assert of_all.metrics["peer_spearman"].value == pytest.approx(0.2)  # ranks 3, 2, 1, 4
    assert of_some.metrics["peer_spearman"].value == -1.0
    alone = score_estimator(log, "good").metrics["peer_spearman"]
    assert math.isnan(alone.value)
    assert alone.why_not is not None
    fewer = dataclasses.replace(
        log,
        policies=(
            dataclasses.replace(policies[0], answers=log.policies[0].answers | {"peer": NOTHING}),
            *policies[1:],
        ),
    )
    assert math.isnan(score_estimator(fewer, "good", peer="peer").metrics["peer_spearman"].value)


def test_the_regret_counts_policies_of_which_nothing_is_said():
    log = bench().logs[0]
    best = dataclasses.replace(log.policies[3], answers={"good": NOTHING})
    score = score_estimator(dataclasses.replace(log, policies=(*log.policies[:3], best)), "good")
    assert (score.asked, score.answered) == (4, 3)
    assert score.metrics["regret"].value == pytest.approx(3 / 4)  # it would choose the one worth 1 of 0..4


def test_an_estimator_that_never_answers_has_reasons_in_place_of_scores():
    score = score_estimator(bench().logs[0], "silent")
    assert (score.answered, score.covered) == (0, ())
    assert all(math.isnan(metric.value) and metric.why_not for metric in score.metrics.values())


def test_the_coverage_of_valid_answers_stands_apart():
    log = bench().logs[0]
    invalid = dataclasses.replace(log.policies[1].answers["good"], is_valid=False)
    wrong = dataclasses.replace(log.policies[1], answers={"good": invalid})
    found = dataclasses.replace(log, policies=(log.policies[0], wrong, *log.policies[2:]))
    score = score_estimator(found, "good")
    assert (sum(score.covered), len(score.covered)) == (3, 4)
    assert (sum(score.covered_valid), len(score.covered_valid)) == (3, 3)


def test_without_a_baseline_alarms_are_undefined_and_say_so():
    log = dataclasses.replace(bench().logs[0], baseline=math.nan)
    assert "unknown" in str(score_estimator(log, "good").metrics["type_one"].why_not)


def test_a_benchmark_survives_its_json():
    given = dataclasses.replace(bench(), peer="silent", failures={"estimate.toy": "out of memory"})
    values = json.loads(json.dumps(bench_json(given), allow_nan=False))
    assert values["wrong_go"] == 0.5
    assert values["logs"][0]["policies"][0]["answers"]["silent"]["point"] is None
    found = OPEBench.from_json(values)
    assert bench_json(found) == bench_json(given)
    assert found.is_complete is given.is_complete is False
