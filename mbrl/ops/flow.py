"""Flow matching along straight lines: what a velocity field learns, and where it leads.

Source: Lipman et al. 2023 (arXiv:2210.02747), Liu et al. 2023 (arXiv:2209.03003).
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

VelocityFn: TypeAlias = Callable[[Tensor, float], Tensor]
"""`(x, t)`, `[*b, d]` and a time in [0, 1), to the velocity `[*b, d]`."""


def straight_path(
    start: Float[Tensor, "b d"], end: Float[Tensor, "b d"], time: Float[Tensor, "b"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """The point `(1 - t) x_0 + t x_1` and the velocity `x_1 - x_0` of it (Liu et al. 2023, eq. 1).

    A field that predicts these velocities from point and time, in the mean over draws of `start`, carries the
    distribution of `start` to that of `end`.

    Args:
        start: `[b, d]`, draws of noise.
        end: `[b, d]`, what is learned.
        time: `[b]`, in [0, 1].
    """
    return torch.lerp(start, end, time[:, None]), end - start


def follow_flow(velocity: VelocityFn, start: Float[Tensor, "*b d"], *, steps: int) -> Float[Tensor, "*b d"]:
    """Where `dx/dt = v(x, t)` leads from `start` at time 0 to time 1, by Euler steps `x += v(x, k/K) / K`.

    Args:
        velocity: v.
        start: `[*b, d]`.
        steps: K.
    """
    x = start
    for k in range(steps):
        x = torch.add(x, velocity(x, k / steps), alpha=1 / steps)
    return x
