"""What a discriminator learns of an expert, what a learner is told, and what is refused."""

import dataclasses

import pytest
import torch

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.core.types import DemonstrationBatch, plain
from mbrl.run.loop import renew
from mbrl.testing.samples import make_expert
from tests.algorithms.toy import LEARNER, make_context

SMALL = {"rollout": {"starts": 40, "horizon": 3}, "learner": LEARNER, "discriminator_hidden": [8]}


def build(dynamics, recipe: str = "adversarial", context=None, **changes):
    config = RECIPES.get(recipe).Config.model_validate({**SMALL, **changes})
    return RECIPES.get(recipe).build(config, context or make_context(dynamics, expert=make_expert()))


def drawn(training):
    state = training.learner.init(RngStreams(0).at("init"))
    renew(training, state, 0, RngStreams(0).at("rollout", 0))
    return state, training.source.sample(32, RngStreams(0).at("batch", 0))


def test_no_reward_of_the_log_the_model_or_the_expert_reaches_the_learner(toy):
    _, batch = drawn(build(toy, penalty={"coef": 0.0}))
    assert isinstance(batch, DemonstrationBatch)
    assert bool((batch.reward == 0).all())
    assert bool((batch.expert.reward == 0).all())
    assert bool(batch.from_model.any())
    assert not bool(batch.from_model.all())


def test_imagined_steps_pay_for_their_uncertainty_in_nats(toy):
    _, batch = drawn(build(toy, penalty={"coef": 2.0}))
    imagined, logged = batch.reward[batch.from_model], batch.reward[~batch.from_model]
    assert bool((logged == 0).all())
    unit_free = (2 / 3) ** 0.5 * batch.action[batch.from_model].abs().sum(-1) / 10 / 0.05
    torch.testing.assert_close(imagined, -2.0 * unit_free)


@pytest.mark.parametrize(("form", "shaping"), [("airl", True), ("gail", False)])
def test_the_logit_is_the_shaped_reward_less_the_log_density_in_airl_alone(toy, form, shaping):
    training = build(toy, form=form, shaping=shaping)
    state, batch = drawn(training)
    learner, rows = training.learner, batch.expert
    shaped = learner.reward_model(state).shaped(rows)
    log_prob = learner.policy(state).log_prob(rows.observation, rows.action)
    expected = shaped - log_prob if form == "airl" else shaped
    torch.testing.assert_close(learner.logit(state, rows), expected)


def test_the_learner_is_told_the_learned_reward_of_log_imagination_and_expert(toy, monkeypatch):
    training = build(toy, penalty={"coef": 2.0})
    state, batch = drawn(training)
    seen = []
    update = training.learner.learner.update
    monkeypatch.setattr(
        training.learner.learner, "update", lambda s, b, g: (seen.append(b), update(s, b, g))[1]
    )
    training.learner.update(state, batch, RngStreams(0).at("update", 0))
    (told,) = seen
    assert len(told) == 32 + 128
    with torch.no_grad():
        learned = state.discriminator.shaped(told)
    torch.testing.assert_close(told.reward[:32], learned[:32] + batch.reward)
    torch.testing.assert_close(told.reward[32:], learned[32:])


def test_the_discriminator_learns_to_tell_the_expert_from_what_was_imagined(toy):
    far = make_expert()
    far = dataclasses.replace(far, observation=far.observation + 5, next_observation=far.next_observation + 5)
    training = build(
        toy,
        context=make_context(toy, expert=far),
        form="gail",
        shaping=False,
        discriminator_learning_rate=1e-2,
    )
    state, _ = drawn(training)
    for step in range(60):
        batch = training.source.sample(32, RngStreams(0).at("batch", step))
        metrics = training.learner.update(state, batch, RngStreams(0).at("update", step))
    assert float(metrics["imitation/expert_accuracy"]) > 0.9
    assert float(metrics["imitation/policy_accuracy"]) > 0.9
    reward = training.learner.reward_model(state)
    rows = plain(batch)
    assert (
        reward.reward(far.observation, far.action).mean()
        > reward.reward(rows.observation, rows.action).mean()
    )


def test_imitation_needs_an_expert_and_says_where_to_name_one(toy):
    for recipe, learner in (("adversarial", LEARNER), ("demonstrations", {"name": "smodice", "hidden": [8]})):
        config = RECIPES.get(recipe).Config.model_validate({"learner": learner})
        with pytest.raises(ConfigError, match=r"imitates: name a log of an expert.*--expert"):
            RECIPES.get(recipe).build(config, make_context(toy))


def test_settings_that_do_not_go_together_are_refused(toy):
    with pytest.raises(ValueError, match="set shaping to false"):
        build(toy, form="gail")
    with pytest.raises(ValueError, match=r"smodice reads steps of an expert.*demonstrations"):
        RECIPES.get("model_free").Config.model_validate({"learner": {"name": "smodice"}})
    deterministic = build(toy, learner={"name": "td3_bc", "hidden": [8], "batch_size": 16})
    state, batch = drawn(deterministic)
    with pytest.raises(ConfigError, match=r"reads the policy's density.*form=gail"):
        deterministic.learner.update(state, batch, RngStreams(0).at("update", 0))
