"""Ridge regression in closed form."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_solutions(
    blocks: Iterable[tuple[Float[Tensor, "_ in"], Float[Tensor, "_ k"]]], ridges: tuple[float, ...]
) -> list[Float[Tensor, "in1 k"]]:
    """`W = (X^T X + ridge n I)^-1 X^T y` for each ridge, X with a last column of ones that is not penalised.

    Args:
        blocks: rows of inputs and targets, a part at a time; together n rows, at least one.
        ridges: strengths per row, >= 0, so that one means the same for few rows and for many. Inputs should
            be standardised. An infinite one leaves the mean of the targets.

    Returns:
        `[in + 1, k]` each, float64, the intercepts in the last row.
    """
    # Normal equations, streamed in float64: nothing of the size of the log is ever made.
    gram, moment, rows = torch.zeros(()), torch.zeros(()), 0
    for x, y in blocks:
        features = with_ones(x)
        gram = gram + features.T @ features
        moment = moment + features.T @ y.double()
        rows += len(x)
    penalised = torch.ones(len(gram), dtype=torch.float64)
    penalised[-1] = 0.0
    found: list[Tensor] = []
    for ridge in ridges:
        solution = torch.zeros_like(moment)
        if math.isinf(ridge):
            solution[-1] = moment[-1] / rows
        else:
            solution = cast("Tensor", torch.linalg.solve(gram + ridge * rows * torch.diag(penalised), moment))
        found.append(solution)
    return found


def with_ones(x: Float[Tensor, "b in"]) -> Float[Tensor, "b in1"]:
    """The rows in float64 with a last column of ones."""
    return torch.cat((x.double(), torch.ones(len(x), 1, dtype=torch.float64)), 1)
