import dataclasses
import json

import pytest

from mbrl.report.kit.table import to_text
from mbrl.report.run.comparison import Comparison, Method, comparison_table, conclude
from tests.report.conftest import interval


def texts(messages):
    return " ".join(message.text for message in messages)


def with_first(comparison, estimate, half_width, values=(0.0, 0.0, 0.0)):
    first = Method("MOPO", values, interval(estimate, half_width, n=len(values)))
    return dataclasses.replace(comparison, methods=(first, *comparison.methods[1:]))


def test_json_round_trip(comparison):
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison


def test_separate_intervals_are_a_win(comparison):
    beats_bc, beats_log, tenth = conclude(comparison)
    assert beats_bc.text.startswith("MOPO beats BC: -200 [-220, -180] against -470 [-510, -430]")
    assert beats_log.text.startswith("MOPO beats the logged behaviour")
    assert (beats_bc.tone, beats_log.tone) == ("good", "good")
    assert tenth.text == "The best tenth of the logged episodes averages -160; MOPO is below it."


@pytest.mark.parametrize(
    ("estimate", "half_width", "tone", "words"),
    [
        (-430.0, 20.0, "caution", "cannot be told apart"),
        (-600.0, 20.0, "bad", "falls short"),
        (-200.0, None, "caution", "Without both intervals nothing is concluded"),
    ],
)
def test_anything_else_is_not_a_win(comparison, estimate, half_width, tone, words):
    message = conclude(with_first(comparison, estimate, half_width))[0]
    assert message.tone == tone
    assert words in message.text


def test_one_seed_and_an_untrusted_model_carry_cautions(comparison):
    messages = conclude(with_first(comparison, -200.0, 10.0, values=(-200.0,)), trusted_horizon=0)
    assert "tell nothing of other seeds" in texts(messages)
    assert "do not roll it out" in texts(messages)
    assert "Only 2 seeds" in texts(conclude(with_first(comparison, -200.0, 10.0, values=(-200.0, -201.0))))
    assert "do not roll it out" not in texts(conclude(comparison, trusted_horizon=4))


def test_table_shows_methods_and_what_the_log_reached(comparison):
    text = to_text([comparison_table(comparison)])
    for piece in ("MOPO", "-200 [-220, -180]", "logged behaviour", "best tenth of the log", "143"):
        assert piece in text
