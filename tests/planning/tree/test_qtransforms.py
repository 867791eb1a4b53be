"""Values on one scale, by hand."""

import math

import pytest
import torch

from mbrl.planning.tree.qtransforms import mix_value, scale_completed, scale_visited
from tests.planning.tasks import DOUBLE


def _row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=DOUBLE)


def test_the_mixed_value_by_hand():
    q = 10.0 / 54.0 * torch.tensor([[20.0, 3.0, -1.0, 10.0]], dtype=torch.float64)
    visits = torch.tensor([[0.0, 4.0, 4.0, 0.0]], dtype=torch.float64)
    logits = torch.tensor([[-math.inf, -1.0, 2.0, -math.inf]], dtype=torch.float64)
    probs, raw = logits.softmax(-1), torch.tensor([-0.8], dtype=torch.float64)
    expected = (-0.8 + 8.0 * float((probs * q)[0, 1:3].sum())) / 9.0
    assert float(mix_value(q, visits, probs=probs, raw_value=raw)) == pytest.approx(expected)
    assert float(mix_value(0 * q, 0 * visits, probs=probs, raw_value=raw)) == pytest.approx(-0.8)


def test_sigma_by_hand():
    """Values 1 and 3, a third action worth the mix; scale (50 + 4) 0.1."""
    q = torch.tensor([[1.0, 3.0, 99.0]], dtype=DOUBLE)
    visits = torch.tensor([[4.0, 1.0, 0.0]], dtype=DOUBLE)
    probs = torch.tensor([[0.25, 0.25, 0.5]], dtype=DOUBLE)
    mix = (0.0 + 5.0 * 2.0) / 6.0
    sigma = scale_completed(
        q, visits, probs=probs, raw_value=torch.zeros(1, dtype=DOUBLE),
        floor=torch.full((1, 1), 1e-8, dtype=DOUBLE), visit_offset=50.0, value_coef=0.1,
    )  # fmt: skip
    assert sigma[0].tolist() == pytest.approx([0.0, 5.4, 5.4 * (mix - 1.0) / 2.0])
    floored = scale_completed(
        q, visits, probs=probs, raw_value=torch.zeros(1, dtype=DOUBLE),
        floor=torch.full((1, 1), 20.0, dtype=DOUBLE), visit_offset=50.0, value_coef=0.1,
    )  # fmt: skip
    assert floored[0].tolist() == pytest.approx([0.0, 0.54, 0.54 * (mix - 1.0) / 2.0])
    assert math.isclose(float(floored.amax()), 0.54)


def test_actions_that_are_not_valid_do_not_span_the_range():
    """Values 0 and 4; without the third action, worth 100, the second is the best of the range."""
    sigma = scale_completed(
        _row(0.0, 4.0, 100.0), _row(1.0, 1.0, 1.0), probs=_row(0.3, 0.3, 0.4), raw_value=_row(0.0)[0],
        floor=_row(1e-8), visit_offset=9.0, value_coef=1.0, valid=torch.tensor([[True, True, False]]),
    )  # fmt: skip
    assert sigma[0].tolist() == pytest.approx([0.0, 10.0, 250.0])


def test_values_are_normalised_with_the_nodes_own_and_a_floor():
    arguments = {"node_value": torch.tensor([0.0], dtype=DOUBLE)}
    plain = scale_visited(_row(2.0, -2.0, 9.0), _row(1, 1, 0), floor=_row(1e-8), **arguments)
    assert plain[0].tolist() == pytest.approx([1.0, 0.0, 0.0])
    floored = scale_visited(_row(2.0, -2.0, 9.0), _row(1, 1, 0), floor=_row(8.0), **arguments)
    assert floored[0].tolist() == pytest.approx([0.5, 0.0, 0.0])
