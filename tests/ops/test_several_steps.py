import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.types import TransitionBatch
from mbrl.ops.several_steps import sum_steps


def rows(lengths: list[int], ends: list[bool]) -> tuple[TransitionBatch, torch.Tensor]:
    """Row k observes k and earns 10^k-like rewards that tell sums apart."""
    count = sum(lengths)
    index = torch.arange(count, dtype=torch.float32)
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    terminated = torch.zeros(count, dtype=torch.bool)
    for last, is_end in zip(torch.tensor(lengths).cumsum(0) - 1, ends, strict=True):
        terminated[last] = is_end
    batch = TransitionBatch(
        observation=index[:, None],
        action=torch.eye(2)[(index % 2).long()],
        reward=index + 1,
        next_observation=index[:, None] + 1,
        terminated=terminated,
        from_model=torch.zeros(count, dtype=torch.bool),
        next_action=torch.eye(2)[((index + 1) % 2).long()],
        has_next_action=torch.ones(count, dtype=torch.bool),
        action_mask=torch.ones(count, 2, dtype=torch.bool),
        next_action_mask=(index[:, None] + torch.arange(2)) % 2 == 0,
    )
    return batch, episode


def test_sums_by_hand_an_end_ends_them_and_a_cut_drops_the_row():
    batch, episode = rows([4, 3], [False, True])
    found = sum_steps(batch, episode, steps=2, discount=0.5)
    # The last row of the first episode was cut: it has no second step. The last of the second one ended.
    assert found.observation[:, 0].tolist() == [0, 1, 2, 4, 5, 6]
    assert found.reward.tolist() == [1 + 1.0, 2 + 1.5, 3 + 2.0, 5 + 3.0, 6 + 3.5, 7]
    assert found.next_observation[:, 0].tolist() == [2, 3, 4, 6, 7, 7]
    assert found.terminated.tolist() == [False, False, False, False, True, True]
    assert torch.equal(found.action, batch.action[[0, 1, 2, 4, 5, 6]])
    assert found.next_action_mask is not None
    assert batch.next_action_mask is not None
    assert torch.equal(found.next_action_mask, batch.next_action_mask[[1, 2, 3, 5, 6, 6]])


def test_one_step_changes_nothing():
    batch, episode = rows([3], [True])
    assert sum_steps(batch, episode, steps=1, discount=0.9) is batch


def test_all_rows_against_a_loop():
    batch, episode = rows([5, 1, 7, 2], [True, True, False, False])
    found = sum_steps(batch, episode, steps=3, discount=0.9)
    expected: list[tuple[float, float, float, bool]] = []
    for t in range(len(batch)):
        total, k = 0.0, 0
        while True:
            total += 0.9**k * float(batch.reward[t + k])
            last, k = t + k, k + 1
            ended = bool(batch.terminated[last])
            cut = last + 1 == len(batch) or episode[last + 1] != episode[t]
            if ended or k == 3 or cut:
                break
        if ended or k == 3:
            expected.append((t, total, float(batch.next_observation[last, 0]), ended))
    assert found.observation[:, 0].tolist() == [row[0] for row in expected]
    assert found.reward.tolist() == pytest.approx([row[1] for row in expected])
    assert found.next_observation[:, 0].tolist() == [row[2] for row in expected]
    assert found.terminated.tolist() == [row[3] for row in expected]


def test_a_log_without_so_many_steps_is_refused():
    batch, episode = rows([2, 2], [False, False])
    with pytest.raises(DataError, match="no step of the log has 3 steps after it"):
        sum_steps(batch, episode, steps=3, discount=0.9)
