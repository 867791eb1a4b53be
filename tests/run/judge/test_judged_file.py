"""What judges said survives its file, and a file that was changed is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import FileError
from mbrl.off_policy.value.judged import JudgedValue
from mbrl.run.artifacts import save_artifact
from mbrl.run.judge.judged_file import JudgedIdentity, load_judged, save_judged

IDENTITY = JudgedIdentity(
    fits=("a", "b"), judges={"count": 2}, samples=False, horizon=7, termination="task", reward="rule"
)


def judged(shift: float) -> JudgedValue:
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(4, 3)) + shift
    if shift:
        returns[1, 2] = np.nan
    lengths = rng.integers(1, 8, (4, 3))
    return JudgedValue(returns, np.array([0, 0, 1, 1]), lengths, lengths < 7, 0.25 * shift)


def test_values_come_back_with_what_is_not_known(tmp_path: Path):
    path = tmp_path / "judged.safetensors"
    save_judged(path, [judged(0.0), judged(1.0)], identity=IDENTITY)
    found, identity = load_judged(path)
    assert identity == IDENTITY
    for value, wanted in zip(found, (judged(0.0), judged(1.0)), strict=True):
        for name in ("returns", "judge", "lengths", "terminated"):
            np.testing.assert_array_equal(getattr(value, name), getattr(wanted, name))
        assert value.clipped == wanted.clipped
    assert np.isnan(found[1].mean)
    assert not np.isnan(found[0].mean)


@pytest.mark.parametrize("change", ["missing", "type", "shape", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, change: str):
    path = tmp_path / "judged.safetensors"
    shape = (1, 2, 3)
    tensors = {
        "returns": torch.zeros(shape, dtype=torch.float64),
        "is_known": torch.ones(shape, dtype=torch.bool),
        "lengths": torch.ones(shape, dtype=torch.int64),
        "terminated": torch.ones(shape, dtype=torch.bool),
        "judge": torch.zeros(2, dtype=torch.int64),
        "clipped": torch.zeros(1, dtype=torch.float64),
    }
    header = {"judged": IDENTITY.model_dump(mode="json")}
    save_artifact(path, tensors, header, version=1)
    assert len(load_judged(path)[0]) == 1
    if change == "missing":
        del tensors["lengths"]
    elif change == "type":
        tensors["judge"] = torch.zeros(2)
    elif change == "shape":
        tensors["judge"] = torch.zeros(3, dtype=torch.int64)
    else:
        header = {"judged": {**header["judged"], "horizon": "long"}}
    save_artifact(path, tensors, header, version=1)
    with pytest.raises(FileError, match=r"judged\.safetensors"):
        load_judged(path)
