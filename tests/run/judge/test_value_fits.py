"""Value fits of a stage that is killed: nothing that was kept is done again, and the bits are the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.core.progress import SilentProgress
from mbrl.data.dataset import Dataset
from mbrl.off_policy.value.fqe import FQEConfig, FQEResult, fit_fqe
from mbrl.run.judge import value_fits
from mbrl.run.judge.value_fits import KeptFits
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task

CONFIG = FQEConfig(hidden=(4,), updates=100, batch_size=8)
POLICY = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)


class KilledError(Exception):
    """Stands for the end of the process."""


class Killer(SilentProgress):
    """Ends the work once `after` updates are done."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, list[int]()

    def advance(self, done: int, **figures: float) -> None:
        assert np.isfinite(figures["value"])
        self.seen.append(done)
        if done > self.after:
            raise KilledError


@pytest.fixture(autouse=True)
def keep_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_fits, "SECONDS_BETWEEN", -1.0)


@pytest.fixture
def log() -> Dataset:
    return scalar_task().simulate(POLICY, 6, 4, 0)


def fit(kept: KeptFits, log: Dataset, fold: np.ndarray | None = None) -> FQEResult:
    generator = torch.Generator().manual_seed(3)
    return kept(log, POLICY, estimand=Estimand(0.9, 4), config=CONFIG, generator=generator, fold=fold)


def uninterrupted(log: Dataset, fold: np.ndarray | None = None) -> FQEResult:
    generator = torch.Generator().manual_seed(3)
    return fit_fqe(log, POLICY, estimand=Estimand(0.9, 4), config=CONFIG, generator=generator, fold=fold)


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, log: Dataset) -> None:
    with pytest.raises(KilledError):
        fit(KeptFits(tmp_path, "a", Killer(60)), log)
    watcher = Killer(1000)
    resumed, whole = fit(KeptFits(tmp_path, "a", watcher), log), uninterrupted(log)
    assert watcher.seen[0] == 62  # a look every 2 updates; the one at 62 was killed before it was kept
    np.testing.assert_array_equal(resumed.initial, whole.initial)
    np.testing.assert_array_equal(resumed.history, whole.history)
    assert (resumed.drift, resumed.clip_share) == (whole.drift, whole.clip_share)


def test_a_finished_fit_is_read_back_and_another_one_is_made(tmp_path: Path, log: Dataset) -> None:
    first = fit(KeptFits(tmp_path, "a", SilentProgress()), log)
    watcher = Killer(-1)  # dies at the first update
    again = fit(KeptFits(tmp_path, "a", watcher), log)
    assert watcher.seen == []
    np.testing.assert_array_equal(again.initial, first.initial)
    fold = np.arange(6) % 3
    across = fit(KeptFits(tmp_path, "a", SilentProgress()), log, fold)
    np.testing.assert_array_equal(across.initial, uninterrupted(log, fold).initial)
    assert not np.array_equal(across.initial, first.initial)


def test_fits_of_another_stage_are_refused_and_dropped_ones_are_gone(tmp_path: Path, log: Dataset) -> None:
    kept = KeptFits(tmp_path / "fits", "a", SilentProgress())
    fit(kept, log)
    with pytest.raises(ConfigError, match="another config"):
        fit(KeptFits(tmp_path / "fits", "b", SilentProgress()), log)
    kept.drop()
    assert not (tmp_path / "fits").exists()


def test_checkpoints_are_rare(tmp_path: Path, log: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_fits, "SECONDS_BETWEEN", 1e6)
    with pytest.raises(KilledError):
        fit(KeptFits(tmp_path, "a", Killer(60)), log)
    assert list(tmp_path.rglob("*.pt")) == []
    fit(KeptFits(tmp_path, "a", SilentProgress()), log)
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["step-000000000100.pt"]
