import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.nets.critics import CriticEnsemble, StateValue
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.losses import critic_diversity, critic_loss

SPACE = SpaceSpec(3, 2, (-1.0, 0.0), (3.0, 10.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(count: int = 4, *, layer_norm: bool = False, activation: str = "relu") -> CriticEnsemble:
    normaliser = Normaliser(torch.full((3,), 2.0), torch.full((3,), 3.0))
    return CriticEnsemble(
        count,
        SPACE,
        (16, 16),
        normaliser,
        generator=generator(),
        layer_norm=layer_norm,
        activation=activation,
    )


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draws = generator(seed)
    return torch.randn(7, 3, generator=draws) * 3 + 2, torch.rand(7, 2, generator=draws) * 2 - 1


def member_gradients(critic: CriticEnsemble, loss: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss, critic.net.flat)
    return gradient


@pytest.mark.parametrize("layer_norm", [False, True])
def test_members_differ_at_init_and_have_separate_gradients(layer_norm):
    critic = make(layer_norm=layer_norm)
    obs, action = inputs()
    values = critic(obs, action)
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(values[i], values[j])
    for i in range(4):
        gradient = member_gradients(critic, critic(obs, action)[i].square().sum())
        touched = gradient.abs().sum(1) > 0
        assert touched.tolist() == [k == i for k in range(4)]


def test_the_summed_loss_gives_a_member_the_gradient_it_has_alone():
    critic = make()
    obs, action = inputs()
    target = torch.randn(7, generator=generator(2))
    together = member_gradients(critic, critic_loss(critic(obs, action), target))
    for i in range(4):
        alone = member_gradients(critic, critic_loss(critic(obs, action)[i : i + 1], target))
        torch.testing.assert_close(together[i], alone[i])


def test_values_do_not_mix_rows_and_use_normalised_observations():
    critic = make()
    obs, action = inputs()
    values = critic(obs, action)
    torch.testing.assert_close(critic(obs[3:4], action[3:4])[:, 0], values[:, 3])
    plain = CriticEnsemble(4, SPACE, (16, 16), Normaliser.identity(3), generator=generator())
    torch.testing.assert_close(plain((obs - 2) / 3, action), values)


def test_actions_are_scaled_by_the_bounds_of_each_dimension():
    scaled = make().scale(torch.tensor([[-1.0, 0.0], [1.0, 7.5], [3.0, 10.0]]))
    torch.testing.assert_close(scaled, torch.tensor([[-1.0, -1.0], [0.0, 0.5], [1.0, 1.0]]))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_frozen_values_leave_the_parameters_alone_but_not_the_action(layer_norm):
    critic = make(layer_norm=layer_norm)
    obs, action = inputs()
    gradients = []
    for frozen in (True, False):
        leaf = action.clone().requires_grad_()
        values = critic(obs, leaf, frozen=frozen)
        values.amin(0).sum().backward()
        gradients.append(leaf.grad)
        assert (critic.net.flat.grad is None) is frozen
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(gradients[0].abs().sum()) > 0


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
def test_action_gradients_are_those_of_each_critic(layer_norm, activation):
    critic = make(layer_norm=layer_norm, activation=activation)
    obs, action = inputs()
    ours = critic.action_gradients(obs, action)
    for i in range(4):
        leaf = action.clone().requires_grad_()
        (expected,) = torch.autograd.grad(critic(obs, leaf)[i].sum(), leaf)
        torch.testing.assert_close(ours[i].detach(), expected, atol=1e-6, rtol=1e-5)


def test_the_diversity_term_has_a_right_gradient_in_the_parameters():
    critic = make(2, activation="tanh").double()
    obs, action = (part.double() for part in inputs())

    def term() -> torch.Tensor:
        return critic_diversity(critic.action_gradients(obs, action))

    gradient = member_gradients(critic, term())
    direction = torch.randn(critic.net.flat.shape, generator=generator(3), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        critic.net.flat.add_(step * direction)
    above = float(term().detach())
    with torch.no_grad():
        critic.net.flat.sub_(2 * step * direction)
    below = float(term().detach())
    assert (above - below) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_many_actions_of_a_state_are_each_judged_at_that_state():
    critic = make()
    obs, action = inputs()
    actions = torch.stack([action, -action, 0.5 * action])
    values = critic.at_actions(obs, actions)
    for k in range(3):
        torch.testing.assert_close(values[:, k], critic(obs, actions[k]))


def test_a_state_value_sees_normalised_observations():
    normaliser = Normaliser(torch.full((3,), 2.0), torch.full((3,), 3.0))
    value = StateValue(SPACE, (16,), normaliser, generator=generator())
    plain = StateValue(SPACE, (16,), Normaliser.identity(3), generator=generator())
    obs, _ = inputs()
    torch.testing.assert_close(value(obs), plain((obs - 2) / 3))
    torch.testing.assert_close(value(obs), value.net((obs - 2) / 3)[0, :, 0])
