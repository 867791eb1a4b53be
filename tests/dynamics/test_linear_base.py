import dataclasses

import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.dynamics.fit import DynamicsFit
from mbrl.dynamics.linear_base import LinearBase, fit_linear_base
from mbrl.dynamics.training import TrainingArrays
from tests.dynamics.systems import make_dataset, small_config
from tests.dynamics.test_ensemble import make_ensemble


def arrays(rows: int = 400, holdout: int = 100, noise: float = 0.0, seed: int = 0) -> TrainingArrays:
    """A linear target, one that is noise alone, and one that never moves."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows + holdout, 3, generator=generator)
    linear = x @ torch.tensor([0.5, -0.3, 0.2]) + 0.1 + noise * torch.randn(len(x), generator=generator)
    target = torch.stack((linear, torch.randn(len(x), generator=generator), torch.zeros(len(x))), 1)
    return TrainingArrays(x[:rows], target[:rows], x[rows:], target[rows:])


def test_what_is_linear_is_left_without_a_residual_and_noise_keeps_its_mean():
    data = arrays()
    base = fit_linear_base(data)
    torch.testing.assert_close(base.weight[:, 0], torch.tensor([0.5, -0.3, 0.2]), rtol=1e-4, atol=1e-4)
    assert base.scale[0] == pytest.approx(1e-3)  # the floor: what is left is rounding
    # Held-out episodes say that no slope helps to predict noise, so the strongest ridge wins or nearly so.
    assert base.weight[:, 1].abs().max() < 0.1
    assert base.scale[1] == pytest.approx(float(data.targets[:, 1].std()), rel=0.05)
    assert base.scale[2] == 1.0  # a target that never moves leaves the scale alone


def test_residuals_of_training_rows_have_deviation_one():
    data = arrays(noise=0.2)
    left = fit_linear_base(data).residual(data)
    assert left.targets[:, :2].square().mean(0).tolist() == pytest.approx([1.0, 1.0], rel=1e-3)


def test_beyond_the_data_the_map_stays_where_it_was():
    data = arrays()
    base = fit_linear_base(data)
    far = torch.full((1, 3), 1e6)
    low, high = data.inputs.amin(0), data.inputs.amax(0)
    torch.testing.assert_close(base(far), base((2 * high - low)[None]))  # a width beyond the range


def test_an_ensemble_adds_the_base_to_every_member():
    plain = make_ensemble()
    generator = torch.Generator().manual_seed(3)
    base = LinearBase(
        torch.randn(5, 4, generator=generator),
        torch.randn(4, generator=generator),
        scale=torch.tensor([0.5, 0.1, 2.0, 1.0]),
        low=torch.full((5,), -1.0),
        high=torch.full((5,), 1.0),
    )
    model = make_ensemble()
    model.base = base
    obs, action = torch.randn(20, 3, generator=generator), torch.randn(20, 2, generator=generator)
    x = model.inputs(torch.cat((obs, action), -1))
    linear = x.clamp(-1.0, 1.0) @ base.weight + base.bias
    (mean, spread), (net_mean, net_spread) = model.forward(x), plain.forward(x)
    torch.testing.assert_close(mean, linear + base.scale * net_mean)
    torch.testing.assert_close(spread.mul(0.5).exp(), base.scale * net_spread.mul(0.5).exp())
    member = torch.randint(4, (20,), generator=generator)
    alone, full = model.predict_member(obs, action, member), model.predict(obs, action)
    torch.testing.assert_close(alone[0], full.mean[member, torch.arange(20)], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone[1], full.variance[member, torch.arange(20)], rtol=1e-5, atol=1e-6)


def test_a_linear_system_is_known_before_the_first_update():
    fit = DynamicsFit(make_dataset(noise=0.0), small_config(), RngStreams(0))
    plain = DynamicsFit(make_dataset(noise=0.0), small_config(base="none"), RngStreams(0))
    for each in (fit, plain):
        each.ensemble.net.flat.data.zero_()  # members that say nothing
    errors = [each._trainer._objective.holdout_error(each._trainer._arrays).max() for each in (fit, plain)]
    # The states are linear, the reward (the last target) is not: its share of the error stays.
    assert errors[0] < 0.5 * errors[1]
    fit.run_epoch()
    reported = torch.tensor(fit.progress.holdout_error, dtype=torch.float64)
    rows = dataclasses.replace(fit._trainer._arrays)
    mean, _ = fit.ensemble.forward(rows.holdout_inputs)
    target = fit.ensemble.base(rows.holdout_inputs) + fit.ensemble.base.scale * rows.holdout_targets
    torch.testing.assert_close(reported, (mean - target).double().square().mean((1, 2)), rtol=1e-4, atol=1e-7)


def test_no_base_is_numbers_too_since_files_hold_no_infinity():
    base = LinearBase.zero(3, 2)
    assert all(bool(value.isfinite().all()) for value in base.state_dict().values())
    assert torch.equal(base(torch.tensor([[1e30, -1e30, 0.0]])), torch.zeros(1, 2))


def test_inputs_are_told_apart_as_far_beyond_the_training_rows_as_these_are_wide():
    made = arrays()
    base = fit_linear_base(made)
    low, high = made.inputs.amin(0), made.inputs.amax(0)
    assert torch.allclose(base.low, low - (high - low))
    assert torch.allclose(base.high, high + (high - low))
    assert not torch.equal(base(high[None]), base(base.high[None]))
