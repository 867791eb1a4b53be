import dataclasses
import json
import re

import pytest

from mbrl.report.study.page import write_study
from mbrl.report.study.scores import run_value
from tests.report.browser import find_browser, open_page
from tests.report.run.test_pages import Page
from tests.report.studies import full_study, run, small_study


@pytest.fixture(scope="module")
def study(doctor_report):
    return full_study(doctor_report)


@pytest.fixture(scope="module")
def out(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert write_study(study, folder) == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(out):
    return Page((out / "index.html").read_text())


def test_the_page_is_one_file_of_reasonable_size(out, page):
    text = (out / "index.html").read_text()
    assert len(text) < 3_000_000
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert not re.search(r"@import|url\((?!#)|(?:src|href)=\"(?!#)", text)
    assert len(set(page.ids)) == len(page.ids)
    assert "prefers-color-scheme: dark" in text


def test_the_conclusion_comes_first(page):
    first = page.text.index("Dataset random")
    for piece in (
        "random: use mobile.",
        "mixed: use mobile.",
        "expert: use bc.",
        "expert: do not use a model-based method: the model is trusted for no step (5 of 5 fits)",
        "2 of 105 runs failed or are missing",
        "10 episodes in a simulator",
        "5 seeds each",
    ):
        assert page.text.index(piece) < first


def test_every_part_is_there(page):
    for piece in (
        "Scores on expert",
        "Probability of beating bc on mixed",
        "Averages over datasets and seeds",
        "Performance profile",
        "random: value of the data",
        "What was learned from",
        "expert: error against the horizon",
        "expert: calibration",
        "how far the policies leave the data",
        "More than half of the policy's actions lie outside the data.",
        "Wall time of a run",
        "The critic diverged at step 41,000",
        "not run yet",
        "4 of 5 seeds",
        "mbrl compare toy.yaml",
        "mixed-0123456789abcdef",
    ):
        assert piece in page.text


def test_the_summary_shows_every_figure_and_every_run_without_a_score(out):
    text = (out / "summary.md").read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", text)
    assert set(linked) == {path.name for path in out.glob("*.png")}
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in linked)
    assert "| mixed | combo | 3 | failed: The critic diverged" in text
    assert "| expert | cql | 4 | not run yet |" in text
    assert "expert: use bc." in text


def test_the_numbers_are_complete(out, study):
    text = (out / "summary.json").read_text()
    assert "NaN" not in text
    values = json.loads(text)
    assert len(values["runs"]) == 105
    assert {item["status"] for item in values["runs"]} == {"done", "failed", "missing"}
    expert = values["datasets"]["expert"]
    assert expert["standings"]["cql"]["planned"] == 5
    seeds = {str(r.seed): run_value(r, "normalised score") for r in study.of("expert", "iql")}
    assert expert["standings"]["iql"]["values"] == seeds
    assert len(expert["dynamics"]) == 5
    assert values["datasets"]["mixed"]["scores"] is None
    assert len(values["improvements"]) == 21
    assert set(values["overall"]["profiles"]) == set(study.algorithms)
    assert values["recommendations"][2]["algorithm"] == "bc"
    (curve,) = [c for c in values["curves"] if (c["dataset"], c["metric"]) == ("random", "critic/value")]
    assert curve["algorithms"]["mopo"]["seeds"] == 5
    assert "bc" not in curve["algorithms"]


def test_the_same_study_gives_the_same_files(study, out, tmp_path):
    small = dataclasses.replace(study, datasets=study.datasets[:1], runs=study.runs[:35])
    pages = [write_study(small, tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()


def test_a_study_of_which_nothing_has_run_is_a_page_too(doctor_report, tmp_path):
    runs = {label: [run("d", label, 0), run("d", label, 1)] for label in ("bc", "mopo")}
    text = Page(write_study(small_study(doctor_report, runs, dynamics={}), tmp_path).read_text()).text
    assert "d: nothing is recommended" in text
    assert "4 of 4 runs failed or are missing" in text
    assert json.loads((tmp_path / "summary.json").read_text())["overall"]["averages"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("is_dark", [False, True])
def test_a_browser_opens_the_page_without_errors_or_overflow(out, page, tmp_path, width, is_dark):
    facts = open_page(out / "index.html", tmp_path, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["width"] == width
    assert facts["scroll"] <= facts["width"]
    assert facts["wide"] == []
    assert facts["outside"] == []
    assert facts["dark"] is is_dark
    assert facts["paper"] == ("rgb(16, 20, 26)" if is_dark else "rgb(246, 247, 249)")
    assert facts["drawings"] == [tag for tag, _ in page.tags].count("svg")


@pytest.mark.slow
def test_the_browser_check_sees_what_is_wrong(tmp_path):
    find_browser()
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html><head></head><body><main><p style='width:900px'>wide</p></main>"
        "<script>nothing.here</script></body></html>"
    )
    facts = open_page(page, tmp_path, width=390)
    assert facts["scroll"] > 800
    assert facts["wide"] == ["P"]
    assert "nothing" in facts["problems"][0]
