import dataclasses
import math

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.rebrac import PRESETS, ReBRAC, ReBRACConfig
from mbrl.nets.normaliser import Normaliser
from mbrl.run.config import find_part, parse_algorithm, resolve
from mbrl.run.documents import read_yaml
from tests.learners.twin import (
    CONTEXT,
    constant_critics,
    constant_net,
    generator,
    linear_critics,
    transitions,
)

SMALL = {"hidden": (16,), "discount": 0.9, "critic_layer_norm": False}
TWO = LearnerContext(SpaceSpec(2, 2, (0.0, -1.0), (4.0, 1.0)), Normaliser.identity(2), 1)


def make(context=CONTEXT, **config):
    learner = ReBRAC(ReBRACConfig(**{**SMALL, **config}), context)
    return learner, learner.init(generator())


def two_dimensional(count: int):
    batch = transitions(count)
    return dataclasses.replace(batch, action=torch.ones(count, 2), next_action=torch.ones(count, 2))


def test_the_target_by_hand_pays_the_sum_over_dimensions_where_a_next_action_is_known():
    """Smoothed target action (0.5, -0.25) + (0.1, 0); next actions (3, 0.5) in units, (0.5, 0.5) scaled."""
    learner, state = make(TWO, critic_bc_coef=2.0)
    constant_net(state.target_actor.net, math.atanh(0.5), math.atanh(-0.25))
    constant_critics(state.target_critic, [7.0, 4.0])
    batch = dataclasses.replace(
        two_dimensional(4),
        reward=torch.tensor([1.0, 1.0, 1.0, 2.0]),
        next_action=torch.tensor([[3.0, 0.5], [3.0, 0.5], [math.nan, math.nan], [3.0, 0.5]]),
        has_next_action=torch.tensor([True, False, False, True]),
        terminated=torch.tensor([False, False, False, True]),
    )
    noise = torch.tensor([[0.5, 0.0]] * 4)
    target = learner.critic_target(state, batch, noise)
    penalty = 2 * (0.1**2 + 0.75**2)
    assert target.tolist() == pytest.approx([1 + 0.9 * (4 - penalty), 1 + 0.9 * 4, 1 + 0.9 * 4, 2.0])
    assert not target.requires_grad


def test_the_penalty_is_taken_at_the_smoothed_action_not_at_the_clean_one():
    learner, state = make(critic_bc_coef=1.0)
    constant_net(state.target_actor.net, 0.0)
    constant_critics(state.target_critic, [0.0, 0.0])
    batch = dataclasses.replace(
        transitions(1),
        reward=torch.zeros(1),
        next_action=torch.full((1, 1), 2.0),  # scaled 0: what the target actor does
        has_next_action=torch.tensor([True]),
        terminated=torch.tensor([False]),
    )
    target = learner.critic_target(state, batch, torch.tensor([[9.0]]))  # clipped to 0.5
    assert target.tolist() == pytest.approx([-0.9 * 0.25])


def test_the_actor_loss_by_hand_sums_over_dimensions_and_takes_the_least_critic():
    """pi = (0.5, 0); logged (0, 0.5) in units, (-1, 0.5) scaled; the least critic answers 0.5 a_0 + 1."""
    learner, state = make(TWO, actor_bc_coef=0.1)
    constant_net(state.actor.net, math.atanh(0.5), 0.0)
    linear_critics(state.critic, [3.0, 0.5], [2.0, 1.0])
    batch = dataclasses.replace(two_dimensional(2), action=torch.tensor([[0.0, 0.5], [0.0, 0.5]]))
    loss = learner.actor_loss(state, batch)
    assert float(loss.detach()) == pytest.approx(0.1 * (1.5**2 + 0.5**2) - 1.0)
    (gradient,) = torch.autograd.grad(loss, state.actor.net.flat)
    head = state.actor.net.layers(gradient)[-1].bias.flatten()
    kappa = 1 / (0.5 * 0.5 + 1)
    expected = [(0.1 * 2 * 1.5 - kappa * 0.5) * (1 - 0.5**2), 0.1 * 2 * -0.5]
    assert head.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_least_critic_is_chosen_for_each_row():
    learner, state = make(actor_bc_coef=0.0)
    with torch.no_grad():  # actor: tanh(0.5 s_0); critics: 1 + a and 1 - a
        state.actor.net.flat.zero_()
        first, last = state.actor.net.layers(state.actor.net.flat)
        first.weight[0, 0, 0], first.weight[0, 0, 1] = 1.0, -1.0
        last.weight[0, :2, 0] = torch.tensor([0.5, -0.5])
    linear_critics(state.critic, [1.0, -1.0], [1.0, 1.0])
    batch = dataclasses.replace(transitions(2), observation=torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    least = [1 - math.tanh(0.5), 1 - math.tanh(1.0)]
    loss = learner.actor_loss(state, batch)
    assert float(loss.detach()) == pytest.approx(-1.0)  # normalised by its own size
    (gradient,) = torch.autograd.grad(loss, state.actor.net.flat)
    head = state.actor.net.layers(gradient)[-1].bias.flatten()
    slopes = [-(1 - math.tanh(0.5) ** 2), 1 - math.tanh(1.0) ** 2]
    assert head.tolist() == pytest.approx([-sum(slopes) / 2 / (sum(least) / 2)], rel=1e-5)


def test_a_batch_without_next_actions_is_refused():
    learner, state = make()
    batch = dataclasses.replace(transitions(), next_action=None, has_next_action=None)
    with pytest.raises(ConfigError, match="ReBRAC needs the action that followed each transition"):
        learner.update(state, batch, generator())


def test_initial_networks_have_constant_hidden_biases_and_small_last_layers():
    _, state = make(hidden=(32, 32))
    for module, bound in ((state.actor, 1e-3), (state.critic, 3e-3)):
        *hidden, last = module.net.layers(module.net.flat.detach())
        for layer in hidden:
            assert (layer.bias == torch.tensor(0.1)).all()
            assert float(layer.weight.std()) > 0.05
        size = torch.cat([last.weight.flatten(), last.bias.flatten()]).abs()
        assert bound / 2 < float(size.max()) <= bound
    assert torch.equal(state.target_critic.net.flat, state.critic.net.flat.detach())
    assert torch.equal(state.target_actor.net.flat, state.actor.net.flat.detach())


def test_layer_norm_is_the_default_of_the_critics_and_the_actor_has_none():
    learner = ReBRAC(ReBRACConfig(hidden=(8,)), CONTEXT)
    state = learner.init(generator())
    assert state.critic.net.layer_norm
    assert state.target_critic.net.layer_norm
    assert not state.actor.net.layer_norm


@pytest.mark.parametrize(
    ("name", "coefs"),
    [
        ("halfcheetah-medium", (0.001, 0.01)),
        ("halfcheetah-medium-expert", (0.01, 0.1)),
        ("halfcheetah-medium-replay", (0.01, 0.001)),
        ("hopper-medium-replay", (0.05, 0.5)),
        ("walker2d-random", (0.01, 0.0)),
    ],
)
def test_a_preset_is_that_of_the_exact_name(name, coefs):
    config = ReBRACConfig(preset=name)
    assert (config.actor_bc_coef, config.critic_bc_coef) == coefs


def test_there_are_twelve_presets():
    assert len(PRESETS) == 12
    assert {ReBRACConfig(preset=name).preset for name in PRESETS} == set(PRESETS)


@pytest.mark.parametrize(
    "name", ["halfcheetah", "hopper-medium-v2", "hopper-medium-", "Hopper-medium", ["x"]]
)
def test_an_unknown_preset_is_refused(name):
    with pytest.raises(ValueError, match="preset"):
        ReBRACConfig(preset=name)


def test_a_preset_and_a_coefficient_of_ones_own_contradict_each_other():
    with pytest.raises(ValueError, match=r"preset hopper-medium has actor_bc_coef=0.01, not 0.2"):
        ReBRACConfig(preset="hopper-medium", actor_bc_coef=0.2)
    config = ReBRACConfig(preset="hopper-medium", actor_bc_coef=0.01)
    assert ReBRACConfig.model_validate(config.model_dump()) == config


def test_the_shipped_preset_takes_another_set_by_name_and_refuses_a_near_miss():
    tree = read_yaml(find_part("algorithms", "rebrac-published"))
    learner = parse_algorithm(tree, where="x")[1].learner.config
    assert (learner.hidden, learner.batch_size) == ((256, 256, 256), 1024)
    assert (learner.actor_learning_rate, learner.critic_learning_rate) == (1e-3, 1e-3)
    chosen = {"arguments": {"algorithm": "rebrac-published"}}
    run = resolve(**chosen, overrides=["algorithm.learner.preset=hopper-medium-replay"]).run
    assert run.algorithm.learner.config.critic_bc_coef == 0.5
    with pytest.raises(ConfigError, match="Did you mean 'hopper-medium-replay'"):
        resolve(**chosen, overrides=["algorithm.learner.preset=hopper-medium_replay"])


def test_it_is_registered():
    assert LEARNERS.get("rebrac") is ReBRAC
