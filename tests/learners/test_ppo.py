import copy
import math

import pytest
import torch

from mbrl.core.types import OnPolicyBatch
from mbrl.learners.ppo import PPO, PPOConfig
from tests.learners.twin import CONTEXT, generator, transitions


def make(**config):
    learner = PPO(PPOConfig(hidden=(16,), discount=0.9, **config), CONTEXT)
    return learner, learner.init(generator(0))


def steps(learner, state, advantage: list[float], *, shift: float = 0.0) -> OnPolicyBatch:
    """Steps of the present policy, or of one whose log-densities lie lower by `shift`."""
    rows = transitions(len(advantage))
    return OnPolicyBatch(
        rows.observation, rows.action, rows.reward, rows.next_observation, rows.terminated, rows.from_model,
        log_prob=state.actor.log_prob(rows.observation, rows.action).detach() - shift,
        advantage=torch.tensor(advantage),
        value=torch.zeros(len(advantage)),
    )  # fmt: skip


def test_an_update_raises_the_density_of_actions_that_were_better_than_expected():
    learner, state = make(entropy_coef=0.0, standardises_advantages=False)
    batch = steps(learner, state, [1.0, -1.0, 0.0])
    before = batch.log_prob
    for k in range(5):
        metrics = learner.update(state, batch, generator(k))
    after = state.actor.log_prob(batch.observation, batch.action)
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert float(metrics["policy/kl"]) > 0


def test_a_policy_that_has_moved_beyond_the_clip_with_its_advantages_stays_where_it_is():
    learner, state = make(entropy_coef=0.0, standardises_advantages=False)
    batch = steps(learner, state, [1.0, 2.0, 3.0], shift=math.log(1.3))
    before = copy.deepcopy(state.actor.state_dict())
    metrics = learner.update(state, batch, generator(0))
    assert all(torch.equal(before[name], value) for name, value in state.actor.state_dict().items())
    assert float(metrics["policy/clip_rate"]) == 1.0
    assert float(metrics["policy/loss"]) == pytest.approx(-1.2 * 2)


def test_the_entropy_alone_widens_a_narrow_policy():
    learner, state = make(entropy_coef=1.0)
    with torch.no_grad():
        state.actor.net.layers(state.actor.net.flat)[-1].bias[..., 1] = -2.0
    batch = steps(learner, state, [0.0] * 200)
    width = state.actor.moments(batch.observation)[1].mean().detach()
    entropies = [float(learner.update(state, batch, generator(k))["policy/entropy"]) for k in range(60)]
    assert state.actor.moments(batch.observation)[1].mean() > width
    assert sum(entropies[-5:]) > sum(entropies[:5])


def test_values_regress_old_value_plus_advantage():
    learner, state = make(value_learning_rate=0.02)
    batch = steps(learner, state, [3.0, -2.0, 0.5])
    first = learner.update(state, batch, generator(0))
    for k in range(400):
        learner.update(state, batch, generator(k))
    values = learner.value(state).value(batch.observation)
    assert values.tolist() == pytest.approx([3.0, -2.0, 0.5], abs=0.05)
    fresh = make(value_learning_rate=0.02)[1].critic(batch.observation).detach()
    assert float(first["critic/loss"]) == pytest.approx(float((fresh - batch.advantage).square().mean() / 2))


def test_steps_of_others_are_refused():
    learner, state = make()
    with pytest.raises(TypeError, match="ppo learns from an OnPolicyBatch, not from a TransitionBatch"):
        learner.update(state, transitions(4), generator(0))
