"""Trainings on logs that stay on disk have the bits of those on the same log in memory."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import mbrl
from mbrl.core.errors import DataError
from tests.run.toy import TINY_DYNAMICS, assert_same, make_dataset

SMALL: dict[str, Any] = {"updates": 12, "learner": {"hidden": [8], "batch_size": 16}, "progress": False}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mbrl.save(make_dataset(), tmp_path_factory.mktemp("logs") / "log", to="mapped")


@pytest.mark.parametrize("changes", [{}, {"policy_data": "train"}, {"best_fraction": 0.5}])
def test_a_training_has_the_same_policy(mapped: Path, tmp_path: Path, changes: dict[str, Any]):
    runs = [
        mbrl.train(log, "iql", store=tmp_path / name, dynamics=TINY_DYNAMICS, **SMALL, **changes)
        for name, log in (("disk", mapped), ("memory", make_dataset()))
    ]
    assert runs[0].path.name == runs[1].path.name
    tensors = [load_file(run.path / "policy.safetensors") for run in runs]
    assert_same(tensors[0], tensors[1])


def test_a_fit_loads_the_log_and_is_the_same(mapped: Path, tmp_path: Path):
    fits = [
        mbrl.fit(log, TINY_DYNAMICS, store=tmp_path / name, progress=False)
        for name, log in (("disk", mapped), ("memory", make_dataset()))
    ]
    assert_same(*(load_file(fit.path / "dynamics.safetensors") for fit in fits))


def test_what_loads_the_log_is_refused_where_it_does_not_fit(
    mapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mbrl.data.stored.memory.free_memory", lambda: 2000)
    with pytest.raises(DataError, match="360 steps takes"):
        mbrl.fit(mapped, TINY_DYNAMICS, store=tmp_path, progress=False)
    mbrl.train(mapped, "bc", store=tmp_path, dynamics=TINY_DYNAMICS, diagnostics=False, **SMALL)
