import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.merging.merge import merge_datasets
from mbrl.data.merging.mixture import SourceMixture
from mbrl.data.normaliser import fit_moments
from mbrl.data.open import open_dataset
from mbrl.data.relabel import relabel_dataset
from mbrl.data.sources import DatasetSource
from mbrl.data.splits import split_blocks, split_episodes
from mbrl.data.stored.gathered import GatheredRows, is_stored
from mbrl.data.stored.memory import require_memory
from mbrl.data.stored.source import StoredSource
from tests.run.toy import make_dataset

COLUMNS = [f.name for f in dataclasses.fields(make_dataset().transitions()) if f.name != "stored"]


def on_disk(log: Dataset, folder: Path) -> Dataset:
    return open_dataset(FORMATS.get("mapped").write(log, folder / "log"))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def assert_same_batches(memory: Dataset, disk: Dataset) -> None:
    """The same bits in every field of many batches."""
    sources = DatasetSource(memory.transitions().to_batch()), StoredSource(disk.steps())
    for step in range(5):
        one, two = (source.sample(200, torch.Generator().manual_seed(step)) for source in sources)
        for field in dataclasses.fields(one):
            first, second = getattr(one, field.name), getattr(two, field.name)
            assert (first is None) == (second is None), field.name
            assert first is None or torch.equal(first, second), field.name


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Dataset, Dataset]:
    log = make_dataset(12, 30)
    return log, on_disk(log, tmp_path)


def test_a_mapped_log_has_the_bits_of_the_one_in_memory(logs: tuple[Dataset, Dataset]):
    memory, disk = logs
    assert disk.content_hash == memory.content_hash
    assert disk.episode_returns.tolist() == memory.episode_returns.tolist()
    assert disk.steps().stored is not None
    assert is_stored(disk.episodes[3].observations)
    for steps in (disk.steps(), disk.transitions()):
        for name in COLUMNS:
            one, two = getattr(memory.transitions(), name), getattr(steps, name)
            assert (one is None) == (two is None), name
            assert one is None or np.array_equal(one, np.asarray(two)), name
    assert disk.transitions().stored is None


def test_batches_are_the_same(logs: tuple[Dataset, Dataset]):
    assert_same_batches(*logs)


def test_batches_of_a_split_a_selection_and_blocks_are_the_same(logs: tuple[Dataset, Dataset]):
    memory, disk = (split_episodes(log, generator=generator()) for log in logs)
    assert disk.train.content_hash == memory.train.content_hash
    assert_same_batches(memory.train, disk.train)
    # Blocks end within an episode: the file goes on behind them, and the batch must not.
    cut = [split_blocks(log.select([4, 2]), generator=generator(), gap=1).train for log in logs]
    assert len(cut[0]) > 2
    assert_same_batches(*cut)


def test_statistics_are_the_same_bits(tmp_path: Path):
    log = make_dataset(70, 1000)  # more rows than are read at once
    disk = on_disk(log, tmp_path)
    for name in ("observation", "action", "next_observation"):
        one, two = (fit_moments(getattr(rows, name)) for rows in (log.transitions(), disk.steps()))
        assert one[0].tobytes() == two[0].tobytes()
        assert one[1].tobytes() == two[1].tobytes()


def test_batches_by_weights_are_the_same(tmp_path: Path):
    log = merge_datasets([make_dataset(3, 20, seed=1), make_dataset(4, 10, seed=2)])
    disk = on_disk(log, tmp_path)
    mixtures = [SourceMixture.of(one, [1.0, 3.0]) for one in (log, disk)]
    one = DatasetSource(log.transitions().to_batch(), mixtures[0]).sample(40, generator())
    two = StoredSource(disk.steps(), mixtures[1]).sample(40, generator())
    assert torch.equal(one.reward, two.reward)
    assert torch.equal(one.next_observation, two.next_observation)


def test_other_rewards_leave_the_states_on_disk(logs: tuple[Dataset, Dataset]):
    memory, disk = (relabel_dataset(log, reward="-obs_0**2") for log in logs)
    assert disk.steps().stored is not None
    assert_same_batches(memory, disk)


def test_a_column_reads_like_an_array(logs: tuple[Dataset, Dataset]):
    memory, disk = logs[0].transitions(), logs[1].steps()
    for name in ("observation", "next_action"):
        array, column = getattr(memory, name), getattr(disk, name)
        assert isinstance(column, GatheredRows)
        assert (column.shape, column.dtype, len(column), column.nbytes) == (
            array.shape, array.dtype, len(array), array.nbytes,
        )  # fmt: skip
        rows = np.array([7, 0, 359])
        mask = np.arange(len(array)) % 7 == 0
        for index in (5, slice(20, 50), slice(None), rows, mask, (slice(None), 1), (rows, 0), (slice(3), 1)):
            assert np.array_equal(column[index], array[index]), index
        assert np.array_equal(np.asarray(column[:, :2]), array[:, :2])
        assert np.asarray(column, dtype=np.float64).dtype == np.float64


def test_several_files_at_once_are_loaded(tmp_path: Path):
    parts = [on_disk(make_dataset(3, 10, seed=seed), tmp_path / str(seed)) for seed in (1, 2)]
    merged = merge_datasets(parts)
    assert merged.steps().stored is None
    again = on_disk(merged, tmp_path)
    assert again.steps().stored is not None
    assert again.content_hash == merged.content_hash


def test_what_does_not_fit_is_refused_with_its_size(
    logs: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
):
    disk = logs[1]
    assert len(StoredSource(disk.steps())) == 360
    monkeypatch.setattr("mbrl.data.stored.memory.free_memory", lambda: 2000)
    with pytest.raises(DataError, match=r"360 steps takes .* KiB of memory at once, and 2.0 KiB are free"):
        disk.transitions()
    assert len(StoredSource(disk.steps()).sample(8, generator())) == 8  # row by row it still goes
    require_memory(1799, "A little")


def test_masks_and_steps_in_memory_are_no_stored_source():
    with pytest.raises(ValueError, match="on disk"):
        StoredSource(make_dataset().transitions())
