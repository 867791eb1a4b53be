import errno
import os
import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mbrl.cli.app import app
from mbrl.core.errors import DataError
from mbrl.data.formats import output
from mbrl.data.formats.base import FORMATS
from mbrl.data.formats.output import write_file, write_folder
from mbrl.data.open import open_dataset
from tests.data.logs import make_dataset

NAMES = ("d4rl", "minari", "npz")


@pytest.fixture
def full_disk():
    """No file may grow beyond 1,000 bytes: the system itself refuses the rest of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_nothing_and_says_what_is_needed(name: str, tmp_path: Path, full_disk: None):
    path = tmp_path / "below" / "written"
    with pytest.raises(DataError, match="the disk is full") as caught:
        FORMATS.get(name).write(make_dataset((300, 300), log_prob=True), path)
    assert caught.value.file == path
    assert "bytes) are needed" in caught.value.problem
    assert "are free" in caught.value.problem
    assert caught.value.remedy is not None
    assert "Free space" in caught.value.remedy
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_some_file_systems_are_full_only_when_they_flush(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(output.os, "fsync", refuse)
    with pytest.raises(DataError, match="the disk is full"):
        FORMATS.get(name).write(make_dataset(), tmp_path / "written")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_so_in_one_paragraph(tmp_path: Path, full_disk: None):
    result = CliRunner().invoke(app, ["import", "pendulum-mixed", "--out", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: file ")
    assert "the disk is full" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_other_refusals_of_the_system_are_told_as_they_are(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written") as caught:
        write_file(tmp_path / "file" / "below", b"x")
    assert caught.value.remedy


def test_what_is_there_is_not_overwritten(tmp_path: Path):
    path = write_file(tmp_path / "x", b"first")
    with pytest.raises(FileExistsError, match="Remedy"):
        write_file(path, b"second")
    assert path.read_bytes() == b"first"
    folder = write_folder(tmp_path / "y", {"data/a": b"1", "b": b"2"})
    assert (folder / "data" / "a").read_bytes() == b"1"
    with pytest.raises(FileExistsError, match="Remedy"):
        write_folder(folder, {})


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_of_a_killed_write_is_replaced(name: str, tmp_path: Path):
    partial = tmp_path / ".x.partial"
    if name == "minari":
        partial.mkdir()
        (partial / "old").write_text("x")
    else:
        partial.write_text("x")
    data = make_dataset()
    assert open_dataset(FORMATS.get(name).write(data, tmp_path / "x")).content_hash == data.content_hash
    assert not partial.exists()
