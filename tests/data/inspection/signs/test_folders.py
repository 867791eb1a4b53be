import dataclasses

import numpy as np
import pytest

from mbrl.data.inspection.signs.folders import find_copies, find_other_columns, find_unit_slips
from tests.data.inspection.records import clean, edited, only


@pytest.mark.parametrize(
    ("factor", "words", "scale"),
    [
        (57.29578, "radians and degrees", "0.0174533"),
        (1000.0, "its thousandth", "0.001"),
        (0.001, "its thousandth", "1000"),
    ],
)
def test_unit_slips_between_files(factor: float, words: str, scale: str):
    def slipped(index: int, values: np.ndarray) -> None:
        if index in {2, 6}:
            values[:, 0] *= factor

    found = only(list(find_unit_slips(edited(clean(), slipped))))
    assert found.channels == ("x",)
    assert "in run2.csv, run6.csv than elsewhere" in found.text
    assert words in found.text
    assert f"scale: {scale}," in found.remedy
    assert {place.episode for place in found.places} == {2, 6}


def test_a_livelier_run_is_no_slip():
    assert list(find_unit_slips(edited(clean(), lambda k, v: v.__imul__(50.0 if k == 2 else 1.0)))) == []


def test_columns_that_drift():
    usual = ("t", "pos_x", "vel_x", "cmd")
    record = clean()
    files = record.headers[usual]
    other = {usual: files[:-2], ("t", "position", "vel_x", "cmd"): files[-2:]}
    found = only(list(find_other_columns(dataclasses.replace(record, headers=other))))
    assert "run6.csv and 1 more have position and lack pos_x" in found.text
    assert found.severity == "warning"  # pos_x is needed
    more = {usual: files[:-1], (*usual, "lamp"): files[-1:]}
    added = only(list(find_other_columns(dataclasses.replace(record, headers=more))))
    assert (added.severity, "run7.csv has lamp" in added.text) == ("note", True)


def test_texts_and_files_that_cannot_be_read():
    record = dataclasses.replace(
        clean(), texts={"a/b.csv": {"pos_x": "(1.5-2e-3j)"}}, faults={"a/c.csv": "it lacks the columns cmd"}
    )
    texts, unread = find_other_columns(record)
    assert "pos_x hold complex numbers" in texts.text
    assert "a/c.csv is not examined: it lacks the columns cmd" in unread.text


def test_copied_stretches():
    record = clean()
    source = record.traces[1].values

    def copied(index: int, values: np.ndarray) -> None:
        if index == 5:
            values[200:260] = source[40:100]

    found = only(list(find_copies(edited(record, copied))))
    assert "60 rows are copied from other runs number by number, in run5" in found.text
    (place,) = found.places
    assert (place.episode, place.start, place.stop) == (5, pytest.approx(4.0), pytest.approx(5.18))
