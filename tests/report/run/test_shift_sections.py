from typing import Any

from mbrl.report.kit.html import render_page
from mbrl.report.run.shift_sections import shift_section, shift_table
from mbrl.shift.report import ShiftReport
from tests.report.run.test_pages import Page

ROWS: list[dict[str, Any]] = [
    {"step": 10 * k, "shift/out_of_support_share": 0.01 * k, "shift/value_gap": float(k)} for k in range(1, 4)
]
REPORT = ShiftReport(
    step=30,
    updates=30,
    out_of_support_share=0.3,
    value_gap=3.0,
    why_not={"knn_share": "nobody knows"},
).to_json()


def test_the_section_shows_alarms_figures_and_reasons() -> None:
    section = shift_section({"run": ROWS}, {"run": REPORT})
    assert [message.tone for message in section.messages] == ["caution"]
    assert "30% of the policy's actions" in section.messages[0].text
    assert [picture.name for picture in section.pictures] == ["shift-support", "shift-values"]
    assert "ends at 0.03" in section.pictures[0].alt
    text = Page(render_page("p", [section])).text
    assert "30.0 %" in text
    assert "nobody knows" in text


def test_several_runs_are_told_apart() -> None:
    quiet = ShiftReport(step=3, updates=3, knn_share=0.02).to_json()
    section = shift_section({"a": ROWS, "b": []}, {"a": REPORT, "b": quiet, "c": None})
    assert section.messages[0].text.startswith("a: ")
    table = shift_table({"a": REPORT, "b": quiet})
    assert ["actions far from any logged row", "not available", "2.0 %", "1 %"] in table.rows
    assert len(table.rows) == 3


def test_without_alarms_and_without_figures_the_section_says_so() -> None:
    quiet = ShiftReport(step=3, updates=3, knn_share=0.02).to_json()
    assert [m.tone for m in shift_section({"r": []}, {"r": quiet}).messages] == ["good"]
    nothing = ShiftReport(step=3, updates=3, why_not={"knn_share": "too few rows"}).to_json()
    section = shift_section({"r": []}, {"r": nothing})
    assert [m.tone for m in section.messages] == ["plain"]
    assert "Nothing was measured" in shift_section({"r": []}, {"r": None}).text


def test_a_single_look_is_no_curve() -> None:
    assert shift_section({"r": ROWS[:1]}, {"r": REPORT}).pictures == []
