from pathlib import Path

import h5py
import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats import hdf5, limits
from mbrl.data.formats.hdf5 import open_hdf5
from mbrl.data.formats.limits import FREE_BYTES, MAX_INFLATION, ReadBudget, free_memory, reading, show_bytes


def sparse(path: Path, size: int) -> Path:
    """A file of a size that takes no room."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def test_a_budget_grows_with_the_file(tmp_path: Path):
    budget = ReadBudget(sparse(tmp_path / "x", 1000))
    budget.take(FREE_BYTES, field="a")
    with pytest.raises(DataError, match="times the size of the file") as caught:
        budget.take(1, field="b")
    assert caught.value.field == "b"


def test_what_compresses_as_logs_do_is_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "free_memory", lambda: 10**15)
    budget = ReadBudget(sparse(tmp_path / "x", FREE_BYTES))
    for _ in range(MAX_INFLATION):
        budget.take(FREE_BYTES, field="a")
    with pytest.raises(DataError, match="100 times"):
        budget.take(1, field="a")


def test_an_array_that_the_memory_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "free_memory", lambda: 2**31)
    budget = ReadBudget(sparse(tmp_path / "x", 2**32))
    with pytest.raises(DataError, match=r"takes 3.0 GiB of memory, and 2.0 GiB are free"):
        budget.take(3 * 2**30, field="a")


def test_free_memory_is_known_here():
    found = free_memory()
    assert found is not None
    assert 2**20 < found < 2**50


def test_sizes_for_people():
    assert [show_bytes(n) for n in (0, 1023, 1024, 5 * 2**30, 218 * 2**40)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "5.0 GiB", "218.0 TiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "error", [KeyError("x"), OverflowError("y"), RecursionError(), MemoryError(), PermissionError(13, "no")]
)
def test_whatever_a_parser_raises_names_the_file(error: Exception, tmp_path: Path):
    def parse() -> None:
        with reading(tmp_path / "log"):
            raise error

    with pytest.raises(DataError) as caught:
        parse()
    assert caught.value.file == tmp_path / "log"
    assert caught.value.remedy
    assert caught.value.__cause__ is error


def test_errors_of_the_user_pass(tmp_path: Path):
    problem = DataError("mine")

    def parse() -> None:
        with reading(tmp_path / "log"):
            raise problem

    with pytest.raises(DataError, match="mine") as caught:
        parse()
    assert caught.value is problem


def test_many_arrays_and_large_attributes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hdf5, "_MAX_LEAVES", 3)
    monkeypatch.setattr(hdf5, "_MAX_ATTRIBUTE", 3)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in "abcd":
            file[f"infos/{name}"] = np.zeros(2)
        file.attrs["long"] = np.zeros(4)
    with open_hdf5(tmp_path / "x.hdf5") as content:
        infos = content.subgroup("infos")
        assert infos is not None
        with pytest.raises(DataError, match="more than 3 arrays"):
            infos.numeric_leaves()
        with pytest.raises(DataError, match="too large"):
            content.attributes()
