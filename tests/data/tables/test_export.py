from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.parquet import read_columns
from mbrl.data.tables.export import write_tables
from mbrl.data.tables.time_table import TimeTable

pytest.importorskip("pyarrow")


def table(name: str, columns: tuple[str, ...] = ("a", "b")) -> TimeTable:
    values = np.arange(6.0).reshape(3, 2)
    values[1, 1] = np.nan
    return TimeTable(name, columns, values, np.array([0.0, 0.1, 0.3]))


def test_a_file_for_each_with_time_first(tmp_path: Path):
    files = write_tables([table("/arm/joints"), table("/cmd")], tmp_path / "raw", prefix="run1")
    assert [file.name for file in files] == ["run1_arm_joints.parquet", "run1_cmd.parquet"]
    read = read_columns(files[0], purpose="a test")
    assert read.names() == ("time", "a", "b")
    assert read.require("time").tolist() == [0.0, 0.1, 0.3]
    assert np.array_equal(read.require("b"), [1, np.nan, 5], equal_nan=True)


def test_names_that_meet_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"two tables would be written as a_b\.parquet"):
        write_tables([table("/a/b"), table("/a_b")], tmp_path / "raw")
    with pytest.raises(DataError, match="a column is named time"):
        write_tables([table("/a", ("time", "b"))], tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_nothing_is_overwritten(tmp_path: Path):
    with pytest.raises(FileExistsError):
        write_tables([table("/a")], tmp_path)
