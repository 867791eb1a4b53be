"""Files that are no logs: each is refused with its name, place and remedy, and nothing else happens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mbrl
from mbrl.core.errors import DataError, MbrlError
from mbrl.data.importing.guess.write import guess_files

SCHEMA: dict[str, Any] = {
    "name": "demo",
    "time": {"column": "t"},
    "observations": ["x"],
    "actions": ["u"],
}
HEAD = "t,x,u\n"
ROWS = "".join(f"{k},{k * 0.5},{k % 3}\n" for k in range(20))


@pytest.mark.parametrize(
    ("content", "words", "row"),
    [
        (b"", "the file is empty", 1),
        (b"\n\n", "there is no header", 1),
        (HEAD.encode(), "there are no rows|Empty CSV", None),
        (bytes(range(256)) * 40, "not text in utf-8|but bytes", None),
        (b"PK\x03\x04" + bytes(2000), "but bytes|not text", None),
        (b"\xff\xfe" + HEAD.encode("utf-16-le"), "not text in utf-8|but bytes", None),
        ((HEAD + ROWS + "1,2\n").encode(), "too many or too few", 22),
        ((HEAD + ROWS + "1,2,3,4\n").encode(), "too many or too few", 22),
        ((HEAD + ROWS + "20,abc,3\n").encode(), "is no number.*abc", 22),
        ((HEAD + ROWS + "20,(1+2j),3\n").encode(), "is no number", 22),
        ((HEAD + ROWS + "20,nan,3\n").encode(), "the value nan is none", 22),
        ((HEAD + ROWS + "20,inf,3\n").encode(), "the value inf is none", 22),
        ((HEAD + ROWS + "20,-Infinity,3\n").encode(), "is none|is no number", 22),
        ((HEAD + ROWS + "5,1,3\n").encode(), "time goes from 19 s to 5 s", 22),
        ((HEAD + ROWS + "19,1,3\n").encode(), "time goes from 19 s to 19 s", 22),
        ((HEAD + ROWS + "nan,1,3\n").encode(), "no time stamp", 22),
        ((HEAD + "a,1,3\nb,2,3\nc,3,4\n").encode(), "'a' is no time stamp", 2),
        (("t,x,x\n" + ROWS).encode(), "two columns are called 'x'", None),
        (("t,x," + "u" * 100_000 + "\n" + ROWS).encode(), "a column name of 100,000 characters", None),
        ((",".join(f"c{k}" for k in range(30_000)) + "\n").encode(), "30,000 columns", None),
        ((HEAD + "0,1,2\n").encode(), "long enough for a step", None),
        ((HEAD + "0,1e300,2\n1,2,3\n2,3,4\n").encode(), "not finite in float32|varies by", None),
    ],
)
def test_the_error_names_file_and_row(content: bytes, words: str, row: int | None, tmp_path: Path):
    file = tmp_path / "log.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        mbrl.import_log(SCHEMA, file)
    assert len(str(caught.value)) < 3000
    assert caught.value.remedy
    if row is not None:
        assert caught.value.row == row
        assert caught.value.file == file


def test_parquet_that_is_none(tmp_path: Path):
    file = tmp_path / "log.parquet"
    for content in (b"", b"PAR1" + bytes(100), bytes(range(256)) * 20):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"log\.parquet"):
            mbrl.import_log(SCHEMA, file)


def test_paths_that_are_none(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        mbrl.import_log(SCHEMA, tmp_path / "x.csv")
    with pytest.raises(DataError, match="no file in it matches"):
        mbrl.import_log(SCHEMA | {"files": "*.csv"}, tmp_path)
    with pytest.raises(DataError, match="no files were given"):
        mbrl.import_log(SCHEMA, [])
    with pytest.raises(DataError, match="no file ends with"):
        mbrl.guess_schema(tmp_path)


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_no_bytes_reach_an_internal_error(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    file = tmp_path_factory.mktemp("hostile") / "log.csv"
    for text in (content, HEAD.encode() + content, (HEAD + ROWS).encode() + content):
        file.write_bytes(text)
        for attempt in (lambda: mbrl.import_log(SCHEMA, file), lambda: guess_files([file])):
            try:
                attempt()
            except MbrlError as error:
                assert str(error)  # noqa: PT017 - the error is the result


@settings(max_examples=60)
@given(st.text(alphabet="t,x;u\t\n01.-eE \"'#|", max_size=200))
def test_no_text_of_csv_letters_reaches_an_internal_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
):
    file = tmp_path_factory.mktemp("hostile") / "log.csv"
    file.write_text(text, encoding="utf-8")
    for attempt in (lambda: mbrl.import_log(SCHEMA, file), lambda: guess_files([file])):
        try:
            attempt()
        except MbrlError as error:
            assert str(error)  # noqa: PT017 - the error is the result


def test_names_of_columns_cannot_write_yaml(tmp_path: Path):
    evil = 'x" } # \\ : - {b: 1} \u2028 !!python/object'
    file = tmp_path / "log.csv"
    rows = "".join(f"{k / 10},{np.sin(k)},{k % 3}\n" for k in range(50))
    file.write_text(f"t,{evil},u\n{rows}".replace('"', "'"), encoding="utf-8")
    guess = mbrl.guess_schema(file).guess
    assert evil.replace('"', "'") in [channel.column for channel in guess.schema.observations]
    assert mbrl.import_log(guess.schema, file).log.num_transitions == 48  # its velocity takes a step
