import re

import pytest

from mbrl.report.deployment.page import deployment_page
from mbrl.report.deployment.sentences import (
    verdict_message,
)
from mbrl.report.deployment.tables import (
    candidate_table,
)
from tests.report.browser import open_page
from tests.report.deployments import alone, several, single, thin
from tests.report.run.test_pages import Page


def test_the_verdict_comes_first_and_in_plain_words():
    text = Page(deployment_page(alone())).text
    assert "GO: mopo-s0 may be deployed" in text
    assert text.index("GO: mopo-s0") < text.index("What the estimators say")
    assert "Ratio: better than behaviour, by +32 to +88." in text
    bad = Page(deployment_page(alone(gain=-90.0))).text
    assert "NO-GO: do not deploy mopo-s0." in bad
    assert verdict_message(single(gain=5.0)).tone == "plain"
    assert "no judgement of the policy" in verdict_message(single(gain=5.0)).text


def test_the_page_has_every_part():
    page = Page(deployment_page(alone()))
    parts = (
        "Estimates of its value",
        "Effective episodes",
        "Where roll-outs leave the data",
        "When it leaves the log",
        "In which states",
        "Probability of the event",
        "Distribution of the return",
        "Estimates of the behaviour's value",
        "What to collect next",
        "Segments with the most of it",
        "What is not known, and why",
    )
    for part in parts:
        assert part in page.text, part
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"(src|href)=.?https?:", deployment_page(alone()))


def test_candidates_are_ranked_and_the_proposed_one_leads():
    page = Page(deployment_page(several()))
    text = page.text
    assert "Of these candidates the one to try first: GO: mopo-s0" in text
    assert text.index("mopo-s0: what the") < text.index("bc-s0: what the")
    assert "Which is the best?" in text
    assert len(page.ids) == len(set(page.ids))
    table = candidate_table(several())
    assert [row[0] for row in table.rows] == ["bc-s0", "mopo-s0 (proposed)", "td3_bc-s0"]
    assert [row[5] for row in table.rows] == ["CANNOT TELL", "GO", "NO-GO"]
    unranked = several(ranking=None, why_no_ranking="nobody judged all")
    assert "nobody judged all" in Page(deployment_page(unranked)).text


def test_what_is_not_known_is_said():
    text = Page(deployment_page(thin())).text
    assert "CANNOT TELL" in text
    assert "the log is too small" in text
    assert "No family of estimators counts." in text
    assert "Nothing speaks of the candidate" in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone_and_a_desk(tmp_path, width, is_dark):
    page = tmp_path / "page.html"
    page.write_text(deployment_page(several()), encoding="utf-8")
    facts = open_page(page, tmp_path, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["dark"] == is_dark
    assert facts["scroll"] <= facts["width"]
    assert facts["wide"] == []
    assert facts["outside"] == []
    assert facts["drawings"] == 25
