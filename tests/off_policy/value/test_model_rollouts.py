import math

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.off_policy.value.model_rollouts import (
    SPARE_COLUMNS,
    RolloutRun,
    RolloutSums,
    rollout_noise,
    start_keys,
)
from tests.off_policy.imagined import evaluation, members, wide_box
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy


def test_a_key_is_that_of_the_content_and_equal_starts_have_keys_of_their_own():
    starts = torch.tensor([[1.0], [2.0], [1.0]])
    keys = start_keys(starts, 0)
    assert len(set(keys)) == 3
    assert start_keys(starts[[1, 0]], 0) == [keys[1], keys[0]]
    assert set(start_keys(starts, 1)).isdisjoint(keys)


def test_a_longer_rollout_begins_like_a_shorter_one():
    short, long = (rollout_noise([3, 4], 0, (steps, 5)) for steps in (4, 9))
    torch.testing.assert_close(long[:, :4], short, rtol=0, atol=0)
    assert not torch.equal(rollout_noise([3], 1, (4, 5))[0], short[0])
    many = rollout_noise(list(range(200)), 0, (20, 5))
    assert float(many.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(many.std()) == pytest.approx(1.0, abs=0.03)


def test_a_rollout_is_the_recursion_written_down():
    """Members `s' = k (0.9 s + 0.5 a / 0.9 ...) + noise` one by one, each with the same noise."""
    tasks = members(1.0, 0.8)
    policy = NoisyLinearPolicy(torch.tensor([[0.5]], dtype=torch.float64), 8.0, 0.3)
    run = RolloutRun(evaluation(*tasks), policy, Estimand(0.9, horizon=3), wide_box(1), None, 3)
    noise = rollout_noise([7, 8], 0, (4, 1 + 1 + SPARE_COLUMNS)).double()
    starts = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    found = run.roll(starts, noise, RolloutSums.zeros(3))
    for m, task in enumerate(tasks):
        for i in range(2):
            state, total = float(starts[i, 0]), 0.0
            for t in range(3):
                action = -0.5 * state + 0.3 * float(noise[i, t, 0])
                total -= 0.9**t * (state**2 + 0.1 * action**2)
                mean = task.a[0, 0] * state + task.b[0, 0] * action
                state = mean + math.sqrt(0.01) * float(noise[i, t, 1])
            assert float(found.value[m, i]) == pytest.approx(total, rel=1e-6)
    assert not found.terminated.any()


def test_what_follows_is_bounded_only_where_something_follows():
    policy = LinearPolicy(torch.tensor([[0.5]]), 8.0)
    box = wide_box(1)
    for estimand, tail, bound in (
        (Estimand(0.9, horizon=3), None, 0.0),
        (Estimand(0.9), lambda obs, action, to_go: obs[:, 0], 0.0),
        (Estimand(0.9), None, 0.9**3 * 1e9 / 0.1),
    ):
        run = RolloutRun(evaluation(*members(1.0)), policy, estimand, box, tail, 3)
        assert run.tail_bound() == pytest.approx(bound)


def test_equal_starts_have_noise_of_their_own():
    starts = torch.ones(6, 1, dtype=torch.float64)
    noise = rollout_noise(start_keys(starts, 0), 0, (2, 4))
    assert len(np.unique(noise[:, 0, 0])) == 6
