import copy

from mbrl.report.run.selection_sections import (
    selection_lines,
    selection_section,
    selection_table,
    selection_warnings,
)

JUDGED = {"member_spread": 12.0, "by_judge": [100.0, 90.0]}
SELECTION = {
    "rule": "judge",
    "chosen": 0,
    "contestants": [
        {
            "changes": {"updates": 500},
            "path": "a",
            "low": 80.0,
            "point": 95.0,
            "problem": None,
            "judged": JUDGED,
        },
        {
            "changes": {"updates": 1000},
            "path": "b",
            "low": None,
            "point": None,
            "problem": "it broke",
            "judged": JUDGED,
        },
    ],
    "honest": {"mean": 88.0, "low": 70.0, "high": 106.0},
    "facts": {
        "question": "mean return",
        "horizon": 1000,
        "horizon_source": "the time limit that the log states",
        "starts": 50,
        "held_out_starts": 20,
        "draws": "mean",
        "backtest": {"words": "Judged by mean predictions."},
        "termination": "task",
        "warnings": ["Judge 0 had not settled."],
        "judges": [{"members": 5}, {"members": 5}],
    },
}
EXPLOITATION = {"own": [95.0, 400.0], "warnings": ["It exploits that model."]}


def test_what_was_asked_taken_and_is_worth_stands_in_words():
    text = "\n".join(selection_lines(SELECTION))
    assert "1,000 steps are the time limit that the log states" in text
    assert "50 logged first states (20 of held-out episodes)" in text
    assert "the task's rule" in text
    assert "Taken: updates 500" in text
    assert "88 [70, 106]" in text
    assert "Judged by mean predictions." in text


def test_warnings_name_judges_models_and_an_untrustworthy_pick():
    assert selection_warnings(SELECTION, EXPLOITATION) == [
        "Judge 0 had not settled.",
        "It exploits that model.",
    ]
    broken = copy.deepcopy(SELECTION)
    broken["chosen"] = 1
    assert any("it broke" in text for text in selection_warnings(broken, None))


def test_the_table_marks_the_pick_and_shows_the_own_model():
    table = selection_table(SELECTION, EXPLOITATION)
    assert list(table.columns)[:3] == ["updates", "estimate", "lower bound"]
    assert [row[-1] for row in table.rows] == ["taken", ""]
    assert [row[-2] for row in table.rows] == [95.0, 400.0]


def test_the_section_draws_the_band_and_a_last_policy_says_so():
    section = selection_section(SELECTION, EXPLOITATION)
    assert [picture.name for picture in section.pictures] == ["selection"]
    assert "Judged return" in section.pictures[0].alt
    assert "last update" in selection_section(None).text
