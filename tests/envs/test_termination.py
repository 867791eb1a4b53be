import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import collect
from mbrl.envs.make import make_env
from mbrl.envs.specs import TerminationRule, list_tasks, load_task
from mbrl.envs.termination import KnownTermination
from mbrl.run.collect import find_policy

CLASSIC = ("acrobot", "cartpole", "mountain_car")
MUJOCO = [name for name in list_tasks() if name not in {"pendulum", *CLASSIC}]


def is_terminal(rule: TerminationRule, next_obs: object) -> list[float]:
    rows = torch.atleast_2d(torch.as_tensor(next_obs, dtype=torch.float64))
    return KnownTermination(rule)(rows, rows[:, :1], rows).tolist()


def known_rule(name: str) -> TerminationRule:
    rule = load_task(name).termination
    assert rule is not None
    return rule


class Frozen:
    """A simulator whose step moves nothing: its flag is a function of the state that was set."""

    def __init__(self, name: str) -> None:
        self.env: Any = make_env(load_task(name))
        self.env.reset(seed=0)
        self.inner: Any = self.env.unwrapped
        self.inner.do_simulation = lambda action, frames: None
        self.qpos, self.qvel = self.inner.data.qpos.copy(), self.inner.data.qvel.copy() * 0.0

    def step(self, qpos: dict[int, float], qvel: dict[int, float] | None = None) -> tuple[Any, bool]:
        """Observation and flag of the state with these entries, written past the physics."""
        self.inner.set_state(self.qpos, self.qvel)
        for index, value in qpos.items():
            self.inner.data.qpos[index] = value
        for index, value in (qvel or {}).items():
            self.inner.data.qvel[index] = value
        obs, _, terminated, _, _ = self.inner.step(np.zeros(self.inner.action_space.shape, np.float32))
        return obs, bool(terminated)


def around(bound: float) -> list[tuple[float, str]]:
    return [
        (math.nextafter(bound, -math.inf), "below"),
        (bound, "at"),
        (math.nextafter(bound, math.inf), "above"),
        (bound - 0.05, "well below"),
        (bound + 0.05, "well above"),
    ]


@pytest.mark.parametrize(
    ("name", "index", "bound"),
    [
        ("hopper", 1, 0.7),
        ("hopper", 2, -0.2),
        ("hopper", 2, 0.2),
        *[("hopper", index, bound) for index in (3, 4, 5) for bound in (-100.0, 100.0)],
        ("walker2d", 1, 0.8),
        ("walker2d", 1, 2.0),
        ("walker2d", 2, -1.0),
        ("walker2d", 2, 1.0),
        ("ant", 2, 0.2),
        ("ant", 2, 1.0),
        ("inverted_pendulum", 1, -0.2),
        ("inverted_pendulum", 1, 0.2),
    ],
)
def test_a_rule_is_the_simulator_on_both_sides_of_every_bound(name: str, index: int, bound: float) -> None:
    simulator, rule = Frozen(name), known_rule(name)
    flags: set[bool] = set()
    for value, where in around(bound):
        obs, flag = simulator.step({index: value})
        assert is_terminal(rule, obs) == [float(flag)], (value, where)
        flags.add(flag)
    assert flags == {True, False}


def test_the_double_pendulum_falls_when_its_tip_does() -> None:
    simulator, rule = Frozen("inverted_double_pendulum"), known_rule("inverted_double_pendulum")
    flags: list[bool] = []
    for first in np.linspace(-0.8, 0.8, 21):
        for second in np.linspace(-1.6, 1.6, 21):
            simulator.inner.set_state(np.array([0.0, first, second]), simulator.qvel)
            obs, _, terminated, _, _ = simulator.inner.step(np.zeros(1, np.float32))
            assert is_terminal(rule, obs) == [float(terminated)], (first, second)
            flags.append(bool(terminated))
    assert 0.2 < np.mean(flags) < 0.8


@pytest.mark.parametrize("name", list_tasks())
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_terminal_in_every_dimension(name: str, value: float) -> None:
    task = load_task(name)
    env = make_env(task)
    rows = torch.as_tensor(env.reset(seed=0)[0], dtype=torch.float32).repeat(task.obs_dim + 1, 1)
    env.close()
    rows[:-1].fill_diagonal_(value)
    flags = KnownTermination(known_rule(name))(rows, rows[:, :1], rows)
    assert flags.tolist() == [1.0] * task.obs_dim + [0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "indices"),
    [("hopper", range(1, 6)), ("walker2d", (1, 2)), ("ant", range(2, 15)), ("inverted_pendulum", (0, 1))],
)
def test_the_simulator_agrees_on_what_is_not_finite(name: str, indices: range, value: float) -> None:
    simulator = Frozen(name)
    assert all(simulator.step({index: value})[1] for index in indices)


def test_hopper_dies_of_minus_500_as_of_plus_500() -> None:
    # A widely copied form of the rule, abs(s < 100), lets -500 live.
    alive = torch.tensor([1.25] + [0.0] * 10)
    rows = alive.repeat(21, 1)
    for row, (dim, value) in enumerate((dim, value) for dim in range(1, 11) for value in (-500.0, 500.0)):
        rows[row, dim] = value
    assert is_terminal(known_rule("hopper"), rows) == [1.0] * 20 + [0.0]
    simulator = Frozen("hopper")
    assert all(simulator.step({index: value})[1] for index in (2, 3, 4, 5) for value in (-500.0, 500.0))
    assert all(simulator.step({}, {index: value})[1] for index in range(6) for value in (-500.0, 500.0))


@pytest.mark.parametrize("name", MUJOCO)
def test_a_rule_is_the_simulator_along_random_episodes(name: str) -> None:
    task, rule = load_task(name), known_rule(name)
    env = make_env(task)
    draws = np.random.default_rng(0)
    for episode in range(3):
        env.reset(seed=episode)
        for _ in range(60):
            obs, _, terminated, _, _ = env.step(draws.uniform(task.act_low, task.act_high).astype(np.float32))
            assert is_terminal(rule, np.float32(obs)) == [float(terminated)]
            if terminated:
                break
    env.close()


@given(value=st.floats(-3, 3, width=32), limit=st.floats(0.125, 2, width=32), is_inclusive=st.booleans())
def test_strictness_decides_at_the_bound_and_nowhere_else(
    value: float, limit: float, is_inclusive: bool
) -> None:
    by_limit = TerminationRule.model_validate({"abs_below": {"limit": limit}, "is_inclusive": is_inclusive})
    by_bounds = TerminationRule.model_validate({"bounds": {0: [-limit, limit]}, "is_inclusive": is_inclusive})
    by_power = TerminationRule.model_validate(
        {
            "polynomials": [{"terms": [{"coefficient": 1, "dims": [0, 0]}], "bound": [None, limit**2]}],
            "is_inclusive": is_inclusive,
        }
    )
    alive = abs(value) <= limit if is_inclusive else abs(value) < limit
    for rule in (by_limit, by_bounds, by_power):
        assert is_terminal(rule, [value]) == [float(not alive)]


def test_the_limit_starts_at_its_first_dimension() -> None:
    rule = TerminationRule.model_validate({"abs_below": {"limit": 1, "from_dim": 1}})
    assert is_terminal(rule, [[9, 0, 0], [0, 9, 0], [0, 0, -9]]) == [0.0, 1.0, 1.0]


def test_a_rule_is_a_termination_function_in_the_type_of_its_input() -> None:
    rule = KnownTermination(TerminationRule())
    assert isinstance(rule, TerminationFn)
    assert rule(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2, 3)).dtype == torch.float32


@pytest.mark.parametrize("name", CLASSIC)
@pytest.mark.parametrize("policy", ["random", "expert"])
def test_rules_of_classic_control_end_episodes_where_the_simulator_does(name: str, policy: str) -> None:
    """Along whole episodes: alive until the last successor, terminal unless a limit cut it."""
    task = load_task(name)
    steps = 1200
    logged = collect(task, find_policy(policy, task), rng=RngStreams(0), steps=steps)
    ends = 0
    for episode in logged:
        found = is_terminal(known_rule(name), episode.observations[1:].copy())
        assert found == [0.0] * (len(episode) - 1) + [float(episode.terminated)]
        ends += episode.terminated
    assert ends > 0 or (name, policy) in {
        ("acrobot", "random"),
        ("mountain_car", "random"),
        ("cartpole", "expert"),
    }
