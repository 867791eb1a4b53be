import json
import math

from mbrl.report.kit.summary import to_plain, write_summary
from mbrl.report.run.comparison import comparison_table, conclude


def test_both_files_hold_the_conclusions_and_the_numbers(tmp_path, comparison):
    document, markdown = write_summary(
        tmp_path / "toy",
        title="Toy",
        values={"comparison": comparison.to_json(), "gap": math.nan},
        messages=conclude(comparison),
        tables=[comparison_table(comparison)],
        figures={"Scores": "scores.png"},
        provenance={"command": "mbrl compare toy"},
    )
    values = json.loads(document.read_text())
    assert values["comparison"]["methods"][0]["interval"]["low"] == -220.0
    assert values["gap"] is None
    assert values["conclusions"][0]["text"].startswith("MOPO beats BC")
    text = markdown.read_text()
    for piece in (
        "# Toy",
        "MOPO beats BC",
        "| MOPO | -200 [-220, -180] |",
        "![Scores](scores.png)",
        "`mbrl compare toy`",
    ):
        assert piece in text


def test_plain_values_replace_what_json_has_not():
    assert to_plain({"a": (1.0, math.inf), 2: [math.nan]}) == {"a": [1.0, None], "2": [None]}
