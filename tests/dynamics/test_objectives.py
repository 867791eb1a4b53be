import numpy as np
import pytest
import torch

from mbrl.dynamics.arrays import step_inputs, step_targets
from mbrl.dynamics.objectives import PUBLISHED_DECAY, StepObjective, TerminationObjective, decay_ramp
from mbrl.dynamics.termination import TerminationHead
from mbrl.dynamics.training import TrainingArrays
from mbrl.nets.encoding import PiecewiseLinearEncoding
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

from .systems import linear_ensemble, make_dataset


def toy_arrays():
    rows = make_dataset(episodes=40, steps=60).transitions()
    inputs, targets = torch.tensor(step_inputs(rows)), torch.tensor(step_targets(rows))
    return TrainingArrays(inputs, targets, inputs, targets)


def test_decay_ramp_is_the_published_one_at_its_depth():
    assert decay_ramp(5) == pytest.approx(PUBLISHED_DECAY)
    assert decay_ramp(2) == (PUBLISHED_DECAY[0], PUBLISHED_DECAY[-1])


def test_the_loss_is_the_gaussian_likelihood_and_the_error_that_of_the_mean():
    arrays, offsets = toy_arrays(), (0.0, 0.4)
    model = linear_ensemble(offsets=offsets, noise=0.05, reward_noise=0.3)
    objective = StepObjective(model, bound_coef=0.01, weight_decay=(0.0,))
    inputs, targets = arrays.inputs.expand(2, -1, -1), arrays.targets.expand(2, -1, -1)
    posterior = model.predict(arrays.inputs[:, :2], arrays.inputs[:, 2:])
    error = np.concatenate(
        (
            (posterior.mean - arrays.inputs[:, :2]).numpy() - arrays.targets[:, :2].numpy(),
            posterior.reward_mean[..., None].numpy() - arrays.targets[:, 2:].numpy(),
        ),
        2,
    ).astype(float)
    variance = np.array([0.05, 0.05, 0.3]) ** 2
    expected = (error**2 / variance + np.log(variance)).mean((1, 2))
    assert objective.loss(inputs, targets).numpy() == pytest.approx(expected, rel=1e-3)
    assert objective.holdout_error(arrays).numpy() == pytest.approx((error**2).mean((1, 2)), rel=1e-4)


def test_weight_decay_is_the_gradient_of_the_stated_penalty():
    ensemble = linear_ensemble(offsets=(0.1, 0.3)).requires_grad_(requires_grad=True)
    decay = (0.7,)
    objective = StepObjective(ensemble, bound_coef=0.05, weight_decay=decay)
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    objective.add_decay()
    layers = ensemble.net.layers(ensemble.net.flat)
    penalty = sum(0.5 * w * layer.weight.square().sum() for w, layer in zip(decay, layers, strict=True))
    penalty = penalty + 0.05 * (ensemble.bounds[:, 1] - ensemble.bounds[:, 0]).sum()
    expected = torch.autograd.grad(penalty, objective.parameters())
    for parameter, gradient in zip(objective.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_terminated_rows_count_as_often_as_their_weight_says():
    head = TerminationHead(
        StackedMLP(2, 1, (), 1, generator=torch.Generator().manual_seed(0)),
        inputs=Normaliser.identity(1),
        encoding=PiecewiseLinearEncoding(torch.zeros(1, 1)),
        positive_weight=3.0,
        reads_successor=False,
    )
    inputs, flags = torch.tensor([[0.5], [-1.0], [2.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    p = torch.sigmoid(head.logits(inputs)).detach().double().numpy()
    expected = -(3.0 * np.log(p[:, 0]) + np.log(1 - p[:, 1]) + np.log(1 - p[:, 2])) / 3
    objective = TerminationObjective(head)
    arrays = TrainingArrays(inputs, flags, inputs, flags)
    loss = objective.loss(inputs.expand(2, -1, -1), flags.expand(2, -1, -1))
    assert loss.detach().numpy() == pytest.approx(expected, rel=1e-5)
    assert objective.holdout_error(arrays).numpy() == pytest.approx(expected, rel=1e-5)
    assert [parameter is head.net.flat for parameter in objective.parameters()] == [True]
