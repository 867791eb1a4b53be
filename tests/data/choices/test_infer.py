"""Which choices a log has, and how ids, labels and one-hot rows become one-hot vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.options import LoadOptions

STEPS, EPISODES = 20, 6
IDS = np.random.default_rng(0).choice([0, 1, 3], STEPS * EPISODES)
IDS[:3] = [0, 1, 3]


def make(actions: Any, **given: Any) -> Dataset:
    """A walk that the action pushes, six episodes of twenty rows."""
    rng = np.random.default_rng(1)
    count = STEPS * EPISODES
    observations = np.cumsum(rng.normal(size=(count + 1, 2)), axis=0)
    ends = np.arange(count) % STEPS == STEPS - 1
    return Dataset.from_arrays(
        observations[:-1],
        actions,
        observations[:-1, 0],
        np.zeros(count),
        ends,
        next_observations=np.where(ends[:, None], observations[:-1] + 0.5, observations[1:]),
        **given,
    )


def chosen(data: Dataset) -> list[str]:
    """The name of what was chosen in each row."""
    assert data.spec.choices is not None
    action = data.transitions().action
    assert set(np.unique(action).tolist()) <= {0.0, 1.0}
    assert action.dtype == np.float32
    assert (action.sum(1) == 1).all()
    return [data.spec.choices[index] for index in action.argmax(1)]


def test_ids_that_were_seen_are_the_choices_and_keep_their_names():
    data = make(IDS)
    assert data.spec.choices == ("0", "1", "3")
    assert chosen(data) == [str(value) for value in IDS]
    assert "never taken, and no choices therefore: 2" in data.info.provenance["choices"]


@pytest.mark.parametrize("form", ["ids", "column", "labels", "bytes", "one-hot", "one-hot ints", "float ids"])
def test_a_stated_vocabulary_wins_over_what_was_seen(form: str):
    names = ("a", "b", "c", "d")
    forms = {
        "ids": IDS,
        "column": IDS[:, None].astype(np.uint8),
        "labels": np.array(names)[IDS],
        "bytes": np.array([name.encode() for name in names])[IDS],
        "one-hot": np.eye(4)[IDS],
        "one-hot ints": np.eye(4, dtype=int)[IDS],
        "float ids": IDS.astype(np.float32),
    }
    data = make(forms[form], choices=names)
    assert data.spec.choices == data.act_names == names
    assert chosen(data) == [names[index] for index in IDS]
    assert data.spec.act_high == (1.0,) * 4


def test_labels_without_a_vocabulary_are_choices():
    data = make(np.array(["stay", "go", "-", "turn"], dtype=object)[IDS])
    assert data.spec.choices == ("go", "stay", "turn")
    assert chosen(data)[:3] == ["stay", "go", "turn"]


def test_several_integers_are_one_choice():
    pairs = np.stack([IDS % 2, IDS // 2], axis=1)
    data = make(pairs, choices=(2, 3))
    assert data.spec.act_dim == 6
    assert chosen(data) == [f"{i},{j}" for i, j in pairs.tolist()]


def test_numbers_that_name_choices_are_their_ids():
    assert chosen(make(IDS, choices=["3", "1", "0"])) == [str(value) for value in IDS]


@pytest.mark.parametrize(
    ("actions", "choices", "row", "shown"),
    [
        (IDS, 3, 2, "3 is none of the 3 choices"),
        (np.array(["a", "b", "?", "d"])[IDS], ["a", "b", "?"], 2, "'d' is none of the 3 choices"),
        (IDS + 0.5, 4, 0, "0.5 is none of the 4 choices"),
        (np.eye(4)[IDS] * np.where(np.arange(120) == 7, 2, 1)[:, None], 4, 7, "is none of the 4 choices"),
        (np.stack([IDS, IDS], axis=1), (4, 3), 2, r"\[3, 3\] is none of the 12 choices"),
    ],
)
def test_what_is_no_choice_is_named_with_its_row(
    actions: Any, choices: int | Sequence[str], row: int, shown: str
):
    with pytest.raises(DataError, match=shown) as caught:
        make(actions, choices=choices)
    assert (caught.value.field, caught.value.row) == ("actions", row)
    assert "State the choices" in str(caught.value)


def test_bad_episodes_with_unknown_choices_can_be_dropped():
    odd = IDS.copy()
    odd[STEPS + 3] = 9
    data = make(odd, choices=4, options=LoadOptions(bad_episodes="drop"))
    assert len(data) == EPISODES - 1
    assert data.dropped == {"episodes dropped: bad actions": 1}


def test_integers_with_bounds_stay_a_continuous_command():
    data = make(IDS, act_low=0.0, act_high=3.0)
    assert not data.spec.is_discrete
    assert data.transitions().action.max() == 3.0
    options = LoadOptions(action_low=(0.0,), action_high=(5.0,))
    assert make(IDS, options=options).spec.act_high == (5.0,)


def test_bounds_and_choices_contradict_each_other():
    with pytest.raises(ValueError, match="bounds or are choices"):
        LoadOptions(choices=3, action_low=(0.0,), action_high=(1.0,))


def test_probabilities_of_choices_have_logarithms_below_0():
    assert (
        make(IDS, behaviour_log_prob=np.full(len(IDS), np.log(0.25))).episodes[0].behaviour_log_prob
        is not None
    )
    with pytest.raises(DataError, match="logarithm of more than 1") as caught:
        make(IDS, behaviour_log_prob=np.full(len(IDS), 0.3))
    assert caught.value.field == "behaviour_log_prob"


@pytest.mark.parametrize("to", ["minari", "npz", "flat_npz", "d4rl"])
@pytest.mark.parametrize(
    ("actions", "choices"),
    [
        (IDS, None),
        (IDS, 4),
        (IDS, ("a", "b", "c", "d")),
        (np.stack([IDS % 2, IDS // 2], axis=1), (2, 2)),
        (IDS - 1, ("-1", "0", "1", "2")),
    ],
)
def test_every_format_keeps_choices(tmp_path: Path, to: str, actions: Any, choices: Any):
    data = make(actions, choices=choices)
    suffix = {"minari": "", "d4rl": ".hdf5"}.get(to, ".npz")
    back = mbrl.load(mbrl.save(data, tmp_path / f"log{suffix}", to=to))
    assert back.spec.choices == data.spec.choices
    assert back.content_hash == data.content_hash


def test_the_hash_knows_the_names():
    assert make(IDS, choices=4).content_hash != make(IDS, choices=("a", "b", "c", "d")).content_hash


def test_a_grid_world_opens_without_options(tmp_path: Path):
    """States and actions are ids: what people save of a grid world."""
    rng = np.random.default_rng(0)
    position, rows = 0, list[tuple[float, ...]]()
    for step in range(200):
        action = int(rng.integers(4))
        after = min(max(position + (1, -1, 5, -5)[action], 0), 24)
        rows.append((position, action, float(after == 24), after, step % 20 == 19))
        position = 0 if step % 20 == 19 else after
    states, actions, rewards, following, ends = np.array(rows).T
    np.savez(
        tmp_path / "grid.npz",
        observations=states[:, None],
        actions=actions.astype(int),
        rewards=rewards,
        next_observations=following[:, None],
        terminals=np.zeros(200, bool),
        timeouts=ends,
    )
    data = mbrl.load(tmp_path / "grid.npz")
    assert data.spec.choices == ("0", "1", "2", "3")
    assert len(data) == 10


def test_past_choices_of_a_history_are_one_hot():
    data = mbrl.with_history(make(IDS, choices=4), 2)
    assert data.obs_names[-4:] == ("0_lag1", "1_lag1", "2_lag1", "3_lag1")
    episode = data.episodes[0]
    assert episode.observations[0, -4:].tolist() == [0.0] * 4  # nothing was chosen before the start
    assert episode.observations[1:, -4:].tolist() == episode.actions.tolist()


def test_one_hot_states_have_no_order_to_be_checked():
    rng = np.random.default_rng(0)
    cells = rng.integers(40, size=601)  # nothing follows from anything, as in a table that is seldom visited
    states = np.eye(40)[cells]
    ends = np.arange(600) % 100 == 99
    data = Dataset.from_arrays(states[:-1], rng.integers(3, size=600), np.zeros(600), np.zeros(600), ends)
    assert data.spec.act_dim == 3
