"""Logs without rewards: legal, kept by every format that can, and refused by what needs a reward."""

from pathlib import Path

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.splits import cut
from mbrl.testing.samples import make_dataset


def without_rewards() -> Dataset:
    whole = make_dataset()
    episodes = [
        {
            "observations": episode.observations,
            "actions": episode.actions,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
        }
        for episode in whole.episodes
    ]
    return Dataset.from_episodes(
        episodes, act_low=np.array(whole.spec.act_low), act_high=np.array(whole.spec.act_high)
    )


def test_absent_rewards_are_nan_and_say_so() -> None:
    data = without_rewards()
    assert not data.has_rewards
    assert np.isnan(data.transitions().reward).all()
    assert "no rewards" in repr(data.episodes[0])
    assert not cut(data.episodes[0], 0, 1).has_rewards
    assert data.content_hash != make_dataset().content_hash


def test_flat_arrays_without_rewards() -> None:
    walk, ends = np.cumsum(np.full((300, 1), 0.1), axis=0), np.arange(300) % 100 == 99
    data = Dataset.from_arrays(walk, np.sin(walk), None, np.zeros(300), ends)
    assert (len(data), data.has_rewards) == (3, False)
    with pytest.raises(DataError, match="where the actions have 300 rows"):
        Dataset.from_arrays(walk, np.sin(walk), None, np.zeros(200), ends)


def test_a_nan_among_rewards_is_still_an_error() -> None:
    episode = make_dataset().episodes[0]
    rewards = np.full(len(episode), np.nan)
    arrays = {"observations": episode.observations, "actions": episode.actions, "truncated": True}
    with pytest.raises(DataError, match="not finite") as caught:
        Dataset.from_episodes([{**arrays, "rewards": rewards}])
    assert caught.value.field == "rewards"


def test_all_episodes_or_none() -> None:
    bare, full = without_rewards(), make_dataset()
    with pytest.raises(DataError, match="missing here or in the first"):
        Dataset(episodes=(full.episodes[0], bare.episodes[1]), spec=full.spec, info=full.info)


@pytest.mark.parametrize("name", ["npz", "minari"])
def test_formats_keep_the_absence(name: str, tmp_path: Path) -> None:
    data = without_rewards()
    read = FORMATS.get(name).read(FORMATS.get(name).write(data, tmp_path / "log"))
    assert not read.has_rewards
    assert read.content_hash == data.content_hash


def test_the_layout_of_d4rl_has_no_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The layout of D4RL needs rewards"):
        FORMATS.get("d4rl").write(without_rewards(), tmp_path / "log")


def test_an_archive_must_not_say_both(tmp_path: Path) -> None:
    path = FORMATS.get("npz").write(make_dataset(), tmp_path / "log.npz")
    arrays = dict(np.load(path))
    np.savez(tmp_path / "both.npz", **arrays, has_rewards=np.array([False]))
    with pytest.raises(DataError, match="says that it has no rewards, and holds some"):
        FORMATS.get("npz").read(tmp_path / "both.npz")


def test_inspection_tells_and_permits(tmp_path: Path) -> None:
    found = mbrl.inspect(without_rewards())
    assert any("There are no rewards" in finding.text for finding in found.findings)
    assert found.report.stats is not None
    assert found.report.stats.returns is None
    assert found.to_html(tmp_path / "page.html").stat().st_size > 0


def test_a_model_and_a_clone_need_none_and_all_else_says_so(tmp_path: Path) -> None:
    whole = mbrl.load("pendulum-mixed").select(range(8))
    episodes = [
        {"observations": e.observations, "actions": e.actions, "truncated": True} for e in whole.episodes
    ]
    data = Dataset.from_episodes(episodes, act_low=-2.0, act_high=2.0)
    settings = {"progress": False, "store": tmp_path}
    model = mbrl.fit(data, max_updates=20, hidden=[8], members=2, elites=1, **settings)
    assert model.report.reward is None
    first = data.episodes[0]
    assert np.isnan(model.predict(first.observations[0], first.actions[0]).reward)
    assert np.isnan(model.rollout(first.observations[0], first.actions[:3]).reward).all()
    assert "none in the log" in str(model.tables()[-1])
    clone = mbrl.train(data, "bc", updates=20, **settings)
    with pytest.raises(DataError, match=r"'td3_bc' needs rewards.*mbrl relabel"):
        mbrl.train(data, "td3_bc", updates=20, **settings)
    with pytest.raises(DataError, match="'bc_top10' needs rewards"):
        mbrl.train(data, "bc_top10", updates=20, **settings)
    with pytest.raises(DataError, match="Off-policy evaluation needs rewards"):
        mbrl.ope(clone, data, store=tmp_path)
