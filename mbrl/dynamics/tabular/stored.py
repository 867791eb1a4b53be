"""Tables on disk: float32 tensors, indices too, which float32 holds exactly up to 16,777,216."""

import dataclasses
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from mbrl.dynamics.tabular.model import Table, TabularDynamics
from mbrl.nets.normaliser import Normaliser

_INDICES: Final = ("start", "successor")


def table_tensors(model: TabularDynamics) -> dict[str, Tensor]:
    """Everything of a model, by name."""
    return {name: value.float() for name, value in model.state_dict().items()}


def table_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes that the tensors of a table must have, from the sizes of `codes` and `chance`."""
    states, width = _sizes(tensors, "codes", 2)
    members, actions, pairs = _sizes(tensors, "chance", 3)
    by_pair = (actions, pairs)
    return {
        "codes": (states, width),
        "start": (states + 1,),
        "successor": (pairs,),
        "count": by_pair,
        **dict.fromkeys(("chance", "reward", "ends"), (members, *by_pair)),
        "reward_variance": (pairs,),
        "allowed": (states, actions),
        **{f"inputs.{name}": shape for name, shape in Normaliser.tensor_shapes(width + actions).items()},
        **{f"targets.{name}": shape for name, shape in Normaliser.tensor_shapes(width + 1).items()},
    }


def rebuild_table(tensors: Mapping[str, Tensor]) -> TabularDynamics:
    """Inverse of `table_tensors`, for tensors of the shapes of `table_shapes`.

    Raises:
        ValueError: indices lie outside of the table, chances are none, or a state allows nothing.
    """
    values = {field.name: tensors[field.name] for field in dataclasses.fields(Table)}
    values |= {name: values[name].long() for name in _INDICES}
    values["allowed"] = values["allowed"] > 0
    table = Table(**values)
    if not bool(table.allowed.any(1).all()):
        raise ValueError("a state of it allows no choice")
    steps = table.start[1:] - table.start[:-1]
    is_sound = (
        int(table.start[0]) == 0
        and int(table.start[-1]) == len(table.successor)
        and bool((steps >= 0).all())
        and bool(((table.successor >= 0) & (table.successor < len(table.codes))).all())
    )
    if not is_sound:
        raise ValueError("its indices lie outside of the table")
    chances = [table.chance, table.ends]
    if any(bool(((part < 0) | (part > 1)).any()) for part in chances) or bool(
        (table.reward_variance < 0).any()
    ):
        raise ValueError("its chances lie outside of [0, 1], or a variance is negative")
    normalisers = [
        Normaliser(tensors[f"{name}.mean"], tensors[f"{name}.std"]) for name in ("inputs", "targets")
    ]
    return TabularDynamics(table, inputs=normalisers[0], targets=normalisers[1])


def _sizes(tensors: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """The shape of a tensor; ones where it is missing or has other dimensions."""
    shape = tuple(tensors.get(name, torch.zeros(0)).shape)
    return tuple(max(1, size) for size in shape) if len(shape) == dims else (1,) * dims
