import math

import pytest
import torch

from mbrl.nets.init import init_linear_


def filled(kind: str, *, fan_in: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = torch.empty(10, fan_in, 100), torch.full((10, 1, 100), math.nan)
    init_linear_(weight, bias, kind=kind, generator=torch.Generator().manual_seed(seed))
    return weight, bias


def test_uniform_has_the_range_and_variance_of_a_torch_linear():
    weight, bias = filled("uniform")
    for values in (weight, bias):
        assert float(values.abs().max()) <= 1 / 8
        assert float(values.abs().max()) > 0.99 / 8
    assert float(weight.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.01)


def test_truncated_normal_is_cut_at_two_deviations_of_one_over_two_root_fan_in():
    weight, bias = filled("truncated_normal")
    deviation = 1 / 16
    scaled = (weight / deviation).double().flatten()
    assert float(scaled.abs().max()) <= 2 + 1e-6
    assert float(scaled.abs().max()) > 1.99
    # a normal cut at two deviations has standard deviation 0.8796 and 71.5 % of its mass inside of one
    assert float(scaled.std()) == pytest.approx(0.8796, rel=0.01)
    assert float((scaled.abs() < 1).double().mean()) == pytest.approx(0.6827 / 0.9545, abs=0.01)
    assert (bias == 0).all()


@pytest.mark.parametrize("kind", ["uniform", "truncated_normal"])
def test_members_differ_and_a_seed_repeats_itself(kind):
    first, again, other = filled(kind)[0], filled(kind)[0], filled(kind, seed=1)[0]
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all()
    assert len({tuple(row) for row in first[:, 0, :3].tolist()}) == 10
