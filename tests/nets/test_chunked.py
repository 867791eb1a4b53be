import torch

from mbrl.nets.chunked import chunked_sum
from mbrl.nets.stack import StackedMLP


def make() -> tuple[StackedMLP, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = StackedMLP(3, 4, (16, 16), 1, generator=generator).double()
    return net, torch.randn(10, 4, generator=generator, dtype=torch.float64)


def test_value_and_gradient_are_those_of_the_sum_in_one_piece():
    net, x = make()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    whole = torch.logsumexp(net(x).squeeze(-1)[..., None], -1).square().sum(1)
    (expected,) = torch.autograd.grad((weights * whole.sin()).sum(), net.flat)
    sizes = [slice(0, 4), slice(4, 8), slice(8, 10)]  # the last chunk is smaller
    pieces = chunked_sum(net.flat, lambda k: net(x[sizes[k]]).squeeze(-1).square().sum(1), 3)
    (gradient,) = torch.autograd.grad((weights * pieces.sin()).sum(), net.flat)
    torch.testing.assert_close(pieces.detach(), whole.detach())
    torch.testing.assert_close(gradient, expected)


def test_it_adds_to_other_losses_of_the_same_parameter_and_leaves_no_gradient_behind():
    net, x = make()
    other = net(x).sum()
    term = chunked_sum(net.flat, lambda k: net(x[5 * k : 5 * k + 5]).squeeze(-1).sum(1), 2).sum()
    assert net.flat.grad is None
    (other + term).backward()
    (once,) = torch.autograd.grad(net(x).sum(), net.flat)
    torch.testing.assert_close(net.flat.grad, 2 * once)


def test_without_gradients_it_is_only_the_sum():
    net, x = make()
    with torch.no_grad():
        total = chunked_sum(net.flat, lambda k: net(x[5 * k : 5 * k + 5]).squeeze(-1).sum(1), 2)
    assert not total.requires_grad
    torch.testing.assert_close(total, net(x).detach().squeeze(-1).sum(1))
