import math

import pytest
import torch

from mbrl.learners.discrete.sac import DiscreteSAC, DiscreteSACConfig
from tests.learners.discrete.chain import CELLS, CONTEXT, constant_output, generator, train, two_rows


def make(**config):
    learner = DiscreteSAC(DiscreteSACConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


PROBS = [1 / 8, 2 / 8, 5 / 8]
ENTROPY = -sum(p * math.log(p) for p in PROBS)


def prepared(**config):
    learner, state = make(**config)
    constant_output(state.actor.net, [[0.0, math.log(2.0), math.log(5.0)]])
    constant_output(state.target_critic.net, [[8.0, 4.0, 1.0], [9.0, 3.0, 2.0]])
    constant_output(state.critic.net, [[2.0, 4.0, 1.0], [3.0, 3.0, 2.0]])
    return learner, state


@pytest.mark.parametrize("has_entropy", [True, False])
def test_the_target_is_an_exact_expectation(has_entropy: bool):
    learner, state = prepared(has_entropy_backup=has_entropy)
    value = PROBS[0] * 8.0 + PROBS[1] * 3.0 + PROBS[2] * 1.0 + (0.5 * ENTROPY if has_entropy else 0.0)
    found = learner.critic_target(state, two_rows(), torch.tensor(0.5))
    assert found.tolist() == pytest.approx([1 + 0.9 * value, 2.0])


def test_masks_hold_in_the_target():
    learner, state = prepared(has_entropy_backup=False)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = learner.critic_target(state, two_rows(next_action_mask=mask), torch.tensor(0.5))
    assert found.tolist() == pytest.approx([1 + 0.9 * (8.0 / 3 + 3.0 * 2 / 3), 2.0])


def test_the_loss_of_the_policy_and_its_gradient_by_hand():
    learner, state = prepared()
    loss, spread = learner.policy_loss(state, two_rows(), torch.tensor(0.5))
    value = PROBS[0] * 2.0 + PROBS[1] * 3.0 + PROBS[2] * 1.0
    assert float(loss.detach()) == pytest.approx(-value - 0.5 * ENTROPY)
    assert spread.tolist() == pytest.approx([ENTROPY, ENTROPY])
    loss.backward()
    # d/dlogit_a = p_a [(alpha log p_a - Q_a) - sum_b p_b (alpha log p_b - Q_b)], summed over rows / rows
    parts = [0.5 * math.log(p) - q for p, q in zip(PROBS, (2.0, 3.0, 1.0), strict=True)]
    mean = sum(p * part for p, part in zip(PROBS, parts, strict=True))
    expected = [p * (part - mean) for p, part in zip(PROBS, parts, strict=True)]
    net = state.actor.net
    assert net.flat.grad is not None
    assert net.layers(net.flat.grad)[-1].bias.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("share", "rises"), [(0.5, False), (0.98, True)])
def test_the_temperature_follows_the_share_of_what_is_allowed(share: float, rises: bool):
    learner, state = prepared(target_entropy_share=share, actor_learning_rate=1e-9)
    before = float(state.log_entropy_coef.detach())
    learner.update(state, two_rows(), generator())
    assert (float(state.log_entropy_coef.detach()) > before) == rises  # H is 0.82 of log 3


def test_the_temperature_is_capped_and_can_be_fixed():
    learner, state = prepared(target_entropy_share=1.0, entropy_coef=0.5, max_entropy_coef=0.5)
    learner.update(state, two_rows(), generator())
    assert float(state.log_entropy_coef.detach().exp()) == pytest.approx(0.5)
    learner, state = prepared(entropy_coef_learning_rate=0.0)
    learner.update(state, two_rows(), generator())
    assert float(state.log_entropy_coef.detach()) == 0.0
    with pytest.raises(ValueError, match="starts above max_entropy_coef"):
        DiscreteSACConfig(entropy_coef=2.0, max_entropy_coef=1.0)


def test_it_learns_a_corridor():
    learner, _ = make(
        hidden=(32, 32), entropy_coef=0.02, entropy_coef_learning_rate=0.0, actor_learning_rate=3e-3,
        critic_learning_rate=3e-3, polyak_tau=0.05,
    )  # fmt: skip
    state = train(learner, 400)
    assert state.actor.best(CELLS).tolist() == [2, 2, 2, 2]
