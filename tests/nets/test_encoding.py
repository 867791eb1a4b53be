import pytest
import torch

from mbrl.nets.encoding import PiecewiseLinearEncoding


def test_by_hand():
    encoding = PiecewiseLinearEncoding(torch.tensor([[0.0, -1.0], [1.0, 1.0], [4.0, 2.0]]))
    encoded = encoding(torch.tensor([[9.0, 2.5, 0.0], [9.0, -3.0, 5.0]]))
    expected = [
        [9.0, 2.5, 0.0, 1.0, 0.5, 0.5, 0.0],  # first intervals of both coordinates, then the second ones
        [9.0, -3.0, 5.0, 0.0, 1.0, 0.0, 1.0],
    ]
    torch.testing.assert_close(encoded, torch.tensor(expected))
    assert encoded.shape[-1] == 3 + encoding.added_size


def test_equal_edges_make_a_step():
    encoding = PiecewiseLinearEncoding(torch.tensor([[0.0], [0.5], [0.5], [1.0]]))
    step = encoding(torch.tensor([[0.49], [0.5], [0.51]]))[:, 2]
    assert step.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


def test_one_row_of_edges_changes_nothing():
    encoding, x = PiecewiseLinearEncoding(torch.zeros(1, 2)), torch.ones(4, 3)
    assert encoding.added_size == 0
    assert torch.equal(encoding(x), x)


def test_leading_axes_are_kept():
    encoding = PiecewiseLinearEncoding(torch.tensor([[0.0], [1.0]]))
    x = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0))
    for k in range(3):
        torch.testing.assert_close(encoding(x)[k], encoding(x[k]))


def test_descending_edges_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        PiecewiseLinearEncoding(torch.tensor([[1.0], [0.0]]))
