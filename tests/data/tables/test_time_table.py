import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.tables.time_table import TimeTable


def test_a_column_is_found_by_its_name():
    table = TimeTable("/joints", ("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 0.5]))
    assert len(table) == 2
    assert table.column("b").tolist() == [2.0, 4.0]
    with pytest.raises(KeyError):
        table.column("c")
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 7.0


@pytest.mark.parametrize(
    ("columns", "stamps", "words"),
    [
        (("a",), [0.0, 1.0], r"\(2, 2\) for 2 stamps and 1 columns"),
        (("a", "b"), [0.0], "1 stamps"),
        (("a", "a"), [0.0, 1.0], "'a' is there twice"),
        (("a", "b"), [1.0, 0.0], "backwards"),
        (("a", "b"), [0.0, np.nan], "backwards"),
    ],
)
def test_what_does_not_fit_together_is_refused(columns: tuple[str, ...], stamps: list[float], words: str):
    with pytest.raises(DataError, match=words):
        TimeTable("/joints", columns, np.ones((2, 2)), np.array(stamps))
