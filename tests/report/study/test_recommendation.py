import dataclasses

import numpy as np
import pytest

from mbrl.evaluation.statistics import bootstrap_interval
from mbrl.report.study.recommendation import basis, recommend
from tests.report.conftest import make_dynamics_report
from tests.report.studies import dataset, run, small_study

LOW, MIDDLE, HIGH = ([level + k for k in (-2.0, -1.0, 0.0, 1.0, 2.0)] for level in (20.0, 50.0, 80.0))
COSTS = {"bc": 5.0, "td3_bc": 20.0, "iql": 15.0, "mopo": 9.0}


def advise(report, values, **options):
    return recommend(small_study(report, values, **{"seconds": COSTS, **options}), "d")


def text_of(recommendation):
    return " ".join(message.text for message in recommendation.reasons)


def test_a_clear_winner_is_recommended_and_measured_against_the_clone(doctor_report):
    found = advise(doctor_report, {"bc": LOW, "td3_bc": MIDDLE, "mopo": HIGH})
    assert (found.algorithm, found.leader, found.tied) == ("mopo", "mopo", ("mopo",))
    assert found.reasons[0].text.startswith("d: use mopo. Interquartile mean of the normalised score 80 [")
    assert "5 of 5 seeds" in found.reasons[0].text
    assert "mopo beats the clone, bc: 80 [" in text_of(found)
    assert "mopo beats the logged behaviour" in text_of(found)
    assert "Nothing speaks against a model here" in text_of(found)
    assert found.against_models == ()


def test_a_tie_goes_to_the_model_free_method_though_it_takes_longer(doctor_report):
    # The training of mopo alone takes 9 s, less than the 20 s of td3_bc.
    found = advise(doctor_report, {"td3_bc": [k - 0.5 for k in HIGH], "mopo": HIGH, "bc": LOW})
    assert (found.algorithm, found.leader, found.tied) == ("td3_bc", "mopo", ("td3_bc", "mopo"))
    assert "mopo at 80 [" in found.reasons[0].text
    assert "cannot be told apart from it, and td3_bc needs no model" in found.reasons[0].text


def test_a_tie_among_model_free_methods_goes_to_the_cheapest(doctor_report):
    found = advise(doctor_report, {"td3_bc": HIGH, "iql": [k - 0.5 for k in HIGH], "bc": LOW})
    assert found.algorithm == "iql"
    assert "iql costs less: 15 s against 20 s" in found.reasons[0].text
    unknown = {"td3_bc": HIGH, "iql": [run("d", "iql", s, v, train_seconds=None) for s, v in enumerate(HIGH)]}
    assert advise(doctor_report, unknown).algorithm == "td3_bc"


def test_a_tie_among_models_counts_the_fit(doctor_report):
    slow_fit = [run("d", "combo", s, v, seconds=1.0, fit_seconds=200.0) for s, v in enumerate(HIGH)]
    found = advise(doctor_report, {"bc": LOW, "mopo": HIGH, "combo": slow_fit})
    assert found.algorithm == "mopo"  # 9 + 80 s against 1 + 200 s


def test_times_that_hardly_differ_leave_the_choice_to_the_score(doctor_report):
    seconds = {"bc": 5.0, "td3_bc": 100.0, "iql": 90.0}
    values = {"td3_bc": HIGH, "iql": [k - 0.5 for k in HIGH], "bc": LOW}
    found = advise(doctor_report, values, seconds=seconds)
    assert found.algorithm == "td3_bc"
    assert "what is level with it, iql, is neither simpler nor much cheaper" in found.reasons[0].text


def test_on_expert_data_the_clone_is_enough(doctor_report):
    scores = tuple(np.linspace(75.0, 99.0, 50))
    found = advise(
        doctor_report, {"mopo": [k + 1.0 for k in HIGH], "bc": HIGH, "td3_bc": HIGH}, scores=scores
    )
    assert found.algorithm == "bc"
    assert "bc is the clone of the log: imitation suffices." in text_of(found)
    (why,) = found.against_models
    assert why == "narrow and near-expert (the median episode scores 87, nine of ten at least 77)"
    assert "usually lose to simpler ones" in text_of(found)


@pytest.mark.parametrize("scores", [(99.0,) * 8 + (10.0,) * 2, (70.0,) * 10])
def test_wide_or_mediocre_data_are_not_narrow_near_expert(doctor_report, scores):
    assert advise(doctor_report, {"bc": LOW, "mopo": HIGH}, scores=scores).against_models == ()


def test_a_kind_of_data_only_cautions_where_a_model_is_clearly_better(doctor_report):
    found = advise(doctor_report, {"bc": LOW, "mopo": HIGH}, scores=(90.0,) * 20)
    assert found.algorithm == "mopo"
    assert [m.tone for m in found.reasons if "usually lose" in m.text] == ["caution"]


def broken(**parts):
    report = make_dynamics_report()
    return report.model_copy(
        update={name: getattr(report, name).model_copy(update=values) for name, values in parts.items()}
    )


BROKEN = {
    "trusted for no step": broken(open_loop={"trusted_horizon": 0}),
    "no uncertainty measure ranks": make_dynamics_report().model_copy(update={"correlations": {}}),
    "fewer than half of the held-out terminations": broken(termination={"recall": 0.4}),
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_model_that_fails_a_check_rules_its_methods_out(doctor_report, words):
    fits = {0: BROKEN[words], 1: BROKEN[words], 2: make_dynamics_report()}
    found = advise(doctor_report, {"bc": LOW, "td3_bc": MIDDLE, "mopo": HIGH}, dynamics=fits)
    assert (found.algorithm, found.leader) == ("td3_bc", "mopo")
    assert "mopo scored higher, 80 [" in found.reasons[0].text
    (problem,) = [message.text for message in found.reasons if message.tone == "bad"]
    assert problem.startswith("d: do not use a model-based method: ")
    assert f"{words}" in problem
    assert "(2 of 3 fits)" in problem


def test_intervals_that_miss_their_level_caution_and_rule_nothing_out(doctor_report):
    missed = broken(calibration={"ece": (0.2, 0.2, 0.2)})
    found = advise(
        doctor_report, {"bc": LOW, "td3_bc": MIDDLE, "mopo": HIGH}, dynamics={0: missed, 1: missed}
    )
    assert found.algorithm == "mopo"
    (why,) = found.against_models
    assert why == "its intervals miss their level by more than 0.1 even after recalibration (2 of 2 fits)"
    (caution,) = [message for message in found.reasons if "intervals miss their level" in message.text]
    assert caution.tone == "caution"
    assert "Penalties need its errors ranked, not covered" in caution.text
    assert "Nothing speaks against a model" not in text_of(found)


def test_a_caution_does_not_hide_what_rules_out(doctor_report):
    both = broken(calibration={"ece": (0.2, 0.2, 0.2)}, open_loop={"trusted_horizon": 0})
    found = advise(doctor_report, {"bc": LOW, "mopo": HIGH}, dynamics={0: both})
    assert found.algorithm == "bc"
    assert [text.split(" (")[0] for text in found.against_models] == [
        "the model is trusted for no step",
        "its intervals miss their level by more than 0.1 even after recalibration",
    ]
    tones = {m.tone for m in found.reasons if "trusted for no step" in m.text}
    assert tones == {"bad"}


def test_a_check_that_a_minority_of_fits_fails_rules_nothing_out(doctor_report):
    fits = dict(enumerate([*BROKEN.values()][:1] + [make_dynamics_report()] * 2))
    assert advise(doctor_report, {"bc": LOW, "mopo": HIGH}, dynamics=fits).algorithm == "mopo"


def test_a_ruled_out_method_does_not_set_the_bar_for_ties(doctor_report):
    # mopo overlaps both; without it td3_bc is clearly better than bc.
    values = {"bc": LOW, "td3_bc": MIDDLE, "mopo": [20.0, 20.0, 50.0, 80.0, 80.0]}
    found = advise(doctor_report, values, dynamics={0: broken(open_loop={"trusted_horizon": 0})})
    assert found.algorithm == "td3_bc"


def test_models_alone_that_fail_leave_nothing_to_recommend(doctor_report):
    fits = {0: broken(open_loop={"trusted_horizon": 0})}
    found = advise(doctor_report, {"mopo": HIGH, "combo": LOW}, dynamics=fits)
    assert found.algorithm is None
    assert "only model-based methods can be judged (mopo, combo)" in found.reasons[0].text


def test_sparse_rewards_over_long_episodes_are_named(doctor_report):
    sparse = broken(reward={"share_zero": 0.97})
    found = advise(doctor_report, {"bc": LOW, "mopo": HIGH}, dynamics={0: sparse})
    assert found.against_models == ("a sparse reward over long episodes (97 % of rewards are 0)",)
    short = doctor_report.stats.lengths.model_copy(update={"mean": 50.0})
    stats = doctor_report.stats.model_copy(update={"lengths": short})
    brief = doctor_report.model_copy(update={"stats": stats})
    assert advise(brief, {"bc": LOW, "mopo": HIGH}, dynamics={0: sparse}).against_models == ()


def test_without_models_in_the_study_nothing_is_said_of_them(doctor_report):
    found = advise(
        doctor_report,
        {"bc": LOW, "iql": HIGH},
        dynamics={0: BROKEN["trusted for no step"]},
        scores=(90.0,) * 9,
    )
    assert found.against_models == ()
    assert "model" not in text_of(found).replace("model-free", "")


def test_a_missing_fit_is_named(doctor_report):
    assert "No fit of a model is at hand" in text_of(
        advise(doctor_report, {"bc": LOW, "mopo": HIGH}, dynamics={})
    )


def test_one_seed_gives_no_recommendation(doctor_report):
    found = advise(doctor_report, {"bc": [20.0], "mopo": [80.0]})
    assert (found.algorithm, found.tied) == (None, ())
    assert "one seed tells nothing of the next. Finished: bc 1 of 1; mopo 1 of 1." in found.reasons[0].text


def test_a_method_with_a_failed_run_is_not_considered(doctor_report):
    crashed = run("d", "mopo", 4, status="failed", cause="out of memory")
    found = advise(doctor_report, {"bc": LOW, "mopo": [*HIGH[:4], crashed]})
    assert found.algorithm == "bc"
    assert "Not considered" in text_of(found)
    assert "mopo (1 of 5) failed" in text_of(found)


def test_missing_seeds_are_named_and_do_not_exclude(doctor_report):
    found = advise(doctor_report, {"bc": LOW, "mopo": [*HIGH[:3], run("d", "mopo", 3), run("d", "mopo", 4)]})
    assert found.algorithm == "mopo"
    assert "3 of 5 seeds" in found.reasons[0].text
    assert "Not all seeds are finished: mopo (3 of 5)." in text_of(found)


def test_a_clone_of_choices_is_one(doctor_report):
    found = advise(doctor_report, {"discrete_bc": LOW, "mopo": HIGH})
    assert "mopo beats the clone, discrete_bc: 80 [" in text_of(found)


def test_a_study_without_a_clone_says_that_the_bar_is_missing(doctor_report):
    assert "no behaviour clone" in text_of(advise(doctor_report, {"iql": MIDDLE, "mopo": HIGH}))


def test_what_falls_short_of_the_log_is_not_worth_deploying(doctor_report):
    found = advise(doctor_report, {"bc": LOW, "iql": MIDDLE}, scores=(95.0, 96.0, 97.0))
    assert "d: keep the controller that made the log" in text_of(found)


def test_a_collapsed_seed_and_alarms_are_named(doctor_report):
    values = {"bc": [10.0] * 5, "mopo": [80.0, 81.0, 82.0, 83.0, 5.0]}
    study = small_study(doctor_report, values, seconds=COSTS)
    shift = {"alarms": ["Off the data."], "value_gap": 3.0}
    runs = [
        dataclasses.replace(r, shift=shift) if r.algorithm == "mopo" and r.seed < 2 else r for r in study.runs
    ]
    text = text_of(recommend(dataclasses.replace(study, runs=tuple(runs)), "d"))
    assert "use mopo" in text
    assert "The worst seed of mopo, 4, reaches 5, less than the 10 of the clone, bc" in text
    assert "2 of 5 runs of mopo raised alarms" in text


def test_returns_are_compared_where_there_are_no_references(doctor_report):
    study = small_study(doctor_report, {"bc": LOW, "iql": HIGH})
    bare = dataclasses.replace(dataset("d", doctor_report), scores=None)
    text = text_of(recommend(dataclasses.replace(study, datasets=(bare,)), "d"))
    assert "Interquartile mean of the episode return 800 [" in text


def test_the_basis_names_simulator_seeds_and_selection(doctor_report):
    study = small_study(doctor_report, {"bc": LOW, "mopo": HIGH})
    text = basis(study).text
    for piece in (
        "2 episodes in a simulator",
        "last policy",
        "5 seeds each",
        "not tuning",
        "best of 2 methods",
    ):
        assert piece in text
    assert basis(study).tone == "plain"
    few = small_study(doctor_report, {"bc": LOW[:3], "mopo": HIGH[:3]})
    assert basis(few).tone == "caution"
    assert "`fqe`" in basis(dataclasses.replace(few, selection="fqe")).text


def test_an_unknown_dataset_is_an_error(doctor_report):
    with pytest.raises(KeyError):
        recommend(small_study(doctor_report, {"bc": LOW}), "other")


@pytest.mark.slow
def test_intervals_that_stay_apart_are_seldom_chance():
    rng, apart = np.random.default_rng(0), 0
    for _ in range(400):
        one, other = (
            bootstrap_interval(rng.normal(size=5), generator=rng, average="iqm", resamples=400)
            for _ in range(2)
        )
        apart += one.low > other.high or other.low > one.high
    assert apart / 400 <= 0.05
