"""Target networks."""

import torch
from torch import Tensor


@torch.no_grad()
def polyak_update(target: Tensor, source: Tensor, *, polyak_tau: float) -> None:
    """Moves `target` a step towards `source` in place: `target <- (1 - tau) target + tau source`.

    Args:
        target: any shape, e.g. the flat parameters of a target network.
        source: same shape.
        polyak_tau: in [0, 1].
    """
    # One pass over flat parameters, in place: nothing is allocated in an update.
    target.lerp_(source, polyak_tau)
