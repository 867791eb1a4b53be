import json
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.errors import DataError
from mbrl.preferences.files import (
    append_answer,
    content_digest,
    read_preferences,
    write_preferences,
)
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment

HASH = "0123456789abcdef"
SET = PreferenceSet(
    HASH,
    (
        Preference(Segment(0, 3, 5), Segment(1, 0, 7), "left", None, "anna", 1.5),
        Preference(Segment(2, 0, 5), Segment(1, 2, 5), "equal", 0.5),
        Preference(Segment(2, 1, 5), Segment(1, 2, 5), "skip", None, "bo"),
    ),
)
ROW: dict[str, Any] = {
    "dataset": HASH,
    "left_episode": 0,
    "left_start": 0,
    "left_length": 5,
    "right_episode": 1,
    "right_start": 0,
    "right_length": 5,
    "label": "left",
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_answers_survive_a_file(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = write_preferences(SET, tmp_path / f"answers{suffix}")
    again = read_preferences(path)
    assert again == SET
    assert content_digest(again) == content_digest(SET)
    with pytest.raises(FileExistsError):
        write_preferences(SET, path)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_what_is_optional_may_be_left_out_and_rankings_become_pairs(tmp_path: Path) -> None:
    ranking = {"dataset": HASH, "ranking": [[[0, 0, 5]], [[1, 0, 5], [2, 0, 5]]], "annotator": "cy"}
    found = read_preferences(write(tmp_path / "a.jsonl", ROW, "", ranking))
    assert [answer.label for answer in found.answers] == ["left", "left", "left", "equal"]
    assert found.annotators() == ("", "cy")


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({**ROW, "label": "both"}, "label", "both"),
        ({**ROW, "left_start": "3"}, "left_start", "integer"),
        ({**ROW, "left_start": -1}, "left_start", "-1"),
        ({**ROW, "probability": 1.5}, "probability", "1.5"),
        ({**ROW, "probability": 0.2}, "probability", "contradicts"),
        ({**ROW, "colour": "red"}, "colour", "not permitted"),
        ({k: v for k, v in ROW.items() if k != "label"}, "label", "missing"),
        ({**ROW, "dataset": "fedcba9876543210"}, "dataset", "another log"),
        ({"dataset": HASH, "ranking": [[[0, 0, 5], [0, 0, 5]]]}, "ranking", "twice"),
        ({"dataset": HASH, "ranking": [[]]}, "ranking.0", "1"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(tmp_path: Path, row: object, field: str, words: str) -> None:
    path = write(tmp_path / "a.jsonl", ROW, row)
    with pytest.raises(DataError, match="Remedy") as error:
        read_preferences(path)
    assert (error.value.file, error.value.row, error.value.field) == (path, 2, field)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "no file of answers"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "{\n", "row 1: the line is not JSON"),
        ("a.parquet", "PAR1 and nothing else", "a.parquet"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_preferences(path)


def test_answers_are_added_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for answer in SET.answers:
        append_answer(path, HASH, answer)
    assert read_preferences(path) == SET
    path.write_text(path.read_text().rstrip("\n"))  # an editor dropped the last line break
    append_answer(path, HASH, SET.answers[0])
    assert len(read_preferences(path)) == 4
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(DataError, match="JSON lines"):
        append_answer(tmp_path / "a.parquet", HASH, SET.answers[0])
