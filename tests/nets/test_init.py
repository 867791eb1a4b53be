import math

import pytest
import torch

from mbrl.nets.init import init_linear_, init_small_head_


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


def test_a_small_head_sets_hidden_biases_and_bounds_the_last_layer_alone():
    shapes = [((2, 5, 7), (2, 1, 7)), ((2, 7, 300), (2, 1, 300)), ((2, 300, 3), (2, 1, 3))]
    layers = [(torch.full(w, 9.0), torch.full(b, 9.0)) for w, b in shapes]
    init_small_head_(layers, hidden_bias=0.1, head_bound=3e-3, generator=torch.Generator().manual_seed(0))
    for weight, bias in layers[:-1]:
        assert (weight == 9.0).all()
        assert (bias == torch.tensor(0.1)).all()
    weight, bias = layers[-1]
    assert 2.9e-3 < float(weight.abs().max()) <= 3e-3
    assert float(bias.abs().max()) <= 3e-3
    assert float(weight.std()) == pytest.approx(3e-3 / math.sqrt(3), rel=0.1)
