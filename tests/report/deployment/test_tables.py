import subprocess
import sys

import pytest

from mbrl.report.deployment.page import deployment_page
from mbrl.report.deployment.sentences import (
    verdict_lines,
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
from tests.report.deployments import alone, several, single, thin
from tests.report.run.test_pages import Page


def test_what_does_not_count_says_why():
    reasons = why_not_counted(single(support_share=0.3))
    assert reasons["fqe"].startswith("30% of the policy's actions")
    assert reasons["pdwis"] == ""
    assert "primary" in reasons["pdis"]
    assert "deterministic" in reasons["magic"]
    table = estimate_table(single(support_share=0.3))
    rows = {row[0]: row for row in table.rows}
    assert rows["pdwis"][6] == "yes"
    assert rows["fqe"][6] == ""
    assert table.columns[5:] == ("tail", "counts")
    assert rows["pdwis"][3] == "[+32, +88]"
    text = Page(deployment_page(alone(support_share=0.3))).text
    assert "30% of the policy's actions are ones that the log does not know" in text


def test_what_is_missing_for_one_reason_stands_together():
    rows = dict(reversed(row) for row in missing_table(thin().reports[0]).rows)
    assert "diagnostics.ess_t, diagnostics.effective_horizon" in rows["the log is too small"]
    assert rows["no limit was asked for"] == "risk.limit"


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


def test_intervals_as_text():
    assert format_ends((-1.0, 2.0), signed=True) == "[-1, +2]"
    assert format_ends((None, 2.0)) == format_ends(None) == ""
    assert format_ends((0.012, 0.5), shares=True) == "[1.2 %, 50.0 %]"
