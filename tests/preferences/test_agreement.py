"""Against the published examples of both coefficients."""

import math

import pytest

from mbrl.preferences.agreement import cohen_kappa, fleiss_kappa, measure_agreement
from mbrl.preferences.pairs import Label, Preference, PreferenceSet, Segment


def test_cohens_example() -> None:
    """Two readers of 50 proposals: 20 yes-yes, 15 no-no, 5 and 10 mixed; p_o = 0.7, p_e = 0.5."""
    answers: list[tuple[Label, Label]] = [("left", "left")] * 20 + [("right", "right")] * 15
    answers += [("left", "right")] * 5 + [("right", "left")] * 10
    assert cohen_kappa(answers) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa([("left", "left")] * 3))


def test_fleiss_example() -> None:
    """Ten subjects, 14 raters; the five categories of the example are told in four, the last two joined.

    By hand: P_i from the rows below, P-bar = 0.39451, P_e = 0.27036, kappa = 0.15645.
    """
    rows = [
        (0, 0, 0, 14), (0, 2, 6, 6), (0, 0, 3, 11), (0, 3, 9, 2), (2, 2, 8, 2),
        (7, 7, 0, 0), (3, 2, 6, 3), (2, 5, 3, 4), (6, 5, 2, 1), (0, 2, 2, 10),
    ]  # fmt: skip
    labels: tuple[Label, ...] = ("left", "right", "equal", "skip")
    counts = [dict(zip(labels, row, strict=True)) for row in rows]
    agreed = sum(sum(n * (n - 1) for n in row) / (14 * 13) for row in rows) / 10
    chance = sum((sum(row[j] for row in rows) / 140) ** 2 for j in range(4))
    assert fleiss_kappa(counts) == pytest.approx((agreed - chance) / (1 - chance))
    assert fleiss_kappa([{"left": 2}, {"right": 3}]) == pytest.approx(1.0)
    # Two raters who always differ, half and half: P = 0, P_e = 1/2.
    assert fleiss_kappa([{"left": 1, "right": 1}] * 4) == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="two answers"):
        fleiss_kappa([{"left": 1}])


def test_a_pair_is_the_same_pair_on_either_side_and_the_last_answer_counts() -> None:
    a, b, c = (Segment(k, 0, 5) for k in range(3))
    answers = (
        Preference(a, b, "right", annotator="anna"),
        Preference(a, b, "left", annotator="anna"),
        Preference(b, a, "right", annotator="bo"),
        Preference(a, c, "left", annotator="anna"),
        Preference(a, c, "right", annotator="bo"),
        Preference(b, c, "left", annotator="anna"),
    )
    found = measure_agreement(PreferenceSet("0" * 16, answers))
    assert found.pairs == 2
    assert [(two.first, two.second, two.pairs, two.share) for two in found.by_two] == [("anna", "bo", 2, 0.5)]
    assert math.isnan(measure_agreement(PreferenceSet("0" * 16, answers[:1])).kappa)
