import json

import numpy as np
import pytest

from mbrl.dynamics.prediction import RolloutPrediction
from mbrl.report.kit.html import render_page
from mbrl.report.kit.viewer import FEWEST_POINTS, Overlay, ViewedEpisode
from mbrl.report.run.imagined_viewer import ImaginedView, imagined_section
from tests.report.browser import open_page


def forecast(mean, half=0.5):
    mean = np.asarray(mean, np.float32)
    unknown = np.zeros(len(mean), np.float32)
    return RolloutPrediction(mean, mean - half, mean + half, unknown, unknown, unknown, unknown, 0.9)


def view(start=3, steps=6):
    """Two channels; the first leaves its interval in steps 3 and 4, the second follows the mean."""
    mean = np.stack([np.zeros(steps), np.arange(1.0, steps + 1)], 1)
    logged = np.concatenate([np.zeros((1, 2)), mean]).astype(np.float32)
    logged[3:5, 0] = 2.0
    linear = np.stack([np.zeros(steps + 1), 10.0 ** np.arange(steps + 1)], 1)
    return ImaginedView(episode=7, start=start, logged=logged, forecast=forecast(mean), linear=linear)


def data_of(section):
    return json.loads(section.viewer.to_json())


def test_the_viewer_shows_mean_interval_and_the_linear_model_on_one_scale():
    section = imagined_section([view(), view(start=9)], ("x", "y"), time_step=0.1, trusted=2)
    data = data_of(section)
    assert [episode["name"] for episode in data["episodes"]] == [
        "episode 7, from step 3",
        "episode 7, from step 9",
    ]
    one = data["episodes"][0]
    assert [overlay["name"] for overlay in one["overlays"]] == ["90 % interval", "forecast", "ridge-linear"]
    scale = one["values"][1]

    def real(column):
        return [
            None if v is None else scale["low"] + (scale["high"] - scale["low"]) * v / 9999 for v in column
        ]

    assert real(scale["v"]) == pytest.approx(list(range(7)), abs=1e-3)
    assert real(one["overlays"][0]["v"][1]) == pytest.approx([0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5], abs=1e-3)
    assert real(one["overlays"][0]["upper"][1])[-1] == pytest.approx(6.5, abs=1e-3)
    linear = real(one["overlays"][2]["v"][1])
    assert linear[0] == pytest.approx(1.0, abs=1e-3)
    assert linear[2:] == [None] * 5  # it left the range of the others


def test_marks_stand_where_the_interval_is_left_and_where_trust_ends():
    data = data_of(imagined_section([view()], ("x", "y"), time_step=0.1, trusted=2))
    assert data["episodes"][0]["marks"] == [[0, 0.3, 0.4, 0], [1, 0.2, 0.2, -1]]
    assert len(data_of(imagined_section([view()], ("x",), time_step=None, trusted=0))["channels"]) == 1
    section = imagined_section([view()], ("x",), time_step=None, trusted=0)
    assert "Seconds are steps" in section.text
    assert data_of(section)["episodes"][0]["marks"] == [[0, 3.0, 4.0, 0]]


def test_an_episode_with_overlays_is_short_enough_to_be_drawn_whole():
    rows = np.zeros((FEWEST_POINTS + 1, 1))
    with pytest.raises(ValueError, match="60 at most"):
        ViewedEpisode("x", rows[:, 0], rows, [Overlay("line", rows)])


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_it(tmp_path, width, is_dark):
    page = tmp_path / "page.html"
    views = [view(), view(start=9)]
    page.write_text(render_page("Model", [imagined_section(views, ("x", "y"), time_step=0.1, trusted=2)]))
    facts = open_page(page, tmp_path, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["wide"] == []
