import pytest
import torch

from mbrl.learners.discrete.qr_dqn import QRDQN, QRDQNConfig
from tests.learners.discrete.chain import (
    CELLS,
    CONTEXT,
    constant_output,
    corridor_values,
    generator,
    train,
    two_rows,
)


def make(**config):
    learner = QRDQN(QRDQNConfig(**{"hidden": (16,), "discount": 0.9, "quantiles": 2, **config}), CONTEXT)
    return learner, learner.init(generator())


def test_target_and_loss_by_hand():
    """Quantiles by choice; the next choice is `stay` by the online means, its target quantiles 2 and 6."""
    learner, state = make()
    constant_output(state.policy.critic.net, [[0.0, 1.0, 4.0, 8.0, 1.0, 3.0]])
    constant_output(state.target_critic.net, [[50.0, 50.0, 2.0, 6.0, 0.0, 0.0]])
    state.optimiser._base = 0.0
    target = learner.quantile_target(state, two_rows())
    assert target.flatten().tolist() == pytest.approx([1 + 0.9 * 2, 1 + 0.9 * 6, 2.0, 2.0])
    expected = 0.0
    for quantiles, samples in (((1.0, 3.0), (2.8, 6.4)), ((0.0, 1.0), (2.0, 2.0))):
        for j, quantile in enumerate(quantiles):
            for sample in samples:
                error = sample - quantile
                size = abs(error)
                value = error * error / 2 if size <= 1 else size - 0.5
                expected += abs((j + 0.5) / 2 - (error < 0)) * value / 2 / 2  # mean over samples and rows
    metrics = learner.update(state, two_rows(), generator())
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["critic/value"]) == pytest.approx((2.0 + 0.5) / 2)


def test_of_two_critics_the_one_with_the_lesser_mean_is_the_target():
    learner, state = make(critics=2)
    constant_output(state.policy.critic.net, [[9.0, 9.0, 0.0, 0.0, 0.0, 0.0]] * 2)
    constant_output(state.target_critic.net, [[1.0, 5.0, 0, 0, 0, 0], [2.0, 3.0, 0, 0, 0, 0]])
    assert learner.quantile_target(state, two_rows())[0].tolist() == pytest.approx([1 + 1.8, 1 + 2.7])


def test_masks_hold_in_targets():
    learner, state = make()
    constant_output(state.policy.critic.net, [[0.0, 1.0, 4.0, 8.0, 1.0, 3.0]])
    constant_output(state.target_critic.net, [[0.0, 0.0, 2.0, 6.0, 1.0, 1.0]])
    mask = torch.tensor([[True, False, True]]).expand(2, -1)
    assert learner.quantile_target(state, two_rows(next_action_mask=mask))[0].tolist() == pytest.approx(
        [1.9, 1.9]
    )


def test_it_learns_the_values_of_a_corridor():
    learner, _ = make(hidden=(32, 32), learning_rate=3e-3, polyak_tau=0.05, quantiles=8)
    state = train(learner, 500)
    assert state.policy.best(CELLS).tolist() == [2, 2, 2, 2]
    torch.testing.assert_close(state.policy.preferences(CELLS), corridor_values(0.9), atol=0.08, rtol=0)
