import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbrl.core.errors import ConfigError, NonFiniteError
from mbrl.core.rng import RngStreams
from mbrl.envs.stepping import EpisodeRecord, run_episodes


class Countdown(gymnasium.Env[Any, Any]):
    """Lives for as long as its seed says; an even number of steps ends in a truncation."""

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.left = self.length = lengths[seed % len(lengths)]
        self.buffer = np.array([seed % 1000, self.left], dtype=np.float64)
        return self.buffer, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        self.buffer[1] = self.left  # a simulator may hand out the same memory again
        is_over = self.left == 0
        is_odd = self.length % 2 == 1
        return self.buffer, float(action[0]), is_over and is_odd, is_over and not is_odd, {"left": self.left}


lengths: Sequence[int] = (1, 7, 4, 12, 3)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Row-wise arithmetic only: rows do not depend on the batch."""

    act_dim: int = 1

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mean = obs.sum(dim=-1, keepdim=True)
        return mean if noise is None else mean + noise


def run(num_envs: int, seed: int = 0, **budget: Any) -> list[EpisodeRecord]:
    envs = [Countdown() for _ in range(num_envs)]
    options: dict[str, Any] = {"is_deterministic": False} | budget
    return list(run_episodes(envs, Sum(), rng=RngStreams(seed), **options))


def are_equal(one: list[EpisodeRecord], other: list[EpisodeRecord]) -> bool:
    fields = ("observations", "actions", "rewards")
    return len(one) == len(other) and all(
        all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)
        and (a.index, a.terminated, a.truncated) == (b.index, b.terminated, b.truncated)
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(num_envs=st.integers(1, 9), steps=st.integers(1, 60), seed=st.integers(0, 5))
def test_steps_are_met_exactly_whatever_the_number_of_simulators(
    num_envs: int, steps: int, seed: int
) -> None:
    records = run(num_envs, seed, steps=steps)
    assert sum(map(len, records)) == steps
    assert are_equal(records, run(1, seed, steps=steps))


@settings(max_examples=40, deadline=None)
@given(num_envs=st.integers(1, 9), episodes=st.integers(1, 12))
def test_episodes_come_in_order_whatever_the_number_of_simulators(num_envs: int, episodes: int) -> None:
    records = run(num_envs, episodes=episodes)
    assert [record.index for record in records] == list(range(episodes))
    assert are_equal(records, run(1, episodes=episodes))


def test_an_episode_is_what_the_simulator_did() -> None:
    streams = RngStreams(3)
    for record in run(4, 3, episodes=6):
        seed = streams.integer("reset", record.index)
        length = lengths[seed % len(lengths)]
        assert len(record) == length
        assert record.observations[:, 1].tolist() == list(range(length, -1, -1))
        assert (record.terminated, record.truncated) == (length % 2 == 1, length % 2 == 0)
        noise = torch.randn(256, 1, generator=streams.at("noise", record.index))[:length, 0].numpy()
        np.testing.assert_array_equal(record.actions[:, 0], record.observations[:-1].sum(axis=1) + noise)
        np.testing.assert_array_equal(record.rewards, record.actions[:, 0])


def test_a_short_run_is_the_beginning_of_a_long_one() -> None:
    whole, cut = run(3, steps=60), run(5, steps=20)
    assert are_equal(cut[:-1], whole[: len(cut) - 1])
    last = cut[-1]
    np.testing.assert_array_equal(last.observations, whole[last.index].observations[: len(last) + 1])


def test_a_cut_is_a_truncation_and_an_end_at_the_budget_is_not() -> None:
    total = list(itertools.accumulate(len(record) for record in run(1, episodes=5)))
    for record_count, steps in enumerate(total, start=1):
        end = run(2, steps=steps)[-1]
        whole = run(1, episodes=record_count)[-1]
        assert (end.terminated, end.truncated) == (whole.terminated, whole.truncated)
        if len(whole) > 1:
            cut = run(2, steps=steps - 1)[-1]
            assert (cut.terminated, cut.truncated) == (False, True)
            assert len(cut) == len(whole) - 1


def test_a_simulator_without_an_end_stops_at_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "lengths", (10**9,))
    records = run(4, steps=600, is_deterministic=True)
    assert [len(record) for record in records] == [600]
    assert records[0].truncated


def test_noise_goes_on_beyond_its_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "lengths", (600,))
    record = run(1, episodes=1)[0]
    generator = RngStreams(0).at("noise", 0)
    noise = torch.cat([torch.randn(256, 1, generator=generator) for _ in range(3)])[:600, 0].numpy()
    np.testing.assert_array_equal(record.actions[:, 0], record.observations[:-1].sum(axis=1) + noise)


def test_asked_infos_are_kept_by_step() -> None:
    for record in run(2, steps=20, info_keys=("left",)):
        assert record.infos["left"].tolist() == record.observations[1:, 1].tolist()


def test_the_hook_sees_every_reset_and_step() -> None:
    seen: list[tuple[int, int]] = []
    records = run(3, episodes=4, on_step=lambda index, env: seen.append((index, env.unwrapped.left)))  # type: ignore[attr-defined]
    for record in records:
        assert [left for index, left in seen if index == record.index] == list(range(len(record), -1, -1))


def test_a_policy_may_reuse_its_output() -> None:
    class Reusing(Sum):
        memory = torch.zeros(2, 1)

        def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
            return self.memory[: len(obs)].copy_(super().act(obs, noise))

    envs = [Countdown(), Countdown()]
    records = list(run_episodes(envs, Reusing(), rng=RngStreams(0), is_deterministic=False, episodes=4))
    assert are_equal(records, run(2, episodes=4))


@pytest.mark.parametrize("budget", [{}, {"steps": 0}, {"episodes": -1}, {"steps": 5, "episodes": 5}])
def test_exactly_one_positive_budget_is_needed(budget: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="positive number of episodes or of steps"):
        run(1, **budget)


def test_an_action_that_is_no_number_is_named() -> None:
    class Broken(Sum):
        def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
            return super().act(obs, noise).where(obs[:, 1:] > 3, torch.nan)

    run_broken = run_episodes([Countdown()], Broken(), rng=RngStreams(0), is_deterministic=True, steps=50)
    with pytest.raises(
        NonFiniteError, match=r"action \[nan\] in episode \d+ at step \d+, for the observation"
    ):
        list(run_broken)
