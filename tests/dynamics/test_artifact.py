import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import DynamicsFacts, FittedDynamics, build_head_net, build_net, tensor_shapes
from mbrl.dynamics.fit import fit_dynamics
from mbrl.dynamics.prediction import predict_rollout, predict_steps

from .systems import make_dataset, small_config


def no_measures(obs, action, episode, generator):
    del obs, action, episode, generator
    return {"zero": lambda posterior, obs, action, outcome, episode: torch.zeros(len(obs))}


@pytest.fixture(scope="module")
def fitted():
    dataset = make_dataset(episodes=40, steps=30, wall=1.0)
    return fit_dynamics(dataset, small_config(), RngStreams(0), measures=no_measures)


def test_the_artifact_survives_json_and_tensors(fitted):
    meta, tensors = fitted.to_tensors()
    facts = DynamicsFacts.model_validate_json(json.dumps(meta), strict=True)
    assert tensor_shapes(facts, tensors) == {name: tuple(value.shape) for name, value in tensors.items()}
    loaded = FittedDynamics.from_tensors(facts, tensors)
    obs, action = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(5, 1)
    assert torch.equal(loaded.model.predict(obs, action).mean, fitted.model.predict(obs, action).mean)
    assert torch.equal(loaded.model.predict(obs, action).variance, fitted.model.predict(obs, action).variance)
    assert torch.equal(loaded.termination(obs, action, obs), fitted.termination(obs, action, obs))
    assert loaded.thresholds == fitted.thresholds
    assert loaded.report == fitted.report
    assert loaded.config == fitted.config
    with pytest.raises(ValidationError, match="format"):
        DynamicsFacts.model_validate_json(json.dumps(meta | {"format": 99}), strict=True)


def test_networks_have_the_widths_of_the_config():
    config = small_config(hidden=(5, 7), layer_norm=False, activation="tanh")
    net = build_net(config, (3, 4, 6), torch.Generator().manual_seed(0))
    assert (net.members, net.in_dim, net.hidden, net.out_dim) == (3, 4, (5, 7), 6)
    assert (net.activation, net.layer_norm) == ("tanh", False)
    head = build_head_net(config, (3, 9), torch.Generator().manual_seed(0))
    assert (head.members, head.in_dim, head.hidden, head.out_dim) == (3, 9, (32,), 1)


def test_it_predicts_and_rolls_out_for_people(fitted):
    obs, actions = np.zeros(2), np.zeros((4, 1))
    step = fitted.predict(obs, actions[0])
    expected = predict_steps(fitted.model, fitted.termination, obs, actions[0])
    assert np.array_equal(step.observation, expected.observation)
    assert 0.0 <= float(step.termination) < 0.5  # far from the wall
    assert float(fitted.predict([1.2, 0.0], [1.0]).termination) > float(step.termination)
    settings = {"horizon": 3, "particles": 10, "level": 0.5, "seed": 4}
    mine = fitted.rollout(obs, actions, **settings)
    other = predict_rollout(
        fitted.model, fitted.termination, obs, actions, **settings, forecast=fitted.forecast
    )
    assert np.array_equal(mine.observation_low, other.observation_low)
    assert mine.observation.shape == (3, 2)
    assert fitted.trusted_horizon == fitted.report.open_loop.trusted_horizon
