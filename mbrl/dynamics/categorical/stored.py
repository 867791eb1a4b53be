"""Networks over states on disk: float32 tensors, indices too, exact up to 16,777,216."""

import dataclasses
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from mbrl.dynamics.categorical.base import States
from mbrl.dynamics.categorical.model import CategoricalDynamics, input_size, output_size
from mbrl.dynamics.config import DynamicsConfig
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

_MOST_STATES: Final = 1 << 24


def build_categorical_net(
    config: DynamicsConfig, sizes: tuple[int, int, int, int, int], generator: torch.Generator
) -> StackedMLP:
    """The stacked network of an ensemble, `sizes` being (members, obs_dim, act_dim, successors, moves)."""
    members, obs_dim, act_dim, entered, moves = sizes
    width = config.categorical.features
    return StackedMLP(
        members,
        input_size(width, obs_dim, act_dim),
        config.hidden,
        output_size(entered, moves, width, obs_dim),
        generator=generator,
        activation=config.activation,
        layer_norm=config.layer_norm,
        init="truncated_normal",
    )


def categorical_tensors(model: CategoricalDynamics) -> dict[str, Tensor]:
    """Everything of a model, by name."""
    return {name: value.float() for name, value in model.state_dict().items()}


def categorical_shapes(config: DynamicsConfig, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes that the tensors must have, from sizes of `codes`, `follows`, `rewards` and `inputs.mean`."""
    states, obs_dim = _sizes(tensors, "base.codes", 2)
    _, moves = _sizes(tensors, "base.follows", 2)
    members, entered, _ = _sizes(tensors, "rewards", 3)
    (inputs,) = _sizes(tensors, "inputs.mean", 1)
    act_dim, width = max(1, inputs - obs_dim), config.categorical.features
    return {
        "net.flat": StackedMLP.flat_shape(
            members,
            input_size(width, obs_dim, act_dim),
            config.hidden,
            output_size(entered, moves, width, obs_dim),
            layer_norm=config.layer_norm,
        ),
        "base.codes": (states, obs_dim),
        "base.entered": (entered,),
        "base.log_share": (entered,),
        "base.follows": (states, moves),
        "base.log_moves": (moves,),
        "features": (members, states, width),
        "rewards": (members, entered, width + 1),
        "logit_temperature": (),
        **{f"inputs.{name}": shape for name, shape in Normaliser.tensor_shapes(obs_dim + act_dim).items()},
        **{f"targets.{name}": shape for name, shape in Normaliser.tensor_shapes(obs_dim + 1).items()},
    }


def rebuild_categorical(config: DynamicsConfig, tensors: Mapping[str, Tensor]) -> CategoricalDynamics:
    """Inverse of `categorical_tensors`, for tensors of the shapes of `categorical_shapes`.

    Raises:
        ValueError: successors are no ascending list of its states, or a number is none that a fit gives.
    """
    states = _rebuild_states(tensors)
    if not 0 < float(tensors["logit_temperature"]) < float("inf"):
        raise ValueError("its temperature is not positive")
    rewards, inputs = tensors["rewards"], tensors["inputs.mean"]
    obs_dim = states.codes.shape[1]
    sizes = (len(rewards), obs_dim, len(inputs) - obs_dim, len(states.entered), len(states.log_moves))
    net = build_categorical_net(config, sizes, torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.flat.copy_(tensors["net.flat"])
    normalisers = [
        Normaliser(tensors[f"{name}.mean"], tensors[f"{name}.std"]) for name in ("inputs", "targets")
    ]
    model = CategoricalDynamics(
        net,
        states,
        features=tensors["features"],
        rewards=rewards,
        inputs=normalisers[0],
        targets=normalisers[1],
        reward_bounds=(config.log_variance_low, config.log_variance_high),
        logit_temperature=tensors["logit_temperature"],
    )
    return model.requires_grad_(requires_grad=False)


def _rebuild_states(tensors: Mapping[str, Tensor]) -> States:
    values = {field.name: tensors[f"base.{field.name}"] for field in dataclasses.fields(States)}
    entered, follows = values["entered"], values["follows"]
    count = len(values["codes"])
    if count > _MOST_STATES or not bool(((entered >= 0) & (entered < count)).all()):
        raise ValueError("its successors lie outside of its states")
    if not bool((entered[1:] > entered[:-1]).all()) or not torch.equal(entered, entered.round()):
        raise ValueError("its successors are no ascending list of states")
    if not bool(((follows >= -1) & (follows < len(entered))).all()):
        raise ValueError("its moves lead outside of its states")
    if not all(bool((values[name] <= 0).all()) for name in ("log_share", "log_moves")):
        raise ValueError("the share of a successor or of a move is no share")
    return States(**values | {"entered": entered.long(), "follows": follows.long()})


def _sizes(tensors: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """The shape of a tensor; ones where it is missing or has other dimensions."""
    shape = tuple(tensors.get(name, torch.zeros(0)).shape)
    return tuple(max(1, size) for size in shape) if len(shape) == dims else (1,) * dims
