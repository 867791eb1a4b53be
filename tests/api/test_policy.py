"""Policies in NumPy: shapes, units of densities, and what a stranger's function may get wrong."""

import math

import numpy as np
import pytest
import torch

import mbrl
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import StochasticPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.normaliser import Normaliser
from mbrl.run.policies import StoredPolicy

SPACE = SpaceSpec(2, 1, (-2.0,), (2.0,))


def gaussian(std: float = 0.5) -> mbrl.Policy:
    """N(obs_0, std) in environment units."""

    def log_prob(obs, action):
        return -0.5 * ((action[:, 0] - obs[:, 0]) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))

    def sample(obs, rng):
        return obs[:, :1] + std * rng.standard_normal((len(obs), 1))

    return mbrl.Policy.from_callable(lambda obs: obs[:, :1], log_prob, sample, name="gaussian")


def test_one_state_or_many():
    policy = mbrl.Policy.from_callable(lambda obs: 2.0 * obs[:, :1])
    assert policy.act([1.0, 3.0]).tolist() == [2.0]
    assert policy.act([[1.0, 3.0], [0.5, 0.0]]).tolist() == [[2.0], [1.0]]


def test_actions_are_moved_into_the_box_of_the_log_that_it_is_held_against():
    stored = mbrl.Policy.from_callable(lambda obs: 100.0 * obs[:, :1]).for_space(SPACE)
    actions = stored.policy.act(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.01, 0.0]]))
    assert actions[:, 0].tolist() == pytest.approx([2.0, -2.0, 1.0])


def test_a_density_is_turned_to_the_scaled_action():
    """p(u) = p(a) da/du with u = a / 2: the density doubles."""
    policy = gaussian().for_space(SPACE).policy
    assert isinstance(policy, StochasticPolicy)
    obs, action = torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0]])
    expected = torch.distributions.Normal(0.5, 0.5).log_prob(torch.tensor(1.0)) + math.log(2.0)
    assert policy.log_prob(obs, action).item() == pytest.approx(expected.item(), abs=1e-6)


def test_draws_are_a_function_of_their_noise_and_have_the_spread_that_was_told():
    policy = gaussian().for_space(SPACE).policy
    assert isinstance(policy, StochasticPolicy)
    obs = torch.zeros(4000, 2)
    noise = torch.randn(2, 4000, 1, generator=torch.Generator().manual_seed(0))
    first = policy.sample(obs, 2, noise)
    assert torch.equal(first, policy.sample(obs, 2, noise))
    assert not torch.equal(first[0], first[1])
    assert first.std().item() == pytest.approx(0.5, rel=0.05)


def test_a_seeded_draw_repeats_itself():
    policy = mbrl.Policy(gaussian().for_space(SPACE))
    first, second = (policy.act([0.0, 0.0], deterministic=False, rng=3) for _ in range(2))
    assert first.tolist() == second.tolist() != policy.act([0.0, 0.0]).tolist()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda obs: obs[:, 0], r"shape \[3\] for 3 observations; expected \[3, 1\]"),
        (lambda obs: np.zeros((1, 1)), r"shape \[1, 1\] for 3"),
        (lambda obs: np.where(obs[:, :1] > 1, np.nan, 0.0), r"returned \[nan\] for the observation \[2.0"),
    ],
)
def test_what_a_function_gets_wrong_is_named(act, message):
    policy = mbrl.Policy.from_callable(act, name="mine").for_space(SPACE).policy
    with pytest.raises(ConfigError, match=message):
        policy.act(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))


def test_a_density_without_draws_is_refused():
    with pytest.raises(ConfigError, match="log_prob and sample"):
        mbrl.Policy.from_callable(lambda obs: obs[:, :1], lambda obs, action: obs[:, 0])


def test_observations_that_no_policy_can_answer_are_refused():
    policy = gaussian()
    with pytest.raises(ConfigError, match="NaN or an infinity"):
        policy.act([np.nan, 0.0])
    with pytest.raises(ConfigError, match=r"\[obs_dim\] or \[b, obs_dim\]"):
        policy.act(np.zeros((1, 1, 2)))


def test_what_is_no_policy_is_said_to_be_none():
    with pytest.raises(ConfigError, match="A int is no policy"):
        mbrl.evaluate(3, task="pendulum", progress=False)


CHOICES = SpaceSpec.discrete(2, ("left", "right"))


def chooser() -> mbrl.Policy:
    """`right` where the first number is above 0; its logits are -10 and 10 times it."""
    spec = CategoricalSpec("softmax", CHOICES, ())
    policy = SoftmaxPolicy(spec, Normaliser.identity(2), torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.net.flat.copy_(torch.tensor([[-10.0, 10.0, 0.0, 0.0, 0.0, 0.0]]))
    return mbrl.Policy(StoredPolicy.in_memory(policy, name="chooser"))


def test_choices_are_predicted_as_ids_with_probabilities_and_masks():
    policy = chooser()
    assert policy.predict([0.5, 0.0]) == 1
    assert policy.predict([[0.5, 0.0], [-0.5, 0.0]]).tolist() == [1, 0]
    assert policy.act([0.5, 0.0]).tolist() == [0.0, 1.0]
    assert policy.probabilities([0.05, 0.0]).tolist() == pytest.approx(
        [1 / (1 + math.e), math.e / (1 + math.e)]
    )
    assert policy.predict([0.5, 0.0], mask=[True, False]) == 0
    assert policy.probabilities([[0.5, 0.0]] * 2, mask=[True, False]).tolist() == [[1.0, 0.0]] * 2
    drawn = policy.predict(np.zeros((400, 2)), deterministic=False, rng=0)
    assert 0.4 < float(drawn.mean()) < 0.6
    with pytest.raises(ConfigError, match="allows no choice"):
        policy.predict([0.5, 0.0], mask=[False, False])
    with pytest.raises(ConfigError, match=r"A mask is \[2\]"):
        policy.predict([0.5, 0.0], mask=[True])


def test_a_box_of_actions_has_no_choices():
    policy = mbrl.Policy.from_callable(lambda obs: 2.0 * obs[:, :1], name="line")
    assert policy.predict([1.0, 3.0]).tolist() == [2.0]
    with pytest.raises(ConfigError, match="'line' takes no choices"):
        policy.predict([1.0, 3.0], mask=[True])
    with pytest.raises(ConfigError, match="no probabilities"):
        policy.probabilities([1.0, 3.0])


def test_a_strangers_ids_become_one_hot():
    stored = mbrl.Policy.from_callable(lambda obs: (obs[:, 0] > 0).astype(int)).for_space(CHOICES)
    assert stored.policy.act(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    wrong = mbrl.Policy.from_callable(lambda obs: np.full(len(obs), 2), name="wrong").for_space(CHOICES)
    with pytest.raises(ConfigError, match="'wrong' returned the choice 2; there are 0, 1"):
        wrong.policy.act(torch.zeros(1, 2))
