import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawEpisode, RawLog
from mbrl.data.spaces import read_bounds
from tests.data.logs import make_raw

FLOAT32_MAX = float(np.finfo(np.float32).max)


def log(
    actions: np.ndarray, *, low: float | None = None, high: float | None = None, episodes: int = 2
) -> RawLog:
    raws: tuple[RawEpisode, ...] = (dataclasses.replace(make_raw(len(actions)), actions=actions),) * episodes
    width = actions.shape[1] if actions.ndim == 2 else 1
    return RawLog(
        file=Path("log"),
        episodes=raws,
        info=DatasetInfo(name="log"),
        act_low=None if low is None else (low,) * width,
        act_high=None if high is None else (high,) * width,
    )


def load(found: RawLog, **options: object) -> Dataset:
    return assemble(found, LoadOptions.model_validate(options))


def test_a_joint_that_never_moves_is_pinned_to_its_value():
    actions = np.stack([np.linspace(-2, 3, 6), np.full(6, 150.0), np.zeros(6)], axis=1)
    data = load(log(actions))
    assert data.spec.act_low[0] == -2.0
    assert data.spec.act_high[0] == 3.0
    for dim, value in ((1, 150.0), (2, 0.0)):
        low, high = data.spec.act_low[dim], data.spec.act_high[dim]
        assert low < value < high
        assert high - low <= 2.1e-6 * max(value, 1.0)
        assert np.float32(low) < np.float32(value) < np.float32(high)
    assert data.info.provenance["pinned_actions"].startswith("dimension 1 to 150, dimension 2 to 0:")
    assert "dimension 0" in data.info.provenance["action_bounds"]


def test_a_joint_that_never_moves_keeps_bounds_that_are_given():
    data = load(log(np.full((6, 1), 0.5), low=-1.0, high=1.0))
    assert (data.spec.act_low, data.spec.act_high) == ((-1.0,), (1.0,))
    assert data.info.provenance == {}


@pytest.mark.parametrize("end", [np.inf, FLOAT32_MAX, 1e30])
def test_ends_that_bound_nothing_are_open(end: float):
    data = load(log(np.array([[-2.0], [0.0], [3.0], [1.0]]), low=-end, high=end))
    assert (data.spec.act_low, data.spec.act_high) == ((-2.0,), (3.0,))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("width", [None, 1])
def test_integers_without_bounds_are_choices(kind: type, width: int | None):
    ids = np.array([0, 2, 3, 0, 2, 3]).astype(kind)
    actions = ids if width is None else ids[:, None]
    data = load(log(actions))
    if kind is np.bool_:
        assert data.spec.choices == ("0", "1")
    else:
        assert data.spec.choices == ("0", "2", "3")
        assert data.episodes[0].actions.tolist() == np.eye(3)[[0, 1, 2, 0, 1, 2]].tolist()
        assert data.info.provenance["choices"].endswith("never taken, and no choices therefore: 1")
    if kind is not np.bool_:
        assert load(log(actions), action_low=(0.0,), action_high=(3.0,)).spec.act_high == (3.0,)


def test_integers_of_several_columns_or_many_values_are_continuous():
    """Encoder ticks and motor levels are integers too."""
    levels = np.array([[0, 2], [3, 1], [1, 1], [2, 0]])
    assert load(log(levels, low=0.0, high=3.0)).spec.act_dim == 2
    assert load(log(levels)).spec.act_high == (3.0, 2.0)
    ticks = np.arange(200)[:, None] * 7
    assert load(log(ticks)).spec.act_high == (1393.0,)


def test_images_are_said_to_be_images():
    raw = make_raw(4)
    for pictures in (np.zeros((5, 2, 16, 16)), np.zeros((5, 4, 3), np.uint8), np.zeros((5, 64, 64))):
        found = log(raw.actions, low=-1.0, high=1.0)
        found = dataclasses.replace(found, episodes=(dataclasses.replace(raw, observations=pictures),) * 2)
        with pytest.raises(DataError, match="images, which are unsupported") as caught:
            load(found)
        assert caught.value.field == "observations"
    mixed = dataclasses.replace(raw, observations=np.zeros((5, 2, 16, 16)), name="odd")
    with pytest.raises(DataError, match="images") as caught:
        load(dataclasses.replace(log(raw.actions, low=-1.0, high=1.0), episodes=(raw, raw, mixed)))
    assert caught.value.episode == "odd"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(1.0, -1.0, "empty"), (1.0, 1.0, "empty"), (np.inf, -np.inf, "empty")],
)
def test_bounds_that_leave_nothing(low: float, high: float, words: str):
    with pytest.raises(DataError, match=words) as caught:
        load(log(np.zeros((4, 1)), low=low, high=high))
    assert caught.value.file == Path("log")


def test_bounds_are_read_as_numbers():
    assert read_bounds([1, 2.5], file="f", field="low") == (1.0, 2.5)
    assert read_bounds(3, file="f", field="low", size=2) == (3.0, 3.0)
    assert read_bounds([-np.inf], file="f", field="low") == (-np.inf,)
    for bad in ("a", ["1"], [[1], [2, 3]], [None], [np.nan], [1j], [True], {"a": 1}, np.zeros(200_000)):
        with pytest.raises(DataError) as caught:
            read_bounds(bad, file="f", field="low")
        assert (caught.value.file, caught.value.field) == ("f", "low")
    with pytest.raises(DataError, match="3 bounds for 2"):
        read_bounds([1, 2, 3], file="f", field="low", size=2)


@pytest.mark.parametrize("bound", [np.inf, -np.inf, np.nan])
def test_a_space_without_finite_bounds_says_what_to_do(bound: float):
    with pytest.raises(ValueError, match="must be finite") as caught:
        SpaceSpec(2, 1, (-1.0,), (bound,))
    assert "range of the logged actions" in str(caught.value)


@pytest.mark.parametrize(("obs_dim", "act_dim"), [(0, 1), (10**9, 1), (2, 0)])
def test_sizes_that_no_task_has(obs_dim: int, act_dim: int):
    with pytest.raises(ValueError, match="between 1 and 100,000"):
        SpaceSpec(obs_dim, act_dim, (-1.0,) * act_dim, (1.0,) * act_dim)
