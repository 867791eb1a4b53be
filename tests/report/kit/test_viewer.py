import json
import re

import numpy as np
import pytest

from mbrl.report.kit.html import Section, fragment, render_page
from mbrl.report.kit.viewer import FEWEST_POINTS, MOST_POINTS, ViewedEpisode, ViewedMark, Viewer, thin
from tests.report.browser import open_page
from tests.report.run.test_pages import Page


def viewer(rows: int = 5000, episodes: int = 3, channels: int = 2) -> Viewer:
    time = 0.01 * np.arange(rows)
    values = np.stack([np.sin(time + k) for k in range(channels)], axis=1)
    values[rows // 2, 0] = 7.0
    values[-1, -1] = np.nan
    return Viewer(
        [(f"channel {k} </script><b>", "observation" if k else "action") for k in range(channels)],
        [ViewedEpisode(f"run {k} <i>", time, values) for k in range(episodes)],
        [ViewedMark(1, 0.5, 1.5, 0, 0), ViewedMark(1, 2.0, 2.0, -1, 0)],
        [("caution", "gaps", "A pause & more.")],
    )


def test_thinning_keeps_every_peak():
    time, values = np.arange(1000.0), np.zeros((1000, 2))
    values[333, 0], values[777, 1] = 5.0, -4.0
    values[500:520, 1] = np.nan
    at, kept = thin(time, values, 40)
    assert len(at) == len(kept) == 40
    assert (kept[:, 0].max(), kept[:, 1].min()) == (5.0, -4.0)
    assert (np.diff(at) > 0).all()
    assert abs(at[int(np.nanargmax(kept[:, 0]))] - 333) <= 50
    rising = thin(time, np.stack([time, -time], axis=1), 40)[1]
    assert (np.diff(rising[:, 0]) > 0).all()
    assert (np.diff(rising[:, 1]) < 0).all()
    assert thin(time, values, 1000)[1] is values


def test_the_data_are_what_was_logged():
    shown = viewer(rows=600)
    data = json.loads(shown.to_json())
    assert [episode["rows"] for episode in data["episodes"]] == [600] * 3
    one = data["episodes"][0]["values"][0]
    back = one["low"] + (one["high"] - one["low"]) * np.array(one["v"]) / 9999
    assert back == pytest.approx(shown.episodes[0].values[:, 0], abs=1e-3)
    assert data["episodes"][0]["values"][1]["v"][-1] is None
    assert data["episodes"][1]["marks"] == [[0, 0.5, 1.5, 0], [0, 2.0, 2.0, -1]]
    assert data["notes"] == [{"tone": "caution", "name": "gaps", "text": "A pause & more."}]


def test_the_numbers_of_a_page_are_limited():
    assert viewer(episodes=1).points == MOST_POINTS
    assert viewer(rows=10, episodes=60, channels=48).points == 300_000 // (60 * 48)
    assert viewer(rows=10, episodes=600, channels=48).points == FEWEST_POINTS
    assert len(viewer(rows=100_000, episodes=3).to_json()) < 100_000


def test_no_name_ends_the_script_and_notebooks_go_without():
    section = Section("Episodes", viewer=viewer())
    text = render_page("t", [section])
    assert len(re.findall("</script>", text)) == 2  # data and script
    assert "\\u003c/script\\u003e" in text
    assert not re.search(r"(src|href)=.?https?:", text)
    Page(text)
    assert "<script" not in fragment([section])
    assert "<script" not in render_page("t", [Section("s")])


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)])
def test_it_runs_in_a_browser_and_fits(tmp_path, width: int, is_dark: bool):
    page = tmp_path / "page.html"
    page.write_text(render_page("t", [Section("Episodes", viewer=viewer())]))
    facts = open_page(page, tmp_path, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["wide"] == []
    assert facts["scroll"] <= width
