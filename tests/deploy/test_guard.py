"""The guard: rates that are known, faults that it must see, and the graph against float64."""

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.deploy.guard import Guard, GuardConfig, Whitening, _alarm_rate, fit_guard
from mbrl.deploy.steps import Steps
from mbrl.run.bundle.parity import guard_difference, run_graph
from mbrl.testing.samples import make_dataset
from tests.deploy.bundles import stacked_episode

CONFIG = GuardConfig(prototypes=1500, features=50)


def oscillators(count: int, *, stiffness: float = 1.0, seed: int = 0, steps: int = 150) -> list[Episode]:
    """Three sensors of a driven oscillator: position, speed, and twice the position with little noise."""
    rng = np.random.default_rng(seed)
    episodes: list[Episode] = []
    for _ in range(count):
        x, v = rng.normal(size=2)
        obs, actions = np.zeros((steps + 1, 3), np.float32), np.zeros((steps, 1), np.float32)
        for t in range(steps + 1):
            obs[t] = (x, v, 2 * x + 0.02 * rng.normal())
            if t < steps:
                actions[t] = u = np.clip(-0.8 * v + 0.5 * rng.normal(), -1, 1)
                v += 0.1 * (-stiffness * x + 2.0 * u) + 0.01 * rng.normal()
                x += 0.1 * v
        zero = np.zeros(steps, np.float32)
        episodes.append(Episode(obs, actions, zero, terminated=False, truncated=True))
    return episodes


def as_log(episodes: list[Episode]) -> Dataset:
    return Dataset(tuple(episodes), SpaceSpec(3, 1, (-1.0,), (1.0,)), DatasetInfo(name="oscillator"))


@pytest.fixture(scope="module")
def guard() -> Guard:
    return fit_guard(as_log(oscillators(40)), frame_dim=3, config=CONFIG)


def alarms(guard: Guard, episodes: list[Episode]) -> float:
    return float((guard.score(Steps.of(as_log(episodes))) > guard.threshold).mean())


def test_whitened_coordinates_have_unit_covariance() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 2)) @ np.array([[100.0, 20.0], [0.0, 5.0]]) + 1e3
    white = Whitening.fit(rows)(rows)
    assert white.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert np.cov(white.T) == pytest.approx(np.eye(2), abs=1e-3)


def test_a_constant_channel_is_not_stretched() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 2))
    rows[:, 1] = 7.0
    assert np.isfinite(Whitening.fit(rows).matrix).all()
    assert np.abs(Whitening.fit(rows)(rows + np.array([0.0, 1e-9]))).max() < 10


def test_new_episodes_of_the_same_machine_raise_the_asked_share_of_alarms(guard: Guard) -> None:
    assert alarms(guard, oscillators(40, seed=1)) == pytest.approx(0.01, abs=0.005)
    assert guard.rate.estimate == pytest.approx(0.01, abs=0.005)
    assert guard.rate.low < 0.01 < guard.rate.high
    assert guard.rate.groups == 40


def test_a_sensor_that_contradicts_the_others_is_seen(guard: Guard) -> None:
    odd = oscillators(5, seed=2)
    for episode in odd:
        episode.observations.setflags(write=True)
        episode.observations[:, 2] += 0.5  # each reading alone is ordinary
    assert alarms(guard, odd) > 0.95


def test_another_machine_surprises_in_ordinary_states(guard: Guard) -> None:
    steps = Steps.of(as_log(oscillators(5, stiffness=8.0, seed=3)))
    surprise = guard.surprise(steps.previous_obs, steps.previous_action, steps.obs)
    assert (surprise > guard.threshold).mean() > 0.5


def test_the_alarm_of_independent_normal_rows_is_their_quantile() -> None:
    """Parts that are |N(0, 1)| and nothing: the rate is the asked share, within its binomial error."""
    rng = np.random.default_rng(0)
    parts = np.stack((np.abs(rng.normal(size=20_000)), np.zeros(20_000)))
    rate = _alarm_rate(parts, np.arange(20_000) % 50, 0.01)
    assert rate.estimate == pytest.approx(0.01, abs=3 * (0.01 * 0.99 / 20_000) ** 0.5)
    assert rate.low < 0.01 < rate.high


def test_rates_of_groups_that_differ_have_wide_intervals() -> None:
    """All alarms in one group of twenty: whole groups are drawn again, so that the interval holds 0."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 200)
    parts = np.abs(rng.normal(size=(2, 4000))) * np.where(group == 7, 3.0, 1.0)
    rate = _alarm_rate(parts, group, 0.01)
    assert rate.low < 0.005
    assert rate.high > 1.5 * rate.estimate


def test_the_graph_is_the_guard(guard: Guard) -> None:
    pytest.importorskip("onnxruntime")
    content = guard.write(history=1).to_bytes({})
    steps = Steps.of(as_log(oscillators(3, seed=4)))
    assert guard_difference(guard, content, steps, history=1) < 1e-3


def test_the_graph_of_a_history_forecasts_the_latest_frame() -> None:
    pytest.importorskip("onnxruntime")
    log = as_log(oscillators(12))
    stacked = [stacked_episode(e.observations, e.actions, 2) for e in log.episodes]
    space = SpaceSpec(6, 1, (-1.0,), (1.0,))
    both = Dataset(tuple(stacked), space, DatasetInfo(name="stacked"))
    made = fit_guard(both, frame_dim=3, config=CONFIG)
    assert made.forecast.frame_dim == 3
    content = made.write(history=2).to_bytes({})
    steps = Steps.of(both).take(np.arange(200))
    assert guard_difference(made, content, steps, history=2) < 1e-3
    before = steps.previous_obs.reshape(200, 2, 3).astype(np.float32)
    feed = {"frames": before, "action": steps.action.astype(np.float32), "previous_frames": before,
            "previous_action": steps.previous_action.astype(np.float32)}  # fmt: skip
    ahead = run_graph(content, feed)["forecast"]
    change = made.forecast.change(steps.previous_obs, steps.previous_action) * made.forecast.unit
    assert ahead == pytest.approx(before[:, 0] + change, abs=1e-4)
    # The forecast is one of the next step, nearer to it than no change.
    error, still = (np.square(guess - steps.obs[:, :3]).mean() for guess in (ahead, before[:, 0]))
    assert error < 0.3 * still


def test_the_policy_is_asked_in_the_place_of_the_log() -> None:
    log = make_dataset(count=20)
    same = fit_guard(log, frame_dim=3, config=CONFIG, act=None)
    far = fit_guard(log, frame_dim=3, config=CONFIG, act=lambda obs: np.full((len(obs), 2), 50.0))
    assert same.policy_alarms == 0.0
    assert far.policy_alarms == 1.0
    assert far.threshold == same.threshold


def test_few_episodes_are_cut_into_blocks() -> None:
    steps = Steps.of(make_dataset(count=3, steps=60))
    assert len(np.unique(steps.group)) >= 10


def test_a_log_that_is_too_short_says_so() -> None:
    with pytest.raises(DataError, match="too few"):
        fit_guard(make_dataset(count=1, steps=12), frame_dim=3)
    with pytest.raises(DataError, match="two steps"):
        fit_guard(make_dataset(count=3, steps=1), frame_dim=3)
