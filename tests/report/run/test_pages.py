import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mbrl.report.kit.html import Picture, Section, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.plots import Line, draw_lines
from mbrl.report.kit.table import Table
from mbrl.report.run.pages import DemoResults, demo_page, doctor_page, dynamics_page, run_page
from tests.report.conftest import interval, make_dynamics_report

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "line", "circle"}


class Page(HTMLParser):
    """Checks nesting, and collects what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\N{NO-BREAK SPACE}", " ")


def demo_results(doctor_report, comparison, records, horizon=3):
    return DemoResults(
        data=doctor_report,
        dynamics=make_dynamics_report(horizon=horizon),
        comparison=comparison,
        runs={"MOPO": records, "BC": [{"step": 10, "policy/loss": 0.5}]},
        seconds={"fit": 80.0, "train": 40.5},
        value_bounds=(-5.0, 60.0),
    )


@pytest.fixture(scope="session")
def pages(doctor_report, dynamics_report, comparison, records):
    return {
        "doctor": doctor_page(doctor_report, provenance={"command": "mbrl inspect toy"}),
        "dynamics": dynamics_page("toy", dynamics_report),
        "run": run_page("mopo-s0", records),
        "demo": demo_page(demo_results(doctor_report, comparison, records)),
    }


@pytest.mark.parametrize("name", ["doctor", "dynamics", "run", "demo"])
def test_page_is_well_formed_self_contained_and_described(pages, name):
    page = Page(pages[name])
    tags = [tag for tag, _ in page.tags]
    assert len(set(page.ids)) == len(page.ids)
    assert not {"script", "link", "img", "iframe"} & set(tags)
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", pages[name])
    drawings = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert tags.count("svg") == len(drawings) > 0
    assert all(len(attributes["aria-label"]) > 20 for attributes in drawings)
    assert tags.count("figure") == len(drawings)
    assert "prefers-color-scheme: dark" in pages[name]


def test_pages_state_their_numbers(pages):
    doctor, dynamics, demo = (Page(pages[name]).text for name in ("doctor", "dynamics", "demo"))
    assert "1,234" in doctor
    assert "mbrl inspect toy" in doctor
    assert "with 1 warning to read first" in doctor
    assert "trusted for 3 steps" in dynamics
    assert "0.200 [0.100, 0.290]" in dynamics
    assert "Beyond the upper edge at some step: ridge-linear" in dynamics
    assert "MOPO beats BC: -200 [-220, -180] against -470 [-510, -430]" in demo
    assert "The rewards permit -5 to 60" in demo


def test_missing_figures_are_stated(doctor_report, records):
    assert "No evaluation in a simulator" in Page(run_page("r", records)).text
    assert "No metrics were logged." in Page(run_page("r", [])).text
    empty = doctor_report.model_copy(update={"stats": None})
    assert "A jump." in Page(doctor_page(empty)).text


def test_one_held_out_episode_gives_no_band(dynamics_report):
    loop = dynamics_report.open_loop
    alone = loop.model_copy(update={"low": loop.error, "high": loop.error})
    text = Page(dynamics_page("toy", dynamics_report.model_copy(update={"open_loop": alone}))).text
    assert "There is no interval: too few held-out episodes." in text
    assert "ensemble (no interval)" in text
    assert "[" not in text[text.index("Median open-loop error") : text.index("Coverage along")]


def test_an_untrusted_model_is_named_first(doctor_report, comparison, records):
    text = Page(demo_page(demo_results(doctor_report, comparison, records, horizon=0))).text
    assert text.index("do not roll it out") < text.index("Scores")


def test_run_page_says_why_there_is_no_interval(records):
    evaluation = {
        "task": "toy",
        "seed": 0,
        "is_deterministic": True,
        "episode_returns": [1.0],
        "episode_lengths": [10],
        "terminated": [True],
        "return_interval": interval(1.0, n=1).to_json(),
        "score_interval": None,
        "seconds": 1.0,
    }
    text = Page(run_page("r", records, evaluation=evaluation)).text
    assert "no interval: a single value has no spread" in text


def test_text_is_escaped_and_names_of_pictures_must_differ():
    figure = draw_lines([Line("a", [0.0], [1.0])], x_label="x", y_label="y")
    picture = Picture(
        "p", "<b>title</b>", figure, alt='a "quoted" description', table=Table("t", ("a",), [("<i>",)])
    )
    text = render_page(
        "<script>alert(1)</script>", [Section("s", pictures=[picture])], messages=[Message("a < b")]
    )
    assert "<script" not in text
    assert "&lt;i&gt;" in text
    Page(text)
    with pytest.raises(ValueError, match="must differ"):
        render_page("t", [Section("s", pictures=[picture, picture])])


def test_tables_and_summaries_do_not_load_matplotlib():
    modules = (
        "run.comparison", "kit.summary", "kit.table", "run.data_tables", "run.dynamics_tables",
        "run.evaluation_tables", "study.recommendation", "study.fact_tables", "study.tables",
    )  # fmt: skip
    imports = "; ".join(f"import mbrl.report.{module}" for module in modules)
    code = f"import sys; {imports}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
