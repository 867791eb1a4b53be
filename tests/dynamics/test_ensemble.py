import pytest
import torch

from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ops.gaussian import soft_clamp


def make_ensemble(members=4, obs_dim=3, act_dim=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = obs_dim + act_dim
    net = StackedMLP(
        members, size, (16, 16), 2 * (obs_dim + 1), generator=generator, activation="silu", layer_norm=True
    )
    bounds = torch.randn(members, 2, obs_dim + 1, generator=generator) * 0.1
    bounds += torch.tensor([-4.0, 0.5])[:, None]
    inputs = Normaliser(torch.randn(size, generator=generator), 0.5 + torch.rand(size, generator=generator))
    targets = Normaliser(
        torch.randn(obs_dim + 1, generator=generator), 0.5 + torch.rand(obs_dim + 1, generator=generator)
    )
    temperature = 0.5 + torch.rand(obs_dim + 1, generator=generator)
    return DynamicsEnsemble(net, bounds, inputs=inputs, targets=targets, temperature=temperature)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    obs, action = torch.randn(50, 3, generator=generator), torch.randn(50, 2, generator=generator)
    return obs, action, torch.randint(4, (50,), generator=generator)


def test_predict_undoes_the_normalisation(rows):
    model, (obs, action, _) = make_ensemble(), rows
    x = (torch.cat((obs, action), 1) - model.inputs.mean) / model.inputs.std
    mean, raw = model.net.forward_composite(x).chunk(2, -1)
    log_variance = soft_clamp(raw, model.bounds[:, :1], model.bounds[:, 1:])
    posterior = model.predict(obs, action)
    scale, shift = model.targets.std, model.targets.mean
    torch.testing.assert_close(posterior.mean, obs + mean[..., :3] * scale[:3] + shift[:3])
    torch.testing.assert_close(posterior.reward_mean, mean[..., 3] * scale[3] + shift[3])
    std = log_variance.mul(0.5).exp() * model.temperature * scale
    torch.testing.assert_close(posterior.variance, std[..., :3].square())
    torch.testing.assert_close(posterior.reward_variance, std[..., 3].square())
    torch.testing.assert_close(posterior.delta_scale, scale[:3])
    torch.testing.assert_close(posterior.reward_scale, scale[3])


@pytest.mark.parametrize("only", [None, 2, 0], ids=["mixed", "third_has_all_rows", "first_has_all_rows"])
def test_predict_member_is_the_row_of_predict(rows, only):
    model, (obs, action, member) = make_ensemble(), rows
    member = member if only is None else torch.full_like(member, only)
    posterior = model.predict(obs, action)
    index = torch.arange(len(obs))
    expected = (posterior.mean, posterior.variance, posterior.reward_mean, posterior.reward_variance)
    for mine, full in zip(model.predict_member(obs, action, member), expected, strict=True):
        torch.testing.assert_close(mine, full[member, index], rtol=1e-5, atol=1e-6)


def test_selected_members_predict_as_before_and_do_not_learn(rows):
    model, (obs, action, _) = make_ensemble(), rows
    chosen = model.select(torch.tensor([3, 1]))
    torch.testing.assert_close(chosen.predict(obs, action).mean, model.predict(obs, action).mean[[3, 1]])
    torch.testing.assert_close(
        chosen.predict(obs, action).reward_variance, model.predict(obs, action).reward_variance[[3, 1]]
    )
    with torch.no_grad():
        model.net.flat[2] = torch.nan  # a member that was not chosen
    assert bool(torch.isfinite(chosen.predict(obs, action).mean).all())
    assert not any(parameter.requires_grad for parameter in chosen.parameters())


def test_log_variance_stays_inside_its_bounds():
    model = make_ensemble()
    _, log_variance = model.forward(1e4 * torch.randn(64, 5, generator=torch.Generator().manual_seed(2)))
    low, high = model.bounds[:, :1], model.bounds[:, 1:]
    leak = torch.log1p(torch.exp(low - high))
    assert bool((log_variance >= low - 1e-5).all())
    assert bool((log_variance <= high + leak + 1e-5).all())


def test_changes_are_predicted_exactly_far_from_zero(rows):
    offset, (obs, action, _) = 2.0**20, rows
    near, far = make_ensemble(), make_ensemble()
    near.inputs.mean[:3], far.inputs.mean[:3] = 0.0, offset  # both networks see the same inputs
    expected, found = near.predict(obs.round(), action), far.predict(obs.round() + offset, action)
    assert torch.equal(found.change, expected.change)
    assert not torch.equal(found.mean - (obs.round() + offset), expected.change)  # float32 lost it there
    torch.testing.assert_close(expected.mean, obs.round() + expected.change)
