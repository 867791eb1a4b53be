import math

import pytest
import torch

from mbrl.core.protocols import Policy, StochasticPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.generative.bcq import BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser

SPACE = SpaceSpec(3, 2, (-1.0, 0.0), (3.0, 10.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(*, candidates: int = 20, perturbation: float = 0.05, latent_dim: int = 4) -> BCQPolicy:
    spec = BCQSpec(
        "bcq",
        SPACE,
        hidden=(16,),
        vae_hidden=(12,),
        latent_dim=latent_dim,
        perturbation=perturbation,
        candidates=candidates,
    )
    return BCQPolicy(spec, Normaliser(torch.full((3,), 2.0), torch.full((3,), 3.0)), generator())


def observations(count: int = 6) -> torch.Tensor:
    return 3 * torch.randn(count, 3, generator=generator(1)) + 2


def test_it_is_a_policy_without_a_density():
    policy = make()
    assert isinstance(policy, Policy)
    assert not isinstance(policy, StochasticPolicy)
    assert policy.act_dim == 2


@pytest.mark.parametrize("is_noisy", [False, True])
def test_the_action_is_the_best_candidate_by_the_first_critic(is_noisy):
    policy, obs = make(), observations()
    noise = torch.randn(6, 2, generator=generator(2)) if is_noisy else None
    latents = policy.latents(noise, 6)
    for row in range(6):
        best, action = -math.inf, None
        for k in range(20):
            obs_n = (obs[row : row + 1] - 2) / 3
            candidate = policy.perturbed(obs_n, policy.decode(obs_n, latents[row, k : k + 1]))
            value = float(policy.critic(obs[row : row + 1], candidate)[0].detach())
            if value > best:
                best, action = value, policy.unscale(candidate)
        torch.testing.assert_close(policy.act(obs, noise)[row], action[0].detach())


def test_the_action_follows_the_first_critic_and_not_the_second():
    policy, obs = make(), observations()
    action = policy.act(obs)
    with torch.no_grad():
        policy.critic.net.flat[1].mul_(-3)
    assert torch.equal(policy.act(obs), action)
    with torch.no_grad():
        policy.critic.net.flat[0].neg_()
    assert not torch.equal(policy.act(obs), action)


def test_perturbations_are_bounded_and_stay_in_the_box():
    policy = make(perturbation=0.05)
    with torch.no_grad():
        policy.perturber.flat.mul_(100)
    obs_n = torch.randn(200, 3, generator=generator(2))
    action = 2 * torch.rand(200, 2, generator=generator(3)) - 1
    moved = policy.perturbed(obs_n, action).detach()
    change = (moved - action).abs()
    assert float(change.max()) <= 0.05 + 1e-6
    assert float(change.max()) > 0.049
    assert float(moved.abs().max()) <= 1.0
    nearly = torch.full((200, 2), 0.99)
    assert float(policy.perturbed(obs_n, nearly).detach().max()) == 1.0


def test_rows_do_not_depend_on_the_batch_they_come_in():
    policy, obs = make(candidates=1500), observations(7)  # two rows at a time
    noise = torch.randn(7, 2, generator=generator(2))
    whole, noisy = policy.act(obs), policy.act(obs, noise)
    for row in range(7):
        torch.testing.assert_close(policy.act(obs[row : row + 1])[0], whole[row])
        torch.testing.assert_close(policy.act(obs[row : row + 1], noise[row : row + 1])[0], noisy[row])
    assert policy.act(obs[:0]).shape == (0, 2)


def test_the_deterministic_latents_are_fixed_clipped_and_the_same_for_all_observations():
    first, other = make(), make()
    latents = first.latents(None, 3)
    assert torch.equal(latents, other.latents(None, 3))
    assert torch.equal(latents[0], latents[2])
    assert float(latents.abs().max()) == 0.5
    inside = latents[0].abs() < 0.5
    expected = math.sqrt(2) * torch.erfinv(2 * first.candidate_points - 1)
    torch.testing.assert_close(latents[0][inside], expected[inside])


def test_noise_makes_every_candidate_a_draw_of_the_clipped_prior():
    """A standard normal clipped to +-0.5 has 30.85 % of its mass at each end."""
    policy = make(candidates=3, latent_dim=3)
    latents = policy.latents(torch.randn(20_000, 2, generator=generator(2)), 20_000)
    assert latents.shape == (20_000, 3, 3)
    for sign in (-1, 1):
        share = (latents == sign * 0.5).double().mean(0)
        torch.testing.assert_close(share, torch.full_like(share, 0.30854), atol=0.015, rtol=0)
    below = (latents < 0.2).double().mean(0)
    torch.testing.assert_close(below, torch.full_like(below, 0.57926), atol=0.015, rtol=0)


def test_noise_is_the_only_source_of_chance():
    policy, obs = make(), observations()
    noise = torch.randn(6, 2, generator=generator(2))
    assert torch.equal(policy.act(obs, noise), policy.act(obs, noise))
    assert not torch.equal(policy.act(obs, noise), policy.act(obs, -noise))
    assert torch.equal(policy.act(obs), policy.act(obs))


def test_a_spec_survives_json():
    spec = make().spec
    assert BCQSpec.from_json(spec.to_json()) == spec
