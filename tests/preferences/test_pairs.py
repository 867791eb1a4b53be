import pytest

from mbrl.core.errors import DataError
from mbrl.data.relabel import relabel_dataset
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment, answer_problem, expand_ranking
from mbrl.testing.samples import make_dataset

A, B, C, D = (Segment(k, 0, 5) for k in range(4))


def test_a_target_is_the_probability_where_one_is_stated() -> None:
    assert [Preference(A, B, label).target for label in ("left", "right", "equal", "skip")] == [
        1,
        0,
        0.5,
        None,
    ]
    assert Preference(A, B, "left", 0.7).target == 0.7


def test_mirroring_exchanges_the_sides() -> None:
    mirrored = Preference(A, B, "left", 0.75, "anna", 3.0).mirrored
    assert mirrored == Preference(B, A, "right", 0.25, "anna", 3.0)
    assert Preference(A, B, "equal").mirrored.label == "equal"


def test_a_ranking_is_all_of_its_pairs() -> None:
    pairs = [(p.left, p.right, p.label) for p in expand_ranking([[A], [B, C], [D]])]
    assert pairs == [
        (A, B, "left"),
        (A, C, "left"),
        (A, D, "left"),
        (B, C, "equal"),
        (B, D, "left"),
        (C, D, "left"),
    ]
    with pytest.raises(ValueError, match="twice"):
        list(expand_ranking([[A], [B, A]]))


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (Preference(A, A, "left"), "right_start"),
        (Preference(A, B, "left", 0.3), "probability"),
        (Preference(A, B, "skip", 0.5), "probability"),
        (Preference(A, Segment(1, -1, 5), "left"), "right_start"),
        (Preference(Segment(0, 0, 0), B, "left"), "left_length"),
    ],
)
def test_answers_that_contradict_themselves_are_told(answer: Preference, field: str) -> None:
    found = answer_problem(answer)
    assert found is not None
    assert found[0] == field


def test_answers_belong_to_a_log_and_to_what_was_relabelled_from_it() -> None:
    log = make_dataset()
    answers = PreferenceSet(log.content_hash, (Preference(A, B, "left"),))
    answers.require_log(log)
    answers.require_log(relabel_dataset(log, reward="obs_0"))
    with pytest.raises(DataError, match="are about the log"):
        answers.require_log(make_dataset(seed=1))


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        (Segment(12, 0, 5), "row 1: there is no episode 12"),
        (Segment(0, 28, 5), "steps 28 to 32 of episode 0"),
    ],
)
def test_a_segment_outside_of_the_log_is_named(segment: Segment, text: str) -> None:
    log = make_dataset()
    with pytest.raises(DataError, match=text):
        PreferenceSet(log.content_hash, (Preference(segment, B, "left"),)).require_log(log)
