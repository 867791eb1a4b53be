import numpy as np
import pytest
import torch

from mbrl.uncertainty.density import NEIGHBOURS, DensityReference


def test_density_is_the_mean_distance_to_the_five_nearest_rows():
    rng = np.random.default_rng(0)
    data, query = rng.normal(size=(100, 3)) * [1, 5, 0.2], rng.normal(size=(6, 3))
    data[:, 2] = 4.0  # a constant dimension
    reference = DensityReference.fit(
        torch.tensor(data[:, :2], dtype=torch.float32),
        torch.tensor(data[:, 2:], dtype=torch.float32),
        generator=torch.Generator().manual_seed(0),
    )
    std = np.array([data[:, 0].std(), data[:, 1].std(), 4.0])  # a constant has the scale of its size
    distances = np.linalg.norm((query[:, None] - data[None]) / std, axis=2)
    expected = np.sort(distances, 1)[:, :5].mean(1) / np.sqrt(3)
    obs, action = torch.tensor(query[:, :2]).float(), torch.tensor(query[:, 2:]).float()
    assert reference.distance(obs, action).numpy() == pytest.approx(expected, rel=1e-4)


def test_a_large_dataset_is_thinned_but_scaled_by_all_rows():
    rows = torch.cat((torch.zeros(900, 2), torch.ones(100, 2)))
    reference = DensityReference.fit(
        rows[:, :1], rows[:, 1:], generator=torch.Generator().manual_seed(0), max_rows=50
    )
    assert reference.rows.shape == (50, 2)
    assert reference.mean.tolist() == pytest.approx([0.1, 0.1])
    assert reference.std.tolist() == pytest.approx([0.3, 0.3])
    kept = {tuple(row) for row in (reference.rows * reference.std + reference.mean).round().tolist()}
    assert kept <= {(0.0, 0.0), (1.0, 1.0)}
    assert NEIGHBOURS == 5


def test_rows_of_the_same_episode_are_no_neighbours_of_a_logged_row():
    obs = torch.arange(12.0)[:, None]
    action = torch.zeros(12, 1)
    episode = torch.tensor([0] * 6 + [1] * 6)
    reference = DensityReference.fit(
        obs, action, generator=torch.Generator().manual_seed(0), episode=episode, max_rows=12
    )
    found = reference.distance(obs, action, episode)
    # Row i of the first episode has 6 .. 10 as its nearest rows of the other: 8 - i away on average.
    expected = (8 - np.arange(6)) / obs.double().std(correction=0).item() / np.sqrt(2)
    assert found[:6].numpy() == pytest.approx(expected, rel=1e-5)
    assert float(reference.distance(obs, action)[3]) < float(found[3])  # a new row at the same place is near
    alone = DensityReference.fit(
        obs, action, generator=torch.Generator().manual_seed(0), episode=torch.zeros(12, dtype=torch.int64)
    )
    assert alone.distance(obs, action, torch.zeros(12, dtype=torch.int64)).isinf().all()
