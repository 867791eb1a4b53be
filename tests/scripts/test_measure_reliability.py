"""The script that writes `results/reliability`, on a few inputs of each kind."""

import re
from pathlib import Path

from tests.hostile.documents import cases
from tests.hostile.tables import Row, measure, without_places
from tests.scripts.loading import ROOT, load_script

PLACES = re.compile(r"(?<!\w)/(?:home|root|tmp|work|Users|private|var)/")


def test_tables_and_counts_are_written(tmp_path: Path):
    script = load_script("measure/reliability")
    assert script.main(["--out", str(tmp_path), "--every", "60"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "datasets.md", "policies.md", "documents.md", "runs.md"
    }  # fmt: skip
    rows = (tmp_path / "datasets.md").read_text().splitlines()[4:]
    readme = (tmp_path / "README.md").read_text()
    assert f"| [datasets](datasets.md) | {len(rows)} | {len(rows)} | 0 | 0 |" in readme
    assert all("| refused | Error: " in row for row in rows)


def test_what_did_not_end_well_is_told():
    script = load_script("measure/reliability")
    rows = [Row("a", "refused", "Error: x|y", is_sound=True), Row("b", "no remedy", "", is_sound=False)]
    text = script.summary({"policies": rows})
    assert "| [policies](policies.md) | 2 | 1 | 0 | 1 |" in text
    assert text.endswith("- b: no remedy\n")
    assert "Error: x\\|y" in script.table("policies", rows)


def test_no_place_of_the_machine_is_written(tmp_path: Path):
    text = f"tried {tmp_path}/a.npz, {ROOT}/mbrl/b.npz and {Path.home()}/c.npz"
    assert without_places(text, tmp_path) == "tried a.npz, mbrl/b.npz and ~/c.npz"
    (row,) = measure(case for case in cases() if "a dataset that there is not" in case.name)
    assert "tried nowhere.npz and mbrl/assets/datasets/nowhere.npz" in row.message
    for page in (ROOT / "results/reliability").glob("*.md"):
        assert not re.findall(r"(?<!\w)/(?:home|root|tmp|work|Users|private|var)/", page.read_text()), (
            page.name
        )
