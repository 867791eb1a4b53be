"""The linear map that members of an ensemble correct: none of them knows less than ridge regression."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.dynamics.training import TrainingArrays
from mbrl.ops.ridge import ridge_solutions, with_ones

RIDGES: Final = (1e-6, 1e-4, 1e-2, 1e-1, 1.0, math.inf)
"""Strengths that a fit chooses from, per row, on standardised inputs; the last one is a constant."""

_LEAST_SCALE: Final = 1e-3
"""Of what the linear map leaves, normalised target units: below it lie rounding errors, and no signal."""

_MARGIN: Final = 1.0
"""Widths of the training range that inputs may lie beyond it: another episode takes a joint further."""

_BLOCK_ROWS: Final = 65_536


class LinearBase(nn.Module):
    """`y = W clip(x) + b`, and the scale of what it leaves: a member predicts `y + scale * network(x)`.

    Inputs are clipped to the range of the training rows, widened by its width on both sides: beyond it the
    map stays where it was, instead of growing with the distance, which would let imagined states of an
    unstable machine run away.

    Args:
        weight: `[in, k]`, on normalised inputs, in normalised target units.
        bias: `[k]`.
        scale: `[k]`, > 0, deviation of the residuals of the training rows.
        low: `[in]` least inputs that are told apart, normalised.
        high: `[in]` largest ones.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "in k"],
        bias: Float[Tensor, "k"],
        *,
        scale: Float[Tensor, "k"],
        low: Float[Tensor, "in"],
        high: Float[Tensor, "in"],
    ) -> None:
        super().__init__()
        for name, value in (
            ("weight", weight),
            ("bias", bias),
            ("scale", scale),
            ("low", low),
            ("high", high),
        ):
            self.register_buffer(name, value.detach().to(torch.float32).clone())

    @classmethod
    def zero(cls, inputs: int, outputs: int) -> "LinearBase":
        """The map to 0: members predict everything themselves."""
        return cls(
            torch.zeros(inputs, outputs),
            torch.zeros(outputs),
            scale=torch.ones(outputs),
            low=torch.full((inputs,), -torch.finfo(torch.float32).max),
            high=torch.full((inputs,), torch.finfo(torch.float32).max),
        )

    @staticmethod
    def tensor_shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict."""
        return {
            "weight": (inputs, outputs),
            "bias": (outputs,),
            "scale": (outputs,),
            "low": (inputs,),
            "high": (inputs,),
        }

    def forward(self, inputs_n: Float[Tensor, "*e b in"]) -> Float[Tensor, "*e b k"]:
        """The linear prediction, normalised target units."""
        return inputs_n.clamp(self.low, self.high) @ self.weight + self.bias

    def residual(self, arrays: TrainingArrays) -> TrainingArrays:
        """What is left for the members, in units of `scale`."""
        targets = (arrays.targets - self(arrays.inputs)) / self.scale
        holdout = (arrays.holdout_targets - self(arrays.holdout_inputs)) / self.scale
        return dataclasses.replace(arrays, targets=targets, holdout_targets=holdout)


def fit_linear_base(arrays: TrainingArrays) -> LinearBase:
    """Ridge regression of normalised targets, each with the strength of `RIDGES` that suits held-out rows.

    A target that no linear map predicts better than its mean keeps its mean.
    """
    inputs, targets = arrays.inputs, arrays.targets
    best = torch.full((targets.shape[1],), torch.inf, dtype=torch.float64)
    weight = torch.zeros(inputs.shape[1] + 1, targets.shape[1], dtype=torch.float64)
    for candidate in ridge_solutions(_blocks(inputs, targets), RIDGES):
        error = _squared_error(candidate, arrays.holdout_inputs, arrays.holdout_targets)
        better = error < best
        best = torch.where(better, error, best)
        weight = torch.where(better, candidate, weight)
    low, high = inputs.amin(0), inputs.amax(0)
    # Deviations of the residuals that training rows have: members then learn targets of deviation 1.
    scale = _squared_error(weight, inputs, targets).div(len(inputs)).sqrt()
    return LinearBase(
        weight[:-1],
        weight[-1],
        scale=torch.where(scale > 0, scale.clamp(min=_LEAST_SCALE), 1.0),
        low=low - _MARGIN * (high - low),
        high=high + _MARGIN * (high - low),
    )


def _squared_error(weight: Tensor, inputs: Tensor, targets: Tensor) -> Float[Tensor, "k"]:
    total = torch.zeros(targets.shape[1], dtype=torch.float64)
    for x, y in _blocks(inputs, targets):
        total += (with_ones(x) @ weight - y).square().sum(0)
    return total


def _blocks(inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(inputs), _BLOCK_ROWS):
        yield inputs[start : start + _BLOCK_ROWS], targets[start : start + _BLOCK_ROWS]
