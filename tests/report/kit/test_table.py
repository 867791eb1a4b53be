import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.report.kit.table import TERMINAL_WIDTH, Table, is_numeric, to_markdown, to_text


def test_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="another number of cells"):
        Table("t", ("a", "b"), [(1.0,)])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(1.5, True), (None, True), ("-", True), ("25.6 %", True), ("< 0.1 %", True), ("1.2e-05", True),
     (True, False), ("yes", False), ("-200 [-220, -180]", False), ("", False)],
)  # fmt: skip
def test_what_reads_as_a_number(cell, expected):
    assert is_numeric(cell) is expected


def test_markdown_sets_numbers_right_and_escapes_bars():
    text = to_markdown(Table("t", ("name", "value"), [("a|b", 1.5), ("c", None)]))
    assert text == "**t**\n\n| name | value |\n| :-- | --: |\n| a\\|b | 1.50 |\n| c | not available |\n"


def test_brackets_of_an_interval_survive_the_terminal():
    assert "-200 [-220, -180]" in to_text([Table("t", ("x",), [("-200 [-220, -180]",)])])


@given(st.lists(st.text("abc def", min_size=1, max_size=120), min_size=1, max_size=9))
def test_terminal_text_fits_and_cuts_nothing_off(cells):
    columns = [f"column {k}" for k in range(len(cells))]
    text = to_text([Table("A caption that is rather long " * 5, columns, [cells])])
    assert max(map(len, text.splitlines())) <= TERMINAL_WIDTH
    for letter in "abcdef":
        assert text.count(letter) >= "".join(cells).count(letter)
