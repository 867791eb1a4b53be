import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.data.sources import DatasetSource
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.bc import BC, BCConfig, cloning_loss
from mbrl.nets.normaliser import Normaliser

SPACE = SpaceSpec(2, 2, (-1.0, 0.0), (3.0, 10.0))
CONTEXT = LearnerContext(SPACE, Normaliser.identity(2), 150)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logged(obs: torch.Tensor, scaled_action: torch.Tensor) -> TransitionBatch:
    """Transitions with the given actions; all that a clone must not read is NaN."""
    nothing = torch.full((len(obs),), math.nan)
    action = scaled_action * torch.tensor([2.0, 5.0]) + torch.tensor([1.0, 5.0])
    return TransitionBatch(
        obs,
        action,
        nothing,
        torch.full_like(obs, math.nan),
        nothing > 0,
        torch.zeros(len(obs), dtype=torch.bool),
    )


def train(config: BCConfig, data: TransitionBatch, updates: int, context: LearnerContext = CONTEXT):
    learner = BC(config, context)
    state, source = learner.init(generator()), DatasetSource(data)
    for step in range(updates):
        learner.update(state, source.sample(config.batch_size, generator(step)), generator(step))
    return learner, state


def test_deterministic_clone_recovers_a_known_mapping():
    weights = torch.tensor([[0.5, -0.3], [0.2, 0.4]])
    obs = torch.randn(2000, 2, generator=generator(1))
    # linear before the squashing, so least squares on atanh(a) would find it exactly; noise averages out
    scaled = torch.tanh(obs @ weights)
    noisy = (scaled + 0.1 * torch.randn(2000, 2, generator=generator(2))).clamp(-1, 1)
    learner, state = train(
        BCConfig(hidden=(32,), learning_rate=5e-3, schedule="cosine"), logged(obs, noisy), 1000
    )
    fresh = torch.randn(500, 2, generator=generator(3))
    clone = state.actor.scale(learner.policy(state).act(fresh))
    error = (clone - torch.tanh(fresh @ weights)).square().mean().sqrt()
    assert float(error) < 0.05  # far below the noise of the logs


def test_gaussian_clone_recovers_mean_and_deviation_and_nears_the_entropy_of_the_data():
    obs = torch.randn(4000, 2, generator=generator(1))
    mean, std = torch.tensor([0.3, -0.5]), torch.tensor([0.2, 0.6])
    x = mean + std * torch.randn(4000, 2, generator=generator(2))
    config = BCConfig(form="gaussian", hidden=(16,), learning_rate=2e-2, schedule="cosine")
    _, state = train(config, logged(obs, torch.tanh(x)), 150)
    with torch.no_grad():
        fitted_mean, log_std = state.actor.moments(torch.randn(200, 2, generator=generator(3)))
    torch.testing.assert_close(fitted_mean.mean(0), x.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(log_std.exp().mean(0), x.std(0), atol=0.04, rtol=0)


def test_a_mixture_finds_two_modes_where_a_gaussian_cannot():
    obs = torch.randn(4000, 2, generator=generator(1))
    sign = (torch.rand(4000, 1, generator=generator(2)) < 0.3).float() * 2 - 1
    x = 0.8 * sign + 0.1 * torch.randn(4000, 2, generator=generator(3))
    train_rows, held_out = logged(obs[:3000], torch.tanh(x[:3000])), logged(obs[3000:], torch.tanh(x[3000:]))
    loss = {}
    for form in ("gaussian", "mixture"):
        config = BCConfig(form=form, hidden=(16,), learning_rate=2e-2, components=3, schedule="cosine")
        learner, state = train(config, train_rows, 150)
        loss[form] = float(cloning_loss(state.actor, held_out).detach())
    share, component = torch.tensor([0.3, 0.7]), torch.tensor([0.8, -0.8])
    normal = torch.distributions.Normal(component[:, None], torch.tensor(0.1))
    point = x[3000:]
    true = torch.logsumexp(share.log() + normal.log_prob(point[:, None]).sum(-1), 1)
    best = -(true - (1 - torch.tanh(point) ** 2).log().sum(-1)).mean()
    assert loss["gaussian"] > loss["mixture"] + 0.8
    assert loss["mixture"] < float(best) + 0.15
    action = state.actor.scale(
        learner.policy(state).act(obs[:500], torch.randn(500, 2, generator=generator(4)))
    )
    modes = torch.atanh(action.clamp(-0.999, 0.999))
    assert float((modes[:, 0] > 0).float().mean()) == pytest.approx(0.3, abs=0.08)
    assert float((modes[:, 0] * modes[:, 1] > 0).float().mean()) > 0.97  # never half of each mode


def test_loss_by_hand_and_negative_log_likelihood():
    data = logged(torch.zeros(2, 2), torch.tensor([[0.5, 0.0], [-0.5, 1.0]]))
    state = BC(BCConfig(hidden=(4,)), CONTEXT).init(generator())
    with torch.no_grad():
        state.actor.net.flat.zero_()
    assert float(cloning_loss(state.actor, data).detach()) == pytest.approx((0.25 + 0 + 0.25 + 1) / 4)
    gaussian = BC(BCConfig(form="gaussian", hidden=(4,)), CONTEXT).init(generator()).actor
    expected = -gaussian.log_prob(data.observation, data.action).mean()
    torch.testing.assert_close(cloning_loss(gaussian, data), expected)


def test_an_update_reports_the_loss_before_it_and_draws_nothing():
    data = logged(torch.randn(64, 2, generator=generator(1)), torch.zeros(64, 2))
    learner = BC(BCConfig(form="mixture", hidden=(8,)), CONTEXT)
    state, draws = learner.init(generator()), generator(5)
    before = draws.get_state()
    expected = float(cloning_loss(state.actor, data).detach())
    metrics = learner.update(state, data, draws)
    assert float(metrics["policy/loss"]) == pytest.approx(expected)
    assert float(cloning_loss(state.actor, data).detach()) < expected
    assert torch.equal(draws.get_state(), before)
    assert learner.value(state) is None


def test_a_cosine_schedule_ends_where_nothing_moves():
    data = logged(torch.randn(64, 2, generator=generator(1)), torch.zeros(64, 2))
    learner = BC(BCConfig(hidden=(8,), schedule="cosine"), dataclasses.replace(CONTEXT, total_updates=3))
    state = learner.init(generator())
    for _ in range(3):
        learner.update(state, data, generator())
    before = state.actor.net.flat.detach().clone()
    learner.update(state, data, generator())
    assert torch.equal(before, state.actor.net.flat.detach())


def test_the_networks_share_no_normaliser():
    learner = BC(BCConfig(), CONTEXT)
    first, second = learner.init(generator()), learner.init(generator())
    assert first.actor.normaliser is not second.actor.normaliser
    assert first.actor.normaliser is not CONTEXT.normaliser


def test_it_is_registered_and_refuses_bad_keys():
    assert LEARNERS.get("bc") is BC
    with pytest.raises(ValueError, match="fom"):
        BCConfig(fom="gaussian")
    with pytest.raises(ValueError, match="discount"):
        BCConfig(discount=1.0)
