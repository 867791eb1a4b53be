"""What an update computes, pass by pass; a benchmark counts operations from it."""

import dataclasses
from typing import Literal, TypeAlias

from mbrl.nets.stack import StackedMLP

Gradient: TypeAlias = Literal["none", "parameters", "input", "both"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NetworkPass:
    """One use of a stack of perceptrons in an update.

    Attributes:
        net: which.
        gradient: what the backward pass is for: `none` for values alone, the `parameters`, the `input`
            through frozen parameters, or `both`.
        rows: that go through, for each row of the batch.
        members: of the stack that are asked; None for all.
        share: of the updates that make it, 0.5 for every second one.
    """

    net: StackedMLP
    gradient: Gradient = "none"
    rows: int = 1
    members: int | None = None
    share: float = 1.0
