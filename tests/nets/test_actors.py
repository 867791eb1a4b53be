import json
import math

import pytest
import torch
from scipy import stats
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from mbrl.core.protocols import Policy, StochasticPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.actors import ActorSpec, DeterministicActor, MixtureActor, TanhGaussianActor, build_actor
from mbrl.nets.normaliser import Normaliser

SPACE = SpaceSpec(3, 2, (-1.0, 0.0), (3.0, 10.0))
KINDS = ("deterministic", "tanh_gaussian", "mixture", "clipped_gaussian")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(kind: str, *, space: SpaceSpec = SPACE, components: int = 3, log_std_bounds=(-5.0, 2.0)):
    spec = ActorSpec(kind, space, (16,), components=components, log_std_bounds=log_std_bounds)
    normaliser = Normaliser(torch.full((space.obs_dim,), 2.0), torch.full((space.obs_dim,), 3.0))
    return build_actor(spec, normaliser, generator())


def observations(count: int = 6, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(count, SPACE.obs_dim, generator=generator(seed)) + 2


def fixed_head(actor, *values: float) -> None:
    """Makes the network answer `values` at every observation."""
    with torch.no_grad():
        actor.net.flat.zero_()
        actor.net.layers(actor.net.flat)[-1].bias.copy_(torch.tensor(values))


@pytest.mark.parametrize("kind", KINDS)
def test_every_actor_is_a_policy_and_only_those_with_a_density_are_stochastic(kind):
    actor = make(kind)
    assert isinstance(actor, Policy)
    assert isinstance(actor, StochasticPolicy) is (kind != "deterministic")
    assert actor.act_dim == 2


@pytest.mark.parametrize("kind", KINDS)
def test_actions_respect_the_bounds_of_each_dimension_even_when_saturated(kind):
    actor = make(kind)
    with torch.no_grad():
        actor.net.flat.mul_(300)
    obs = observations(200)
    action = actor.act(obs, 50 * torch.randn(200, 2, generator=generator(2)))
    low, high = torch.tensor(SPACE.act_low), torch.tensor(SPACE.act_high)
    assert (action >= low).all()
    assert (action <= high).all()
    near = torch.isclose(action, low) | torch.isclose(action, high)
    assert near.any(0).all()  # every dimension reaches a bound of its own
    assert float(action[:, 1].max()) > 3.0  # not cut by the bounds of another dimension


@pytest.mark.parametrize("kind", KINDS)
def test_acting_without_noise_is_deterministic_and_without_gradient(kind):
    actor, obs = make(kind), observations()
    first = actor.act(obs)
    assert torch.equal(first, actor.act(obs))
    assert not first.requires_grad
    torch.testing.assert_close(first[2:4], actor.act(obs[2:4]))  # rows do not know of one another


@pytest.mark.parametrize("kind", KINDS)
def test_observations_are_normalised_inside(kind):
    actor, obs = make(kind), observations()
    plain = build_actor(actor.spec, Normaliser.identity(3), generator())
    torch.testing.assert_close(actor.act(obs), plain.act((obs - 2) / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_survives_json_and_rebuilds_the_same_policy(kind):
    actor, obs = make(kind), observations()
    spec = ActorSpec.from_json(json.loads(json.dumps(actor.spec.to_json())))
    assert spec == actor.spec
    rebuilt = build_actor(spec, Normaliser.identity(3), generator(99))
    rebuilt.load_state_dict(actor.state_dict())
    assert torch.equal(rebuilt.act(obs), actor.act(obs))


def test_the_deterministic_actor_ignores_noise_and_is_the_tanh_of_its_head():
    actor, obs = make("deterministic"), observations()
    assert isinstance(actor, DeterministicActor)
    assert torch.equal(actor.act(obs, torch.ones(6, 2)), actor.act(obs))
    expected = torch.tanh(actor.head(obs)) * torch.tensor([2.0, 5.0]) + torch.tensor([1.0, 5.0])
    torch.testing.assert_close(actor.act(obs), expected.detach())


def test_gaussian_log_prob_equals_the_transformed_distribution_on_the_scaled_action():
    actor, obs = make("tanh_gaussian").double(), observations().double()
    mean, log_std = actor.moments(obs)
    scaled = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform(cache_size=1))
    action_scaled = torch.tanh(torch.randn(6, 2, generator=generator(3), dtype=torch.float64))
    action = actor.unscale(action_scaled)
    torch.testing.assert_close(
        actor.log_prob(obs, action), scaled.log_prob(action_scaled), atol=1e-9, rtol=1e-9
    )
    # in environment units the density is smaller by the log of the half ranges
    affine = AffineTransform(
        torch.tensor([1.0, 5.0]).double(), torch.tensor([2.0, 5.0]).double(), event_dim=1
    )
    raw = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(), affine])
    torch.testing.assert_close(
        actor.log_prob(obs, action) - math.log(2.0 * 5.0), raw.log_prob(action), atol=1e-9, rtol=1e-9
    )


def test_gaussian_draws_their_density_and_given_actions_agree():
    actor, obs = make("tanh_gaussian").double(), observations(50).double()
    noise = torch.randn(50, 2, generator=generator(4), dtype=torch.float64)
    scaled, log_prob = actor.sample_with_log_prob(obs, noise)
    action = actor.act(obs, noise)
    torch.testing.assert_close(actor.unscale(scaled), action)
    torch.testing.assert_close(log_prob, actor.log_prob(obs, action), atol=1e-7, rtol=1e-7)


def test_gaussian_density_integrates_to_one_over_the_scaled_box():
    space = SpaceSpec(1, 1, (0.0,), (4.0,))
    spec = ActorSpec("tanh_gaussian", space, (8,))
    actor = build_actor(spec, Normaliser.identity(1), generator()).double()
    scaled = torch.linspace(-0.99999, 0.99999, 20001, dtype=torch.float64)
    density = actor.log_prob(torch.zeros(20001, 1).double(), actor.unscale(scaled[:, None])).exp()
    assert float(torch.trapezoid(density, scaled).detach()) == pytest.approx(1, abs=2e-3)


def test_gaussian_sampling_is_differentiable_in_the_parameters():
    actor, obs = make("tanh_gaussian"), observations()
    action, log_prob = actor.sample_with_log_prob(obs, torch.randn(6, 2, generator=generator(5)))
    (action.sum() + log_prob.sum()).backward()
    assert float(actor.net.flat.grad.abs().sum()) > 0


def test_gaussian_log_std_is_clipped_and_no_noise_means_tanh_of_the_mean():
    actor, obs = make("tanh_gaussian", log_std_bounds=(-1.0, 0.5)), observations()
    fixed_head(actor, 0.3, -0.7, -20.0, 20.0)
    mean, log_std = actor.moments(obs)
    assert log_std[0].tolist() == [-1.0, 0.5]
    torch.testing.assert_close(actor.scale(actor.act(obs)), torch.tanh(mean).detach())


@pytest.mark.parametrize("kind", ["tanh_gaussian", "mixture"])
def test_an_action_on_the_bound_has_a_finite_density_and_gradient(kind):
    actor, obs = make(kind), observations(2)
    log_prob = actor.log_prob(obs, torch.tensor([SPACE.act_low, SPACE.act_high]))
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert actor.net.flat.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["tanh_gaussian", "mixture"])
def test_draw_k_of_row_b_is_the_action_for_that_noise(kind):
    actor, obs = make(kind), observations(4)
    noise = torch.randn(5, 4, 2, generator=generator(6))
    draws = actor.sample(obs, 5, noise)
    for k in range(5):
        torch.testing.assert_close(draws[k], actor.act(obs, noise[k]))
    with pytest.raises(ValueError, match="count is 3"):
        actor.sample(obs, 3, noise)


@pytest.mark.parametrize("kind", ["tanh_gaussian", "mixture"])
def test_draws_have_the_stated_density(kind):
    """Mean of 1/p over draws inside a set is the volume of that set."""
    actor = make(kind).double()
    obs = observations(1).double()
    noise = torch.randn(200_000, 1, 2, generator=generator(7), dtype=torch.float64)
    action = actor.sample(obs, 200_000, noise)[:, 0]
    scaled = actor.scale(action)
    inside = (scaled.abs() < 0.5).all(-1)
    log_prob = actor.log_prob(obs.expand(200_000, 3), action)
    volume = float((inside * (-log_prob).exp()).mean().detach())
    assert volume == pytest.approx(1.0, rel=0.03)  # a square of side 1


def test_mixture_log_prob_equals_the_transformed_reference():
    actor, obs = make("mixture").double(), observations().double()
    log_weights, means, log_stds = actor.components(obs)
    mixture = MixtureSameFamily(
        Categorical(logits=log_weights), Independent(Normal(means, log_stds.exp()), 1), validate_args=False
    )
    reference = TransformedDistribution(mixture, TanhTransform(), validate_args=False)
    scaled = torch.tanh(torch.randn(6, 2, generator=generator(8), dtype=torch.float64))
    ours = actor.log_prob(obs, actor.unscale(scaled))
    torch.testing.assert_close(ours, reference.log_prob(scaled), atol=1e-9, rtol=1e-9)


def test_mixture_draws_components_by_weight_and_a_full_normal_within_each():
    space = SpaceSpec(1, 2, (-1.0, -1.0), (1.0, 1.0))
    actor = make("mixture", space=space).double()
    weights = (0.2, 0.5, 0.3)
    centres, log_stds = (-2.0, 0.0, 2.0), (-2.5, -2.0, -3.0)  # far apart: a draw tells its component
    heads = [math.log(w) for w in weights]
    heads += [v for c in centres for v in (c, 2 * c)] + [v for s in log_stds for v in (s, s + 0.5)]
    fixed_head(actor, *heads)
    count = 20_000
    noise = torch.randn(count, 2, generator=generator(9), dtype=torch.float64)
    x = torch.atanh(actor.act(torch.zeros(count, 1).double(), noise).clamp(-1 + 1e-12, 1 - 1e-12))
    component = (x[:, :1] - torch.tensor(centres).double()).abs().argmin(-1)
    observed = torch.bincount(component, minlength=3).numpy()
    assert stats.chisquare(observed, [count * w for w in weights]).pvalue > 1e-3
    for k in range(3):
        rows = component == k
        standard = (x[rows, 0] - centres[k]) / math.exp(log_stds[k])
        assert stats.kstest(standard.numpy(), "norm").pvalue > 1e-3
        other = (x[rows, 1] - 2 * centres[k]) / math.exp(log_stds[k] + 0.5)
        assert stats.kstest(other.numpy(), "norm").pvalue > 1e-3
        assert abs(stats.pearsonr(standard.numpy(), other.numpy()).statistic) < 0.06


def test_mixture_without_noise_takes_the_component_with_the_highest_peak():
    space = SpaceSpec(1, 1, (-1.0,), (1.0,))
    actor = make("mixture", space=space, components=2)
    fixed_head(actor, math.log(0.6), math.log(0.4), -1.0, 1.0, 0.0, -1.0)  # 0.6/1 < 0.4/exp(-1)
    assert float(actor.act(torch.zeros(1, 1))) == pytest.approx(math.tanh(1.0))
    fixed_head(actor, math.log(0.6), math.log(0.4), -1.0, 1.0, 0.0, 0.0)
    assert float(actor.act(torch.zeros(1, 1))) == pytest.approx(math.tanh(-1.0))


def test_a_mixture_of_one_is_the_gaussian():
    gaussian, mixture = make("tanh_gaussian").double(), make("mixture", components=1).double()
    fixed_head(gaussian, 0.2, -0.4, -1.0, 0.5)
    fixed_head(mixture, 1.7, 0.2, -0.4, -1.0, 0.5)  # a lone logit means nothing
    assert isinstance(gaussian, TanhGaussianActor)
    assert isinstance(mixture, MixtureActor)
    obs, noise = observations().double(), torch.randn(6, 2, generator=generator(10), dtype=torch.float64)
    action = gaussian.act(obs, noise)
    torch.testing.assert_close(mixture.act(obs, noise), action, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mixture.log_prob(obs, action), gaussian.log_prob(obs, action))


def test_extreme_noise_and_weights_stay_finite():
    actor = make("mixture", space=SpaceSpec(1, 1, (-1.0,), (1.0,)), components=2)
    fixed_head(actor, 50.0, -50.0, 0.0, 0.0, 0.0, 0.0)  # one component has no weight in float32
    noise = torch.tensor([[-40.0], [-6.0], [0.0], [6.0], [40.0]])
    action = actor.act(torch.zeros(5, 1), noise)
    assert action.isfinite().all()
    assert (action[1:] >= action[:-1]).all()


def test_a_clipped_gaussian_has_a_mean_inside_the_box_and_one_deviation_for_all_states():
    actor, obs = make("clipped_gaussian"), observations()
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-1.0, -9.0]))  # the second is cut at -5
    mean, log_std = actor.moments(obs)
    torch.testing.assert_close(mean, torch.tanh(actor.head(obs)))
    assert log_std.tolist() == [-1.0, -5.0]
    torch.testing.assert_close(actor.act(obs), actor.unscale(mean).detach())
    far = torch.tensor([[9.0, 0.0]]).expand(6, 2)
    torch.testing.assert_close(actor.act(obs, far)[:, 0], torch.full((6,), 3.0))  # clipped at the upper bound
    noise = torch.randn(6, 2, generator=generator(3))
    expected = (mean + log_std.exp() * noise).clamp(-1, 1)
    torch.testing.assert_close(actor.scaled_sample(obs, noise), expected.detach())
    many = torch.stack([noise, far])
    torch.testing.assert_close(actor.scaled_sample(obs, many)[0], expected.detach())
    torch.testing.assert_close(actor.sample(obs, 2, many)[1], actor.act(obs, far))


def test_the_density_of_a_clipped_gaussian_is_the_normal_one_on_the_scaled_action_also_at_a_bound():
    actor, obs = make("clipped_gaussian").double(), observations().double()
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-1.0, 0.5]))
    mean, log_std = actor.moments(obs)
    scaled = 2 * torch.rand(6, 2, generator=generator(3), dtype=torch.float64) - 1
    scaled[0] = 1.0
    expected = Normal(mean, log_std.exp()).log_prob(scaled).sum(-1)
    torch.testing.assert_close(actor.log_prob(obs, actor.unscale(scaled)), expected)


def test_leading_axes_of_noise_give_many_actions_and_densities_for_each_observation():
    actor, obs = make("tanh_gaussian"), observations()
    noise = torch.randn(4, 6, 2, generator=generator(3))
    actions, log_probs = actor.sample_with_log_prob(obs, noise)
    for k in range(4):
        action, log_prob = actor.sample_with_log_prob(obs, noise[k])
        torch.testing.assert_close(actions[k], action)
        torch.testing.assert_close(log_probs[k], log_prob)
