import pytest
import torch

from mbrl.core.protocols import CriticValues, ValueFn
from mbrl.core.rng import RngStreams
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.bc import BC, BCConfig
from mbrl.learners.reward_units import RETURN_METRICS, StandardisedRewards
from mbrl.nets.normaliser import Normaliser
from mbrl.testing.samples import CHOICES, make_batch
from tests.run.toy import SPACE, assert_same


def build(name: str):
    entry = LEARNERS.get(name)
    config = entry.Config.model_validate({"hidden": (8, 8)})
    return entry(config, LearnerContext(space_of(config), Normaliser.identity(3), 10))


def space_of(config):
    return CHOICES if config.acts_on_choices else SPACE


def batch_for(learner):
    return make_batch(learner.config.batch_kind, space_of(learner.config))


def trained(learner, batch, updates: int = 3):
    state = learner.init(RngStreams(0).at("init"))
    metrics = [learner.update(state, batch, RngStreams(0).at("update", step)) for step in range(updates)]
    return state, metrics[-1]


@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_learner_in_a_unit_is_the_learner_on_rewards_in_that_unit(name):
    """Bit for bit: the same state, the same losses; values and metrics of values times the unit."""
    learner = build(name)
    batch = batch_for(learner)
    small = batch.in_unit(8.0)
    state, metrics = trained(learner, small)
    wrapped = StandardisedRewards(build(name), 8.0)
    own, told = trained(wrapped, batch)
    assert_same(own.state_dict(), state.state_dict())
    assert metrics.keys() == told.keys()
    for key, value in metrics.items():
        assert torch.equal(told[key], value * 8.0 if key in RETURN_METRICS else value), key
    value, raw = learner.value(state), wrapped.value(own)
    if value is None:
        assert raw is None
        return
    assert torch.equal(raw.value(batch.observation), 8 * value.value(batch.observation))
    assert isinstance(raw, ValueFn) is isinstance(value, ValueFn)
    if not isinstance(value, ValueFn):
        return
    assert torch.equal(
        raw.action_value(batch.observation, batch.action),
        8 * value.action_value(batch.observation, batch.action),
    )
    assert isinstance(raw, CriticValues) is isinstance(value, CriticValues)
    assert torch.equal(
        raw.action_values(batch.observation, batch.action),
        8 * value.action_values(batch.observation, batch.action),
    )


def test_a_value_without_critics_gets_none():
    class OnlyValue:
        def value(self, obs):
            return obs.sum(-1)

        def action_value(self, obs, action):
            return obs.sum(-1) + action.sum(-1)

    class Plain(BC):
        def value(self, state):
            return OnlyValue()

    learner = Plain(BCConfig(), LearnerContext(SPACE, Normaliser.identity(3), 10))
    told = StandardisedRewards(learner, 2.0).value(None)
    assert not isinstance(told, CriticValues)
    assert told.value(torch.ones(2, 3)).tolist() == [6.0, 6.0]
    assert told.action_value(torch.ones(2, 3), torch.ones(2, 1)).tolist() == [8.0, 8.0]


def test_metrics_that_are_values_are_named_as_such():
    """What a learner reports beside losses and shares must not slip through in its own units."""
    learners = [build(name) for name in LEARNERS.names()]
    batches = [batch_for(learner) for learner in learners]
    pairs = zip(learners, batches, strict=True)
    reported = {key for learner, batch in pairs for key in trained(learner, batch, 2)[1]}
    own = {"critic/loss", "critic/diversity", "critic/conservative_gap"}  # terms of losses
    values = {key for key in reported if key.startswith("critic/") and key not in own}
    assert values <= RETURN_METRICS
