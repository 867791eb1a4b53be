import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.preferences.pairs import Segment
from mbrl.preferences.synthetic import TeacherConfig, answer_pairs, draw_pairs
from mbrl.testing.samples import make_dataset

LOG = make_dataset()


def test_every_window_is_as_likely_as_every_other() -> None:
    pairs = draw_pairs(LOG, count=4000, length=29)  # two windows in each of the twelve episodes
    assert all(left != right for left, right in pairs)
    windows = [(s.episode, s.start) for pair in pairs for s in pair]
    counts = np.unique(windows, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert abs(counts - 8000 / 24).max() < 5 * np.sqrt(8000 / 24)
    assert draw_pairs(LOG, count=3, length=5) == draw_pairs(LOG, count=3, length=5)
    with pytest.raises(DataError, match="longest episode has 30"):
        draw_pairs(LOG, count=1, length=31)


def test_the_larger_sum_is_preferred_and_noise_turns_answers_around() -> None:
    pairs = draw_pairs(LOG, count=2000, length=5)
    clean = answer_pairs(LOG, pairs)
    for answer in clean.answers[:50]:
        left, right = (
            LOG.episodes[s.episode].rewards[s.start : s.end].sum(dtype=np.float64)
            for s in (answer.left, answer.right)
        )
        assert answer.label == ("left" if left > right else "right")
    noisy = answer_pairs(LOG, pairs, TeacherConfig(noise=0.3))
    turned = np.mean([a.label != b.label for a, b in zip(clean.answers, noisy.answers, strict=True)])
    assert abs(turned - 0.3) < 0.04


def test_a_myopic_annotator_weighs_the_last_steps_most() -> None:
    rewards = [np.array([3.0, 0.0, 0.0]), np.array([0.0, 0.0, 2.0])]
    log = make_dataset(count=2, steps=3)
    pair = (Segment(0, 0, 3), Segment(1, 0, 3))
    assert answer_pairs(log, [pair], rewards=rewards).answers[0].label == "left"
    # 0.8^2 * 3 = 1.92 < 2.
    myopic = answer_pairs(log, [pair], TeacherConfig(myopia=0.8), rewards=rewards)
    assert myopic.answers[0].label == "right"
    equal = answer_pairs(log, [pair], TeacherConfig(equal_margin=1.5), rewards=rewards)
    assert equal.answers[0].label == "equal"


def test_a_rational_annotator_doubts_what_is_close() -> None:
    rewards = [np.array([1.0]), np.array([0.0])]
    log = make_dataset(count=2, steps=1)
    pairs = [(Segment(0, 0, 1), Segment(1, 0, 1))] * 4000
    answers = answer_pairs(log, pairs, TeacherConfig(rationality=1.0), rewards=rewards).answers
    share = np.mean([answer.label == "left" for answer in answers])
    assert abs(share - 1 / (1 + np.exp(-1))) < 0.03
