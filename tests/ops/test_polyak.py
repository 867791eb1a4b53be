import pytest
import torch

from mbrl.ops.polyak import polyak_update


@pytest.mark.parametrize(("polyak_tau", "expected"), [(0.0, 1.0), (0.25, 2.0), (1.0, 5.0)])
def test_target_moves_by_tau_in_place_and_the_source_stays(polyak_tau, expected):
    target, source = torch.ones(2, 3), torch.full((2, 3), 5.0, requires_grad=True)
    alias = target
    polyak_update(target, source, polyak_tau=polyak_tau)
    torch.testing.assert_close(alias, torch.full((2, 3), expected))
    assert not target.requires_grad
    assert (source == 5).all()


def test_repeated_updates_follow_the_geometric_law():
    target, source = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for _ in range(100):
        polyak_update(target, source, polyak_tau=0.005)
    assert float(target) == pytest.approx(1 - 0.995**100)
