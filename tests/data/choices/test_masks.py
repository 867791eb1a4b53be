"""Action masks: checked, padded, carried into batches."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec, TransitionBatch, concat
from mbrl.data.choices.masks import tidy_mask
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.sources import DatasetSource, ModelBuffer, RowLayout
from mbrl.data.splits import cut

SPACE = SpaceSpec.discrete(1, 3)


def make(*, masked: bool = True, terminated: bool = False) -> Dataset:
    """Two episodes of four steps whose masks differ from state to state."""
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]])
    if terminated:
        mask[-1] = 0
    episode = {
        "observations": np.arange(5.0)[:, None],
        "actions": np.array([0, 2, 1, 1]),
        "rewards": np.ones(4),
        "terminated": terminated,
        "truncated": not terminated,
        "infos": {"action_mask": mask} if masked else {},
    }
    bare = {**episode, "infos": {}}
    return Dataset.from_episodes([episode, bare], choices=3)


def test_masks_stand_beside_the_states_of_a_step():
    rows = make().transitions()
    assert rows.action_mask is not None
    assert rows.next_action_mask is not None
    assert rows.action_mask[:4].astype(int).tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
    assert rows.next_action_mask[3].astype(int).tolist() == [0, 1, 0]
    assert rows.action_mask[4:].all()  # an episode without masks allowed everything
    assert make(masked=False).transitions().action_mask is None


def test_an_end_may_allow_nothing_and_batches_see_all_allowed_there():
    rows = make(terminated=True).transitions()
    assert rows.next_action_mask is not None
    assert rows.next_action_mask[3].all()


def test_batches_carry_masks_through_sources_and_mixtures():
    batch = make().transitions().to_batch()
    drawn = DatasetSource(batch).sample(64, torch.Generator().manual_seed(0))
    assert drawn.action_mask is not None
    assert drawn.next_action_mask is not None
    assert batch.action_mask is not None
    for row in range(64):
        same = (batch.observation == drawn.observation[row]).all(1) & (
            batch.action_mask == drawn.action_mask[row]
        ).all(1)
        assert bool(same.any())
    assert bool((drawn.action_mask & (drawn.action > 0)).any(1).all())
    imagined = dataclasses.replace(batch, action_mask=None, next_action_mask=None)
    both = concat([batch, imagined])
    assert both.action_mask is not None
    assert bool(both.action_mask[8:].all())
    assert concat([imagined, imagined]).action_mask is None


def test_a_ring_without_masks_allows_nothing_to_be_told():
    batch: TransitionBatch = make().transitions().to_batch()
    plain, masked = ModelBuffer(8, RowLayout(1, 3)), ModelBuffer(8, RowLayout(1, 3, has_masks=True))
    for ring in (plain, masked):
        ring.push(batch)
    generator = torch.Generator().manual_seed(0)
    assert plain.sample(4, generator).action_mask is None
    assert masked.sample(4, generator).action_mask is not None


def test_masks_are_part_of_the_hash_and_follow_a_cut():
    assert make().content_hash != make(masked=False).content_hash
    piece = cut(make().episodes[0], 1, 3)
    assert piece.infos["action_mask"].astype(int).tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 1]]


def test_masks_of_the_states_acted_in_are_padded():
    padded = tidy_mask(np.array([[1, 0], [0, 1]]), steps=2)
    assert padded.tolist() == [[True, False], [False, True], [True, True]]


@pytest.mark.parametrize(
    ("row", "value", "problem"),
    [
        (1, [1, 1, 0], "the mask forbids what was done"),
        (2, [0, 0, 0], "no choice is allowed"),
        (0, [1, 1, 2], "where flags of shape"),
    ],
)
def test_masks_that_contradict_the_log_are_refused(row: int, value: list[int], problem: str):
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]])
    mask[row] = value
    episode = {**_bare(), "infos": {"action_mask": mask}}
    with pytest.raises(DataError, match=problem) as caught:
        Dataset.from_episodes([episode], choices=3)
    assert caught.value.field == "infos/action_mask"
    assert caught.value.row in {row, None}


def test_masks_tell_how_many_choices_there_are():
    episode = {**_bare(), "infos": {"action_mask": np.ones((5, 6), dtype=np.int8)}}
    data = Dataset.from_episodes([episode])
    assert data.spec.act_dim == 6
    assert "the width of the action masks" in data.info.provenance["choices"]
    with pytest.raises(DataError, match=r"where flags of shape \(5, 3\)"):
        Dataset.from_episodes([episode], choices=3)


def test_a_dataset_made_of_episodes_is_checked_too():
    data = make()
    broken = dataclasses.replace(data.episodes[0], actions=np.full((4, 3), 0.5, dtype=np.float32))
    with pytest.raises(DataError, match="none of the 3 choices"):
        Dataset((broken,), data.spec, DatasetInfo(name="x"))


def _bare() -> dict[str, object]:
    return {
        "observations": np.arange(5.0)[:, None],
        "actions": np.array([0, 2, 1, 1]),
        "rewards": np.ones(4),
        "truncated": True,
    }
