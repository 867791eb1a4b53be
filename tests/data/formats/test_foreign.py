"""What is recognised and cannot be read is named as what it is, with the next step."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.data.open import open_dataset


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def write_rlds(path: Path) -> None:
    path.mkdir()
    (path / "dataset_info.json").write_text("{}")
    (path / "robot-train.tfrecord-00000-of-00001").write_bytes(bytes(64))


def write_zarr(path: Path) -> None:
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')


def write_torch(path: Path) -> None:
    torch.save({"observations": torch.zeros(3)}, path)


CASES = [
    ("log.pkl", lambda path: path.write_bytes(pickle.dumps({"obs": np.zeros(3)})), "a pickle", "np.savez"),
    ("log.data", lambda path: path.write_bytes(pickle.dumps([1])), "a pickle", "np.savez"),
    ("buffer.pt", write_torch, "torch.save", "weights_only=True"),
    ("cam.mp4", lambda path: path.write_bytes(b"\0\0\0 ftypisom"), "a video", "beside it"),
    ("log.mat", lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file"), "a MATLAB file", "loadmat"),
    ("a.parquet", lambda path: path.write_bytes(b"PAR1" + bytes(64)), "a table", "SCHEMA.yaml"),
    ("a.csv", lambda path: path.write_text("t,x,u\n0,1,2\n"), "a table", "SCHEMA.yaml"),
    ("log.bag", lambda path: path.write_bytes(b"#ROSBAG V2.0\n" + bytes(64)), "a ROS bag", "mbrl topics"),
    ("log.mcap", lambda path: path.write_bytes(b"\x89MCAP0\r\n" + bytes(64)), "a ROS bag", "mbrl topics"),
    (
        "log.hdf5",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
        "git lfs pull",
    ),
    ("rlds", write_rlds, "RLDS", "is_last"),
    ("store.zarr", write_zarr, "a Zarr store", "np.savez"),
]


@pytest.mark.parametrize(("name", "write", "what", "step"), CASES, ids=[case[0] for case in CASES])
def test_it_is_named_as_what_it_is(
    tmp_path: Path, name: str, write: Callable[[Path], object], what: str, step: str
):
    write(tmp_path / name)
    with pytest.raises(DataError, match=what) as caught:
        open_dataset(tmp_path / name)
    assert caught.value.file == tmp_path / name
    assert step in str(caught.value.remedy)


def test_a_pickle_is_not_opened(tmp_path: Path):
    path, trap = tmp_path / "log.pkl", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(trap)))
    pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap works
    trap.unlink()
    with pytest.raises(DataError, match="a pickle"):
        open_dataset(path)
    assert not trap.exists()
