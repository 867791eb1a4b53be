import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.types import Episode, SpaceSpec, TransitionBatch, concat


def batch(rows: range) -> TransitionBatch:
    value = torch.tensor(list(rows), dtype=torch.float32)
    return TransitionBatch(
        observation=value[:, None],
        action=-value[:, None],
        reward=10 * value,
        next_observation=value[:, None] + 1,
        terminated=value % 2 == 0,
        from_model=value > 2,
        next_action=-value[:, None] - 1,
        has_next_action=value != 1,
    )


def test_concat_keeps_the_order_and_every_field():
    joined, whole = concat([batch(range(2)), batch(range(2, 3)), batch(range(3, 6))]), batch(range(6))
    assert len(joined) == 6
    for field in dataclasses.fields(TransitionBatch):
        torch.testing.assert_close(getattr(joined, field.name), getattr(whole, field.name))


def test_what_one_batch_lacks_is_lacking_in_the_whole():
    bare = dataclasses.replace(batch(range(3)), next_action=None, has_next_action=None)
    joined = concat([batch(range(2)), bare])
    assert joined.next_action is None
    assert joined.has_next_action is None
    assert joined.reward.tolist() == [0, 10, 0, 10, 20]


def test_a_batch_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch(range(2)).reward = torch.zeros(2)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((-1.0,), (1.0, 1.0)),
        ((-1.0, 1.0), (1.0, 1.0)),
        ((0.0, 2.0), (1.0, 1.0)),
        ((0.0, float("nan")), (1.0, 1.0)),
    ],
)
def test_contradicting_bounds_are_refused(low, high):
    with pytest.raises(ValueError, match="bound"):
        SpaceSpec(3, 2, low, high)


@pytest.mark.parametrize("bound", [math.inf, -math.inf, math.nan])
def test_bounds_without_an_end_say_what_to_give(bound: float):
    for low, high in (((bound,), (1.0,)), ((-1.0,), (bound,))):
        with pytest.raises(ValueError, match=r"must be finite.*limits of the machine"):
            SpaceSpec(2, 1, low, high)


def test_an_episode_is_read_only_and_sums_in_float64():
    rewards = np.full(3, 16777216.0, dtype=np.float32)  # 2^24: adding 1 in float32 changes nothing
    rewards[1:] = 1.0
    episode = Episode(np.zeros((4, 2), np.float32), np.zeros((3, 1), np.float32), rewards, True, False)
    assert episode.episode_return == 16777218.0
    assert len(episode) == 3
    with pytest.raises(ValueError, match="read-only"):
        episode.rewards[0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        episode.observations[0] = 0.0


def test_choices_are_one_hot_inside() -> None:
    space = SpaceSpec.discrete(4, ["left", "right"])
    assert space.is_discrete
    assert (space.act_dim, space.act_low, space.act_high) == (2, (0.0, 0.0), (1.0, 1.0))
    assert SpaceSpec.discrete(4, 3).choices == ("0", "1", "2")
    assert not SpaceSpec(4, 1, (-1.0,), (1.0,)).is_discrete


@pytest.mark.parametrize("choices", [("a",), ("a", "a"), ("a", "b", "c")])
def test_choices_that_contradict_the_size_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="2 different names"):
        SpaceSpec(4, 2, (0.0, 0.0), (1.0, 1.0), choices=choices)


def test_choices_within_other_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        SpaceSpec(4, 2, (-1.0, 0.0), (1.0, 1.0), choices=("a", "b"))
