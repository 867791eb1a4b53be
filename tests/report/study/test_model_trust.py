"""What speaks against a model: counted over fits, sorted by whether it forbids."""

import pytest

from mbrl.report.study.model_trust import ModelTrust, about_models, judge_models
from tests.report.conftest import make_dynamics_report
from tests.report.studies import dataset

SOUND = make_dynamics_report()


def changed(**parts):
    return SOUND.model_copy(
        update={name: getattr(SOUND, name).model_copy(update=values) for name, values in parts.items()}
    )


BLIND = changed(open_loop={"trusted_horizon": 0})
LOOSE = changed(calibration={"ece": (0.2, 0.2, 0.2)})


def judge(report, *fits, **options):
    return judge_models(dataset("d", report, dynamics=dict(enumerate(fits)), **options))


def test_sound_fits_of_ordinary_data_have_nothing_against_them(doctor_report):
    assert judge(doctor_report, SOUND, SOUND) == ModelTrust()


@pytest.mark.parametrize(
    ("fits", "counts"),
    [((BLIND,), True), ((BLIND, SOUND), True), ((BLIND, SOUND, SOUND), False), ((), False)],
)
def test_a_check_counts_from_half_of_the_fits_on(doctor_report, fits, counts):
    found = judge(doctor_report, *fits)
    expected = (f"the model is trusted for no step (1 of {len(fits)} fit{'s' * (len(fits) > 1)})",)
    assert found.ruled_out == (expected if counts else ())


def test_coverage_cautions_and_the_rest_rules_out_the_gravest_first(doctor_report):
    found = judge(doctor_report, LOOSE, BLIND, scores=(90.0,) * 20)
    assert [text.split(" (")[0] for text in found.against] == [
        "the model is trusted for no step",
        "its intervals miss their level by more than 0.1 even after recalibration",
        "narrow and near-expert",
    ]
    assert (len(found.ruled_out), len(found.cautions), len(found.unsuited)) == (1, 1, 1)


def test_each_group_has_a_message_of_its_tone(doctor_report):
    data = dataset("d", doctor_report, dynamics={0: SOUND})
    trust = ModelTrust(("a",), ("b",), ("c", "d"))
    messages = about_models(data, trust)
    assert [message.tone for message in messages] == ["bad", "caution", "caution"]
    assert messages[0].text == "d: do not use a model-based method: a."
    assert "at its word: b." in messages[1].text
    assert messages[2].text.endswith("data like these: c; d.")
    (praise,) = about_models(data, ModelTrust())
    assert praise.text.startswith("Nothing speaks against a model here")
    (missing,) = about_models(dataset("d", doctor_report, dynamics={}), ModelTrust())
    assert "No fit of a model is at hand" in missing.text
