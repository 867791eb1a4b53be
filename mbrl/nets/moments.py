"""Moments of Adam from a checkpoint, held against the parameters that they belong to."""

import copy
from typing import Any, Final

import torch
from torch import Tensor

from mbrl.core.types import StateDict

_MOMENTS: Final = {"step", "exp_avg", "exp_avg_sq"}


def load_moments(adam: torch.optim.Optimizer, state: StateDict) -> None:
    """Restores what `adam.state_dict()` gave; hyper-parameters stay those that the optimiser was made with.

    PyTorch adopts moments of any shape, and fails in the next step.

    Args:
        adam: Adam or AdamW on the same parameters.
        state: it is copied.

    Raises:
        ValueError: the moments are not those of these parameters.
    """
    parameters: list[Tensor] = [p for group in adam.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Any]] = state["state"]
    # Held against the parameters before anything is adopted: a failure leaves the optimiser as it was.
    for index, entries in moments.items():
        if type(index) is not int or not 0 <= index < len(parameters) or set(entries) != _MOMENTS:
            raise ValueError(f"no parameter has the moments {sorted(map(str, entries))} of number {index}")
        for name, value in entries.items():
            # Adam counts steps in a scalar tensor; the moments are as large as what they belong to.
            shape = torch.Size() if name == "step" else parameters[index].shape
            if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
                raise ValueError(f"{name} of parameter {index} is not of the shape {list(shape)}")
    # The groups are those of the optimiser: a rate that was changed in the config must not be set back.
    groups = adam.state_dict()["param_groups"]
    adam.load_state_dict({"state": copy.deepcopy(moments), "param_groups": groups})
