import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.splits import cut, episode_folds, halves, split_blocks, split_episodes
from tests.data.logs import SPEC, make_episode


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(lengths: list[int]) -> Dataset:
    """Episodes of distinct returns; observation = 1000 * episode + step."""
    episodes: list[Episode] = []
    for index, steps in enumerate(lengths):
        count = 1000 * index + np.arange(steps + 1, dtype=np.float32)
        base = make_episode(index, steps, terminated=index % 2 == 1, log_prob=True, times=True, infos=True)
        episodes.append(dataclasses.replace(base, observations=np.stack([count, -count], axis=1)))
    return Dataset(episodes=tuple(episodes), spec=SPEC, info=DatasetInfo(name="toy"))


def first_dim(data: Dataset) -> set[float]:
    return set(data.transitions().observation[:, 0].tolist())


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=10, max_size=80), st.integers(0, 10**6), st.sampled_from([0.1, 0.3])
)
def test_no_episode_on_both_sides(lengths: list[int], seed: int, fraction: float):
    data = make(lengths)
    split = split_episodes(data, fraction=fraction, generator=seeded(seed))
    sides = [{id(episode) for episode in part.episodes} for part in (split.train, split.holdout)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {id(episode) for episode in data.episodes}
    held = split.holdout
    assert 1 <= len(held) <= max(5, round(fraction * len(data)))
    assert held.num_transitions <= max(0.2, fraction) * data.num_transitions
    assert not split.is_by_block


def test_sizes_of_the_holdout():
    assert len(split_episodes(make([10] * 100), generator=seeded()).holdout) == 10
    assert len(split_episodes(make([10] * 30), generator=seeded()).holdout) == 5
    # Five of ten episodes would be half of the rows; the cap of 20 % wins.
    assert len(split_episodes(make([10] * 10), generator=seeded()).holdout) == 2


def test_cap_on_rows_spares_long_episodes():
    split = split_episodes(make([1000] + [10] * 20), generator=seeded(3))
    assert split.holdout.episode_lengths.max() == 10
    assert len(split.holdout) >= 4


def test_every_stratum_of_returns_is_represented():
    """Each tenth of the returns gives one of ten episodes, whatever the seed."""
    data = make([5] * 100)
    ranks = {round(value): rank for rank, value in enumerate(np.sort(data.episode_returns))}
    for seed in range(20):
        held = split_episodes(data, generator=seeded(seed)).holdout
        strata = sorted(ranks[round(value)] // 10 for value in held.episode_returns)
        assert strata == list(range(10))


def test_split_is_a_function_of_its_generator():
    data = make([7] * 40)
    hashes = [split_episodes(data, generator=seeded(seed)).holdout.content_hash for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=9),
    st.sampled_from([0, 5, 25]),
    st.integers(0, 10**6),
)
def test_blocks_are_disjoint_and_separated(lengths: list[int], gap: int, seed: int):
    data = make(lengths)
    try:
        split = split_episodes(data, generator=seeded(seed), gap=gap)
    except DataError:
        assert len(lengths) == 1
        assert lengths[0] <= 2 * (gap + 1)
        return
    train, held = first_dim(split.train), first_dim(split.holdout)
    assert train
    assert held
    assert train | held <= first_dim(data)
    assert not train & held
    if split.is_by_block:
        a, b = np.array(sorted(train)), np.array(sorted(held))
        episode_a, episode_b = a // 1000, b // 1000
        apart = np.abs(a[:, None] - b[None, :])[episode_a[:, None] == episode_b[None, :]]
        assert apart.size == 0 or apart.min() > gap
        assert len(held) <= max(1, 0.2 * data.num_transitions)
    for part in (split.train, split.holdout):
        rows = part.transitions()
        assert np.array_equal(rows.next_observation[:, 0], rows.observation[:, 0] + 1)


def test_blocks_of_a_long_episode():
    split = split_blocks(make([900, 900]), generator=seeded(), gap=10)
    assert split.is_by_block
    assert split.holdout.num_transitions == pytest.approx(0.1 * 1800, rel=0.12)
    assert split.train.num_transitions >= 1800 - 200 - 2 * 10 * len(split.holdout)
    assert len(split.holdout) == 8
    assert split.holdout.episode_lengths.min() >= 20


def test_few_short_episodes():
    """One of three equal episodes would be a third of the rows; the last part of one is held out instead."""
    split = split_episodes(make([200, 200, 200]), generator=seeded(), gap=25)
    assert split.is_by_block
    assert split.holdout.episode_lengths.tolist() == [100]
    assert sorted(split.train.episode_lengths.tolist()) == [75, 200, 200]
    whole = split_episodes(make([200, 200, 200, 30]), generator=seeded(), gap=25)
    assert not whole.is_by_block
    assert whole.holdout.episode_lengths.tolist() == [30]
    assert split_episodes(make([5, 5]), generator=seeded(), gap=25).holdout.episode_lengths.tolist() == [5]


def test_bad_arguments():
    with pytest.raises(ValueError, match="fraction"):
        split_episodes(make([5] * 10), fraction=0.6, generator=seeded())
    with pytest.raises(ValueError, match="gap"):
        split_episodes(make([5] * 10), gap=-1, generator=seeded())
    with pytest.raises(DataError, match="cannot be split"):
        split_episodes(make([20]), generator=seeded())


@given(st.lists(st.integers(2, 30), min_size=1, max_size=30), st.integers(0, 10**6))
def test_halves_are_disjoint_and_complete(lengths: list[int], seed: int):
    data = make(lengths)
    first, second = halves(data, seeded(seed), gap=3)
    assert not first_dim(first) & first_dim(second)
    assert abs(len(first) - len(second)) <= 1
    if len(lengths) > 1:
        assert first_dim(first) | first_dim(second) == first_dim(data)


def test_halves_are_alike_in_return():
    data = make([5] * 40)
    first, second = halves(data, seeded(4))
    spread = data.episode_returns.std()
    assert abs(first.episode_returns.mean() - second.episode_returns.mean()) < 0.1 * spread


def test_one_episode_is_halved_with_a_gap():
    first, second = halves(make([100]), seeded(), gap=10)
    a, b = sorted((first_dim(first), first_dim(second)), key=min)
    assert min(b) - max(a) == 11
    assert len(a) == len(b) == 45
    with pytest.raises(DataError, match="one step"):
        halves(make([1]), seeded())


def test_cut_keeps_true_successor_and_flags():
    whole = dataclasses.replace(make_episode(1, 6, terminated=True, log_prob=True, times=True, infos=True))
    piece = cut(whole, 2, 4)
    assert piece.observations[:, 0].tolist() == [102, 103, 104]
    assert piece.actions.tolist() == whole.actions[2:4].tolist()
    assert (piece.terminated, piece.truncated) == (False, True)
    assert piece.behaviour_log_prob is not None
    assert piece.timestamps is not None
    assert piece.behaviour_log_prob.tolist() == [-102, -103]
    assert piece.timestamps.tolist() == [0.04, 0.06, 0.08]
    assert piece.infos["extra"].tolist() == [4, 6]
    assert piece.infos["state"][:, 0].tolist() == [2.5, 3.5, 4.5]
    end = cut(whole, 4, 6)
    assert (end.terminated, end.truncated) == (True, False)
    unknown = make_episode(0, 6, terminated=True, is_final_observation_known=False)
    assert cut(unknown, 0, 5).is_final_observation_known
    assert not cut(unknown, 5, 6).is_final_observation_known
    for start, stop in ((2, 2), (-1, 3), (0, 7)):
        with pytest.raises(ValueError, match="steps"):
            cut(whole, start, stop)


def test_folds_are_disjoint_and_alike_in_size_and_return():
    returns = np.array([1.0, 1.0, 5.0, 9.0, 2.0, 7.0, 3.0, 8.0, 4.0, 6.0, 0.0])
    episodes = [make_episode(index, reward=float(total)) for index, total in enumerate(returns)]
    dataset = Dataset(tuple(episodes), SPEC, DatasetInfo(name="folds"))
    folds = episode_folds(dataset, 3, torch.Generator().manual_seed(0))
    assert sorted(np.bincount(folds, minlength=3)) == [3, 4, 4]
    ranked = folds[np.argsort(returns, kind="stable")]
    assert all(len(set(ranked[k : k + 3])) == 3 for k in (0, 3, 6))
    again = episode_folds(dataset, 3, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(again, folds)
    with pytest.raises(DataError, match="12 folds"):
        episode_folds(dataset, 12, torch.Generator().manual_seed(0))


def test_blocks_know_their_episode():
    data = make([400, 300, 500])
    split = split_blocks(data, generator=seeded(), gap=5)
    for part in (split.train, split.holdout):
        assert len(part) > len(data)
        assert [id(episode) for episode in part.logged_episodes] == [id(episode) for episode in data.episodes]
        rows = part.transitions()
        assert np.array_equal(rows.unit, rows.observation[:, 0].astype(int) // 1000)
        assert np.array_equal(rows.step, rows.observation[:, 0].astype(int) % 1000)
        assert len(set(rows.episode.tolist())) == len(part)
    again = cut(split.train.episodes[1], 2, 4)  # a piece of a piece
    assert again.logged is split.train.episodes[1].logged
    assert again.observations[0, 0] == 1000 * 0 + again.first_step
    assert "of an episode of 400" in repr(again)


def test_blocks_of_a_single_episode_are_all_there_is_to_resample():
    part = split_blocks(make([900]), generator=seeded(), gap=5).train
    assert len(part) > 1
    assert part.units.tolist() == list(range(len(part)))
    assert part.logged_index.tolist() == [0] * len(part)


def test_whole_episodes_are_their_own_units():
    split = split_episodes(make([20] * 30), generator=seeded())
    for part in (split.train, split.holdout):
        assert part.logged_episodes == part.episodes
        assert part.units.tolist() == part.logged_index.tolist() == list(range(len(part)))
        assert np.array_equal(part.transitions().unit, part.transitions().episode)
    whole = make([20]).episodes[0]
    assert cut(whole, 0, 20).whole is None
