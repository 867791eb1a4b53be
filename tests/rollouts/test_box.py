import torch

from mbrl.core.types import TransitionBatch
from mbrl.rollouts.box import Box


def test_a_box_around_data_leaves_room_at_both_sides_of_observations_only():
    flags = torch.zeros(2, dtype=torch.bool)
    rows = TransitionBatch(
        observation=torch.tensor([[0.0, -1.0], [1.0, 1.0]]),
        action=torch.zeros(2, 1),
        reward=torch.tensor([-3.0, 5.0]),
        next_observation=torch.tensor([[2.0, 0.0], [1.0, 0.0]]),
        terminated=flags,
        from_model=flags,
    )
    box = Box.around(rows, margin=0.25)
    torch.testing.assert_close(box.obs_low, torch.tensor([-0.5, -1.5]))
    torch.testing.assert_close(box.obs_high, torch.tensor([2.5, 1.5]))
    assert (float(box.reward_low), float(box.reward_high)) == (-3.0, 5.0)
    assert box.varies.tolist() == [True, True, True]


def test_constants_of_the_data_are_known():
    rows = torch.tensor([[0.0, 150.0], [1.0, 150.0], [2.0, 150.0]])
    flags = torch.zeros(3, dtype=torch.bool)
    box = Box.around(TransitionBatch(rows, torch.zeros(3, 1), torch.ones(3), rows, flags, flags))
    assert box.varies.tolist() == [True, False, False]
