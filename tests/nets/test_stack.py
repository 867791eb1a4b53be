import pytest
import torch
from torch import nn

from mbrl.nets.stack import StackedMLP

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


def make(members=3, sizes=(5, 16, 12, 4), *, activation="silu", layer_norm=False, seed=0, init="uniform"):
    return StackedMLP(
        members,
        sizes[0],
        sizes[1:-1],
        sizes[-1],
        generator=torch.Generator().manual_seed(seed),
        activation=activation,
        layer_norm=layer_norm,
        init=init,
    )


def draw(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def perturb_norms(net):
    """Gains of 1 and shifts of 0 would hide errors."""
    with torch.no_grad():
        for k, layer in enumerate(net.layers(net.flat)):
            if layer.gain is not None:
                layer.gain.add_(0.3 * draw(*layer.gain.shape, seed=10 + k))
                layer.shift.add_(0.3 * draw(*layer.shift.shape, seed=20 + k))
    return net


def as_modules(net, member):
    """The member as a chain of torch's own layers."""
    parts = []
    layers = net.layers(net.flat.detach())
    with torch.no_grad():
        for k, layer in enumerate(layers):
            linear = nn.Linear.__new__(nn.Linear)
            nn.Module.__init__(linear)
            linear.weight = nn.Parameter(layer.weight[member].T.clone())
            linear.bias = nn.Parameter(layer.bias[member, 0].clone())
            parts.append(linear)
            if layer.gain is not None:
                norm = nn.LayerNorm(layer.gain.shape[-1])
                norm.weight.copy_(layer.gain[member, 0])
                norm.bias.copy_(layer.shift[member, 0])
                parts.append(norm)
            if k < len(layers) - 1:
                parts.append(ACTIVATIONS[net.activation]())
    return nn.Sequential(*parts)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("out_dim", [4, 1])
def test_forward_is_a_loop_of_torch_layers(activation, layer_norm, out_dim):
    net = perturb_norms(make(sizes=(5, 16, 12, out_dim), activation=activation, layer_norm=layer_norm))
    x = draw(9, 5)
    expected = torch.stack([as_modules(net, member)(x) for member in range(3)])
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.forward_composite(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("out_dim", [4, 1])
def test_hand_written_gradients_are_autograds(activation, layer_norm, out_dim):
    net = perturb_norms(
        make(sizes=(5, 16, 12, out_dim), activation=activation, layer_norm=layer_norm)
    ).double()
    x = draw(3, 9, 5, dtype=torch.float64).requires_grad_()
    weights = draw(3, 9, out_dim, seed=2, dtype=torch.float64)
    results = [
        torch.autograd.grad((weights * forward(x)).sum(), (net.flat, x))
        for forward in (net.forward, net.forward_composite)
    ]
    for mine, oracle in zip(*results, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-6, atol=1e-9)


def test_a_shared_batch_collects_the_gradients_of_all_members():
    net, x = make(), draw(9, 5).requires_grad_()
    (mine,) = torch.autograd.grad(net(x).square().sum(), x)
    (oracle,) = torch.autograd.grad(net.forward_composite(x).square().sum(), x)
    torch.testing.assert_close(mine, oracle)


def test_frozen_parameters_get_no_gradient_and_inputs_do():
    net, x = make(), draw(9, 5).requires_grad_()
    net(x, frozen=True).sum().backward()
    assert net.flat.grad is None
    (oracle,) = torch.autograd.grad(net.forward_composite(x).sum(), x)
    torch.testing.assert_close(x.grad, oracle)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_first_members_alone_answer_and_learn_as_in_company(layer_norm):
    net = perturb_norms(make(layer_norm=layer_norm))
    x = draw(9, 5).requires_grad_()
    torch.testing.assert_close(net(x, first=2), net(x)[:2])
    with torch.no_grad():
        torch.testing.assert_close(net(x, first=1), net(x)[:1])
    mine = torch.autograd.grad(net(x, first=2).square().sum(), (x, net.flat))
    oracle = torch.autograd.grad(net(x)[:2].square().sum(), (x, net.flat))
    torch.testing.assert_close(mine, oracle)
    net(x, first=1, frozen=True).sum().backward()
    assert net.flat.grad is None


def test_members_are_independent():
    net = make()
    (gradient,) = torch.autograd.grad(net(draw(9, 5))[1].square().sum(), net.flat)
    assert gradient[[0, 2]].abs().max() == 0
    assert gradient[1].abs().max() > 0
    assert not torch.equal(net.flat[0], net.flat[1])


def test_permuting_members_permutes_outputs():
    net, x, order = make(), draw(9, 5), torch.tensor([2, 0, 1])
    torch.testing.assert_close(net.select(order)(x), net(x)[order])


def test_selected_members_are_copies():
    net, x = make(layer_norm=True), draw(9, 5)
    chosen = net.select(torch.tensor([1]))
    before = chosen(x).detach().clone()
    with torch.no_grad():
        net.flat.zero_()
    assert torch.equal(chosen(x), before)


def test_every_parameter_belongs_to_one_layer():
    net = make(layer_norm=True)
    owned = torch.zeros_like(net.flat.detach())
    for layer in net.layers(owned):
        for part in layer:
            if part is not None:
                part.add_(1)
    assert torch.equal(owned, torch.ones_like(owned))


def test_initialisation_is_a_function_of_the_generator():
    assert torch.equal(make(seed=4).flat, make(seed=4).flat)
    assert not torch.equal(make(seed=4).flat, make(seed=5).flat)


def test_truncated_normal_has_the_stated_spread():
    net = make(members=2, sizes=(400, 300, 2), init="truncated_normal")
    layer = net.layers(net.flat.detach())[0]
    deviation = 1 / (2 * 400**0.5)
    assert layer.weight.abs().max() <= 2 * deviation + 1e-6
    assert float(layer.weight.std()) == pytest.approx(0.8796 * deviation, rel=0.01)  # of a normal cut at +-2
    assert layer.bias.abs().max() == 0


def test_uniform_has_the_bounds_of_torch():
    layer = make(sizes=(400, 300, 2)).layers(make(sizes=(400, 300, 2)).flat.detach())[0]
    assert float(layer.weight.abs().max()) == pytest.approx(400**-0.5, rel=1e-3)
    assert float(layer.weight.std()) == pytest.approx((3 * 400) ** -0.5, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "activation", "layer_norm"),
    [
        ((5, 16, 12, 4), "relu", False),
        ((5, 3), "relu", False),
        ((5, 16, 2), "silu", False),
        ((5, 8, 2), "relu", True),
    ],
)
def test_gradient_of_the_first_output_and_its_derivative_in_the_parameters(sizes, activation, layer_norm):
    net = perturb_norms(make(sizes=sizes, activation=activation, layer_norm=layer_norm))
    x = draw(7, 5).expand(3, 7, 5).clone().requires_grad_()
    weights = draw(3, 7, 5, seed=2)
    (wanted,) = torch.autograd.grad(net.forward_composite(x)[..., 0].sum(), x, create_graph=True)
    ours = net.first_output_gradient(x.detach())
    torch.testing.assert_close(ours, wanted)
    pair = [torch.autograd.grad((g * weights).square().sum(), net.flat)[0] for g in (ours, wanted)]
    assert pair[1].abs().sum() > 0
    torch.testing.assert_close(*pair)
    shared = net.first_output_gradient(draw(7, 5))
    torch.testing.assert_close(shared, ours)
