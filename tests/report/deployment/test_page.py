import re
import subprocess
import sys

import pytest

from mbrl.report.deployment.page import deployment_page
from mbrl.report.deployment.sentences import (
    agreement_sentence,
    next_sentence,
    verdict_lines,
    verdict_message,
)
from mbrl.report.deployment.tables import (
    candidate_table,
    estimate_table,
    format_ends,
    missing_table,
    risk_table,
    trial_table,
    why_not_counted,
)
from mbrl.report.kit.table import to_text
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


def test_what_does_not_count_says_why():
    reasons = why_not_counted(single(support_share=0.3))
    assert reasons["fqe"].startswith("30% of the policy's actions")
    assert reasons["pdwis"] == ""
    assert "primary" in reasons["pdis"]
    assert "deterministic" in reasons["magic"]
    table = estimate_table(single(support_share=0.3))
    rows = {row[0]: row for row in table.rows}
    assert rows["pdwis"][5] == "yes"
    assert rows["fqe"][5] == ""
    assert rows["pdwis"][3] == "[+32, +88]"
    text = Page(deployment_page(alone(support_share=0.3))).text
    assert "30% of the policy's actions are ones that the log does not know" in text


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


def test_what_is_missing_for_one_reason_stands_together():
    rows = dict(reversed(row) for row in missing_table(thin().reports[0]).rows)
    assert "diagnostics.ess_t, diagnostics.effective_horizon" in rows["the log is too small"]
    assert rows["no limit was asked for"] == "risk.limit"


def test_what_is_not_known_is_said():
    text = Page(deployment_page(thin())).text
    assert "CANNOT TELL" in text
    assert "the log is too small" in text
    assert "No family of estimators counts." in text
    assert "Nothing speaks of the candidate" in text


def test_sentences():
    report = single(gain=5.0)
    assert "differ by" in agreement_sentence(report)
    assert "(1.1 where what they share is cancelled)" in agreement_sentence(report)
    sentence = next_sentence(report)
    assert sentence.startswith("Even 1,000 episodes of the candidate would not tell the difference of")
    next_data = report.next_data.model_copy(update={"episodes": 12, "is_enough": True})
    enough = report.model_copy(update={"next_data": next_data})
    assert next_sentence(enough).startswith("12 episodes of the candidate would tell the difference of")
    assert "episode 0 step 20" in next_sentence(report)
    assert next_sentence(single()).startswith("Nothing to collect")
    one = single(support_share=0.3, model_disagreement_share=0.3)
    assert "nothing confirms it" in agreement_sentence(one)
    assert format_ends((-1.0, 2.0), signed=True) == "[-1, +2]"
    assert format_ends((None, 2.0)) == format_ends(None) == ""
    assert format_ends((0.012, 0.5), shares=True) == "[1.2 %, 50.0 %]"


def test_what_to_test_next():
    whole = several()
    table = trial_table(whole)
    assert "falls from 1.80 to 0.600" in table.caption
    assert table.rows[1] == ["mopo-s0", "-235 +- 30", 4, "-229 +- 21", "95.0 %", 7]
    plan = whole.test_plan.model_dump()
    stuck = several(test_plan={**plan, "regret_then": 1.79})
    assert "hardly changes, from 1.80 to 1.79" in trial_table(stuck).caption
    settled = several(test_plan={**plan, "regret_now": 0.0, "regret_then": 0.0})
    assert trial_table(settled).caption.endswith("wrong one is 0 already")
    unknown = trial_table(several(test_plan=None, why_no_test_plan="nobody knows how they act"))
    assert unknown.caption == "What to test next: nobody knows how they act"
    assert not unknown.rows
    assert "What to test next, 10 episodes" in Page(deployment_page(several())).text


@pytest.mark.parametrize("whole", [alone(), several(), thin()], ids=["alone", "several", "thin"])
def test_tables_fit_the_terminal(whole):
    tables = [estimate_table(report) for report in whole.reports] + [candidate_table(whole)]
    tables += [risk_table(report) for report in whole.reports] + [trial_table(whole)]
    assert max(len(line) for line in to_text(tables).splitlines()) <= 100
    for report in whole.reports:
        assert len(verdict_lines(report)) >= 3


def test_the_tables_do_not_load_matplotlib():
    code = "import sys; from mbrl.report.deployment import tables; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
