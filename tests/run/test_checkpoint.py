import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.errors import ConfigError, StorageError
from mbrl.run import checkpoint
from mbrl.run.checkpoint import CheckpointFolder, non_finite_names
from tests.run.toy import assert_same

CONTENT: dict[str, Any] = {"w": torch.arange(6.0).view(2, 3), "n": 3, "nested": {"0": [1.5, "x", None]}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, "h").save(7, CONTENT)
    found = CheckpointFolder(tmp_path, "h").load_latest(pytest.fail)
    assert found is not None
    assert found[0] == 7
    assert_same(found[1], CONTENT)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "absent", "h").load_latest(pytest.fail) is None


def test_only_the_newest_are_kept_in_numeric_order(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "h", keep=2)
    for step in (5, 900, 1000):
        folder.save(step, {"step": step})
    assert [path.name for path in folder.files()] == ["step-000000000900.pt", "step-000000001000.pt"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path, "h")
    folder.save(1, {"x": torch.ones(100)})
    path = folder.save(2, {"x": torch.zeros(100)})
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"truncate": data[:-10], "flip": data, "empty": b""}[damage])
    warnings: list[str] = []
    found = folder.load_latest(warnings.append)
    assert found is not None
    assert found[0] == 1
    assert bool((found[1]["x"] == 1).all())
    assert len(warnings) == 1
    assert str(path) in warnings[0]


def seal(folder: Path, step: int, data: bytes) -> Path:
    """A file with the right magic word and digest, whatever it holds."""
    path = folder / f"step-{step:012d}.pt"
    path.write_bytes(b"MBRLCKPT" + hashlib.blake2b(data, digest_size=16).digest() + data)
    return path


def packed(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def fields(**changes: Any) -> dict[str, Any]:
    return {"format_version": 1, "config_hash": "h", "step": 2, "content": {"x": 1}, **changes}


def deflated(data: bytes) -> bytes:
    """The same archive, compressed: a few bytes that stand for many."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


SEALED: dict[str, bytes] = {
    "no archive": b"hello",
    "an old format of torch": packed(fields(), _use_new_zipfile_serialization=False),
    "a list": packed([1, 2]),
    "no fields": packed({}),
    "no content": packed({k: v for k, v in fields().items() if k != "content"}),
    "a step in words": packed(fields(step="2")),
    "another step": packed(fields(step=3)),
    "a negative step": packed(fields(step=-1)),
    "a true version": packed(fields(format_version=True)),
    "a list of hashes": packed(fields(config_hash=["h"])),
    "a tensor as content": packed(fields(content=torch.ones(3))),
    "a NaN": packed(fields(content={"learner": {"w": torch.tensor([float("nan")])}})),
    "zeros that inflate": deflated(packed(fields(content={"x": torch.zeros(1_000_000)}))),
}


@pytest.mark.parametrize("kind", SEALED)
def test_a_sealed_file_that_is_no_checkpoint_falls_back(tmp_path: Path, kind: str) -> None:
    folder = CheckpointFolder(tmp_path, "h")
    folder.save(1, {"x": "old"})
    path = seal(tmp_path, 2, SEALED[kind])
    warnings: list[str] = []
    assert folder.load_latest(warnings.append) == (1, {"x": "old"})
    assert len(warnings) == 1
    assert f"Checkpoint {path} cannot be used" in warnings[0]


def test_what_the_caller_cannot_load_falls_back(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "h", keep=3)
    folder.save(1, {"size": 3})
    folder.save(2, {"other": 3})
    folder.save(3, {"size": 4})
    warnings: list[str] = []

    def accept(content: Any) -> None:
        torch.ones(content["size"]) + torch.ones(3)

    assert folder.load_latest(warnings.append, accept=accept) == (1, {"size": 3})
    assert len(warnings) == 2
    warnings.clear()
    assert folder.load_latest(warnings.append, accept=lambda content: content["none"]) is None
    assert "starting from the beginning" in warnings[-1]


def test_another_config_is_refused(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, "h").save(1, {})
    with pytest.raises(ConfigError, match="another config"):
        CheckpointFolder(tmp_path, "other").load_latest(pytest.fail)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    CheckpointFolder(tmp_path, "h").save(1, {})
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="format version 99"):
        CheckpointFolder(tmp_path, "h").load_latest(pytest.fail)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = CheckpointFolder(tmp_path, "h")
    folder.save(1, {"evil": Evil()})
    warnings: list[str] = []
    assert folder.load_latest(warnings.append) is None
    assert "it holds more than tensors and plain values" in warnings[0]
    assert not (tmp_path / "ran").exists()


def test_a_crash_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, "h")
    folder.save(1, {"x": 1})

    def crash(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(
        StorageError, match=r"step-000000000002\.pt cannot be written: no space left, [0-9,]+ bytes"
    ):
        folder.save(2, {"x": 2})
    monkeypatch.undo()
    found = folder.load_latest(pytest.fail)
    assert found is not None
    assert found[1] == {"x": 1}


def test_non_finite_tensors_are_named() -> None:
    state = {"a": torch.ones(2), "b": {"c": [torch.tensor([1.0, float("nan")])]}, "d": torch.tensor(2)}
    assert list(non_finite_names(state)) == ["b.c.0"]
