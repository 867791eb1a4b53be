"""Every width of a head gives the plain products."""

import pytest
import torch

from mbrl.nets.head import apply_head, input_gradient, write_weight_gradient

COLUMNS = (1, 2, 3, 15, 16, 24)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("members", [1, 3])
def test_head_and_gradients_are_the_plain_products(columns: int, members: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    h = torch.randn(members, 7, 5, generator=generator, requires_grad=True)
    weight = torch.randn(members, 5, columns, generator=generator, requires_grad=True)
    bias = torch.randn(members, 1, columns, generator=generator)
    grad = torch.randn(members, 7, columns, generator=generator)
    out = apply_head(h, weight, bias)
    assert out.is_contiguous()
    torch.testing.assert_close(out, h @ weight + bias)
    wanted = torch.autograd.grad(h @ weight, (h, weight), grad)
    for ours, theirs in zip(torch.autograd.grad(out, (h, weight), grad), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    written = torch.full_like(weight, torch.nan).detach()
    with torch.no_grad():
        write_weight_gradient(h, grad, out=written)
        torch.testing.assert_close(input_gradient(grad, weight), wanted[0])
    torch.testing.assert_close(written, wanted[1])


def test_the_gradient_is_written_into_a_part_of_a_larger_tensor() -> None:
    flat = torch.zeros(2, 50)
    view = flat[:, 10:25].view(2, 5, 3)
    write_weight_gradient(torch.ones(2, 7, 5), torch.ones(2, 7, 3), out=view)
    assert flat[:, 10:25].eq(7).all()
    assert flat.sum() == 2 * 15 * 7
