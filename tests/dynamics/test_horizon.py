import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.data.stacking.history import with_history
from mbrl.dynamics.config import HorizonConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.dynamics.horizon import HorizonObjective, horizon_arrays
from mbrl.dynamics.objectives import StepObjective
from mbrl.uncertainty.held_out import held_out_measures

from .systems import CONTROL, MATRIX, linear_ensemble, make_dataset, small_config

STEPS = 4
DECAY = (1e-4,)


def with_model_rewards(dataset):
    """The reward of `linear_ensemble`, `s_0 + a`."""
    made = [
        dataclasses.replace(e, rewards=e.observations[:-1, 0] + e.actions[:, 0]) for e in dataset.episodes
    ]
    return dataclasses.replace(dataset, episodes=tuple(made))


def make(model, *, noise=0.0, episodes=6, steps=STEPS, weight=1.0):
    dataset = with_model_rewards(make_dataset(episodes=episodes, steps=12, noise=noise))
    arrays = horizon_arrays(dataset, dataset.select([0, 1]), steps=steps, frame_dim=2)
    settings = {"bound_coef": 0.0, "weight_decay": DECAY, "arrays": arrays}
    return arrays, HorizonObjective(model, steps=steps, weight=weight, **settings)


def test_rows_are_the_first_observation_with_all_actions_and_what_followed():
    dataset = make_dataset(episodes=2, steps=6)
    arrays = horizon_arrays(dataset, dataset, steps=STEPS, frame_dim=2)
    assert arrays.inputs.shape == (2 * 3, 2 + STEPS)
    assert arrays.targets.shape == (2 * 3, STEPS * 3)
    episode = dataset.episodes[1]
    row = [*episode.observations[2], *episode.actions[2:6, 0]]
    assert arrays.inputs[5].tolist() == pytest.approx(row)
    frames = np.concatenate((episode.observations[3:7], episode.rewards[2:6, None]), 1)
    assert arrays.targets[5].tolist() == pytest.approx(frames.flatten().tolist())
    assert horizon_arrays(dataset, dataset, steps=7, frame_dim=2) is None


def test_an_exact_model_makes_no_error_at_any_step():
    arrays, objective = make(linear_ensemble(offsets=(0.0, 0.3)))
    squares = objective._mean_squares(arrays)
    assert squares[0].max() < 1e-10
    assert (squares[1, :, :2] > 0.05).all()


def test_errors_of_the_steps_are_those_of_the_mean_path():
    # s' = A s + B a + d, whose path is off by (I + A + ... + A^j) d after j + 1 steps.
    shift = 0.1
    arrays, objective = make(linear_ensemble(offsets=(shift,)))
    found = objective._mean_squares(arrays)[0]
    total, power = np.zeros(2), np.eye(2)
    for step in range(STEPS):
        assert float(found[step, 2]) == pytest.approx(total[0] ** 2, abs=1e-6)  # the reward reads s, not s'
        total, power = total + power @ np.full(2, shift), power @ MATRIX
        assert found[step, :2].tolist() == pytest.approx(np.square(total).tolist(), rel=1e-3)
    assert CONTROL.shape == (2, 1)


def test_the_first_step_counts_as_in_one_step_training_and_later_ones_by_their_weight():
    model = linear_ensemble(offsets=(0.1, 0.2), noise=0.3)
    arrays, _ = make(model, noise=0.1)
    inputs, targets = (part.expand(2, *part.shape) for part in (arrays.inputs, arrays.targets))
    first = StepObjective(model, bound_coef=0.0, weight_decay=DECAY)
    logged = torch.cat((targets[..., :2] - inputs[..., :2], targets[..., 2:3]), -1)
    alone = first.loss(inputs[..., :3], logged)
    losses = [make(model, noise=0.1, weight=weight)[1].loss(inputs, targets) for weight in (1e-9, 1.0, 2.0)]
    assert torch.allclose(losses[0], alone, atol=1e-5)
    assert torch.allclose(losses[2] - alone, 2 * (losses[1] - alone), rtol=1e-3)
    # e^2 / u^2 is 1 on average over members and rows, and 2 (sqrt(1 + x) - 1) at most x.
    assert 0.1 < float((losses[1] - alone).mean()) < 1.0


def test_gradients_flow_back_through_all_steps():
    model = linear_ensemble(offsets=(0.05,)).requires_grad_(requires_grad=True)
    arrays, objective = make(model, noise=0.05)
    inputs, targets = arrays.inputs[None].double(), arrays.targets[None].double()
    model.double()
    objective._units = objective._units.double()

    def value():
        return objective.loss(inputs, targets).sum()

    value().backward()
    place, size = 1, 1e-6
    with torch.no_grad():
        model.net.flat[0, place] += size
        above = float(value())
        model.net.flat[0, place] -= 2 * size
        below = float(value())
    assert float(model.net.flat.grad[0, place]) == pytest.approx((above - below) / (2 * size), rel=1e-4)


def noisy_sensors(noise=0.15, episodes=40, steps=40):
    """Episodes of a slow machine without noise of its own, seen by noisy sensors."""
    dataset = make_dataset(episodes=episodes, steps=steps, noise=0.0)
    rng = np.random.default_rng(5)
    made = [
        dataclasses.replace(
            e, observations=(e.observations + noise * rng.standard_normal(e.observations.shape)).astype("f4")
        )
        for e in dataset.episodes
    ]
    return dataclasses.replace(dataset, episodes=tuple(made))


def test_a_machine_behind_noisy_sensors_is_predicted_further_by_training_through_the_horizon():
    # One step ahead noise in the inputs draws the slope of a regression to 0; a path of eight steps shows it.
    dataset = noisy_sensors()
    short, long = (
        fit_dynamics(dataset, small_config(horizon=horizon), RngStreams(0), measures=held_out_measures)
        for horizon in (HorizonConfig(), HorizonConfig(steps=8, max_updates=300, learning_rate=1e-3))
    )
    assert long.report.open_loop.nrmse[-1] < 0.93 * short.report.open_loop.nrmse[-1]
    assert long.report.one_step.nrmse < 1.05 * short.report.one_step.nrmse


@pytest.mark.parametrize("history", [1, 2])
def test_interrupted_and_resumed_fits_have_the_same_bits(history):
    dataset = with_history(make_dataset(episodes=40, steps=30, wall=1.0), history)
    config = small_config(horizon=HorizonConfig(steps=3, max_updates=80))
    states = []
    straight = fit_dynamics(
        dataset,
        config,
        RngStreams(1),
        measures=held_out_measures,
        on_epoch=lambda running: states.append((running.stage, running.state_dict())),
    )
    stages = [stage for stage, _ in states]
    assert {"ensemble", "horizon", "termination", "done"} == set(stages)
    for cut in (0, stages.index("horizon"), stages.index("termination")):
        resumed = DynamicsFit(dataset, config, RngStreams(1))
        resumed.load_state_dict(states[cut][1])
        assert resumed.stage == stages[cut]
        while resumed.stage != "done":
            resumed.run_epoch()
        again = resumed.finish(held_out_measures)
        assert torch.equal(again.model.net.flat, straight.model.net.flat)
        assert again.report == straight.report
