import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.generative.bcq import BCQ, BCQConfig
from mbrl.nets.normaliser import Normaliser
from tests.learners.twin import (
    CONTEXT,
    bandit,
    constant_critics,
    constant_net,
    generator,
    linear_critics,
    loop,
    transitions,
)

SMALL = {"hidden": (16,), "vae_hidden": (16,), "discount": 0.9}


def make(context=CONTEXT, seed: int = 0, **config):
    learner = BCQ(BCQConfig(**{**SMALL, **config}), context)
    return learner, learner.init(generator(seed))


def decode_the_first_latent(policy, slope: float) -> None:
    """Makes the decoder answer `tanh(slope * z_0)` in every action dimension."""
    with torch.no_grad():
        policy.decoder.flat.zero_()
        first, last = policy.decoder.layers(policy.decoder.flat)
        first.weight[0, 2, 0], first.weight[0, 2, 1] = 1.0, -1.0
        last.weight[0, 0], last.weight[0, 1] = slope, -slope


def test_the_target_by_hand_is_the_best_candidates_three_quarters_least_one_quarter_largest():
    """Candidates of row 0 at -0.5 (clipped from -9) and 0.2, of row 1 at 0 and 0.1; no perturbation."""
    learner, state = make(target_candidates=2, perturbation=0.0)
    decode_the_first_latent(state.policy, 1.0)
    linear_critics(state.target_critic, [10.0, -2.0], [0.0, 1.0])
    constant_critics(state.policy.critic, [500.0, 500.0])  # the online critics do not count
    batch = dataclasses.replace(
        transitions(3), reward=torch.tensor([1.0, 1.0, 5.0]), terminated=torch.tensor([False, False, True])
    )
    noise = torch.zeros(6, 2)
    noise[:, 0] = torch.tensor([-9.0, 0.2, 0.0, 0.1, 0.4, 0.4])

    def value(latent: float) -> float:
        a = math.tanh(latent)
        pair = (10 * a, 1 - 2 * a)
        return 0.75 * min(pair) + 0.25 * max(pair)

    target = learner.critic_target(state, batch, noise)
    best = (max(value(-0.5), value(0.2)), max(value(0.0), value(0.1)))
    assert target.tolist() == pytest.approx([1 + 0.9 * best[0], 1 + 0.9 * best[1], 5.0], rel=1e-5)
    assert not target.requires_grad


def test_the_best_candidate_is_taken_after_the_critics_are_mixed():
    """The maximum of the mixture lies at one action, those of its parts at others: order matters."""
    learner, state = make(target_candidates=2, perturbation=0.0)
    decode_the_first_latent(state.policy, 1.0)
    linear_critics(state.target_critic, [8.0, -8.0], [0.0, 0.0])
    batch = dataclasses.replace(transitions(1), reward=torch.zeros(1), terminated=torch.tensor([False]))
    noise = torch.tensor([[0.3, 0.0], [-0.4, 0.0]])
    a = math.tanh(0.3)  # the mixture is -4 |a|: the smaller candidate wins
    assert learner.critic_target(state, batch, noise).tolist() == pytest.approx([0.9 * -4 * a], rel=1e-5)


def test_the_target_uses_the_target_perturbation():
    learner, state = make(target_candidates=1, perturbation=0.1)
    decode_the_first_latent(state.policy, 0.0)
    constant_net(state.policy.perturber, 20.0)
    constant_net(state.target_perturber, -20.0)
    linear_critics(state.target_critic, [1.0, 1.0], [0.0, 0.0])
    batch = dataclasses.replace(transitions(1), reward=torch.zeros(1), terminated=torch.tensor([False]))
    target = learner.critic_target(state, batch, torch.zeros(1, 2))
    assert target.tolist() == pytest.approx([0.9 * -0.1])


def test_the_vae_loss_by_hand():
    """Encoder: mean 0.4, log std log 0.5 for both latents; the decoder reads z_0 = 0.4 + 0.5 noise."""
    learner, state = make(kl_coef=0.5)
    constant_net(state.encoder, 0.4, 0.4, math.log(0.5), math.log(0.5))
    decode_the_first_latent(state.policy, 1.0)
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[2.0], [4.0]]))  # scaled 0 and 1
    noise = torch.tensor([[1.0, 7.0], [-1.0, 7.0]])
    loss, metrics = learner.vae_loss(state, batch, noise)
    error = (math.tanh(0.9) ** 2 + (math.tanh(-0.1) - 1) ** 2) / 2
    divergence = 0.5 * (0.4**2 + 0.25 - 1 - 2 * math.log(0.5))
    assert float(metrics["vae/reconstruction"]) == pytest.approx(error, rel=1e-5)
    assert float(metrics["vae/divergence"]) == pytest.approx(divergence, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(error + 0.5 * divergence, rel=1e-5)


def test_the_latents_of_training_are_not_clipped_and_the_log_deviation_is():
    learner, state = make(kl_coef=0.0)
    constant_net(state.encoder, 3.0, 0.0, -100.0, 0.0)  # mean 3, deviation exp(-4)
    decode_the_first_latent(state.policy, 0.5)
    batch = dataclasses.replace(transitions(1), action=torch.tensor([[2.0]]))
    loss, metrics = learner.vae_loss(state, batch, torch.tensor([[1.0, 0.0]]))
    assert float(loss.detach()) == pytest.approx(math.tanh(0.5 * (3 + math.exp(-4))) ** 2, rel=1e-5)
    expected = (0.5 * (9 + math.exp(-8) - 1 + 8) + 0.0) / 2
    assert float(metrics["vae/divergence"]) == pytest.approx(expected, rel=1e-5)


def test_encoder_and_decoder_both_descend_the_vae_loss_alone():
    learner, state = make()
    loss, _ = learner.vae_loss(state, transitions(), torch.randn(8, 2, generator=generator()))
    loss.backward()
    assert state.encoder.flat.grad.abs().sum() > 0
    assert state.policy.decoder.flat.grad.abs().sum() > 0
    assert state.policy.perturber.flat.grad is None
    assert state.policy.critic.net.flat.grad is None


def test_the_perturbation_loss_by_hand_ascends_the_first_critic_and_trains_nothing_else():
    """Decoder 0.3 everywhere, shift 0.1 tanh(0.5): Q_1 = 2 a, Q_2 falls."""
    learner, state = make(perturbation=0.1)
    constant_net(state.policy.decoder, math.atanh(0.3))
    constant_net(state.policy.perturber, 0.5)
    linear_critics(state.policy.critic, [2.0, -100.0], [0.0, 0.0])
    loss = learner.perturbation_loss(state, transitions(4), torch.zeros(4, 2))
    assert float(loss.detach()) == pytest.approx(-2 * (0.3 + 0.1 * math.tanh(0.5)), rel=1e-5)
    loss.backward()
    head = state.policy.perturber.layers(state.policy.perturber.flat.grad)[-1].bias
    assert float(head) == pytest.approx(-2 * 0.1 * (1 - math.tanh(0.5) ** 2), rel=1e-5)
    assert state.policy.decoder.flat.grad is None
    assert state.policy.critic.net.flat.grad is None


def test_the_latents_of_proposals_are_clipped_in_the_perturbation_loss_too():
    learner, state = make(perturbation=0.0)
    decode_the_first_latent(state.policy, 1.0)
    linear_critics(state.policy.critic, [1.0, 1.0], [0.0, 0.0])
    loss = learner.perturbation_loss(state, transitions(2), torch.tensor([[9.0, 0.0], [9.0, 0.0]]))
    assert float(loss.detach()) == pytest.approx(-math.tanh(0.5), rel=1e-5)


def test_every_update_moves_every_network_and_the_targets_by_tau():
    learner, state = make(polyak_tau=0.1)
    for step in range(3):
        old_critic = state.target_critic.net.flat.clone()
        old_perturber = state.target_perturber.flat.clone()
        trained = (state.encoder, state.policy.decoder, state.policy.perturber, state.policy.critic.net)
        before = [net.flat.detach().clone() for net in trained]
        learner.update(state, transitions(seed=step), generator(step))
        assert not any(torch.equal(a, net.flat) for a, net in zip(before, trained, strict=True))
        expected = 0.9 * old_critic + 0.1 * state.policy.critic.net.flat.detach()
        torch.testing.assert_close(state.target_critic.net.flat, expected)
        expected = 0.9 * old_perturber + 0.1 * state.policy.perturber.flat.detach()
        torch.testing.assert_close(state.target_perturber.flat, expected)


def test_the_latent_is_twice_the_action_unless_it_is_chosen():
    wide = LearnerContext(SpaceSpec(2, 3, (-1.0,) * 3, (1.0,) * 3), Normaliser.identity(2), 1)
    assert make(wide)[1].policy.candidate_points.shape == (100, 6)
    assert make(wide, latent_dim=4)[1].policy.candidate_points.shape == (100, 4)


def test_values_mix_the_critics_at_the_policys_action():
    learner, state = make()
    constant_critics(state.policy.critic, [2.0, 6.0])
    assert learner.value(state).value(torch.zeros(3, 2)).tolist() == pytest.approx([3.0] * 3)


@pytest.mark.slow
@pytest.mark.parametrize(("terminated", "expected"), [(False, 1 / (1 - 0.8)), (True, 1.0)])
def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one(terminated, expected):
    learner, state = make(
        hidden=(8,), discount=0.8, critic_learning_rate=0.05, polyak_tau=0.9, target_candidates=3
    )
    draws = generator(1)
    for _ in range(80):
        learner.update(state, loop(16, draws, terminated=terminated), draws)
    assert float(learner.value(state).value(torch.zeros(1, 2))) == pytest.approx(expected, rel=0.06)


@pytest.mark.slow
def test_the_best_logged_action_of_a_bandit_is_chosen():
    """Logged actions lie 0.3 to 1.5 above the best one: the policy goes to the lower edge, not beyond it."""
    learner, state = make(hidden=(32, 32), vae_hidden=(32, 32), kl_coef=0.01)
    draws = generator(1)
    for _ in range(250):
        learner.update(state, bandit(64, draws, low=0.3, high=1.5), draws)
    obs = 1.6 * torch.rand(200, 2, generator=draws) - 0.8
    error = learner.policy(state).act(obs)[:, 0] - 2 - 0.5 * obs[:, 0]
    assert float(error.mean()) < 0.65  # a clone of the log: 0.9
    assert float(error.min()) > 0.2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"minimum_weight": 1.5}, "minimum_weight"),
        ({"target_candidates": 0}, "target_candidates"),
        ({"perturbation": -0.1}, "perturbation"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"lambda": 0.75}, "lambda"),
    ],
)
def test_unknown_keys_and_bad_values_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        BCQConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("bcq") is BCQ
