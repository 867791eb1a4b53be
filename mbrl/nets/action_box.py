"""Affine scaling between environment actions and [-1, 1], per dimension."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec


class ActionBox(nn.Module):
    """Maps the box of a task's actions to `[-1, 1]^act_dim` and back.

    Its buffers follow the module to a device; they are made from the `SpaceSpec`, not stored in checkpoints.

    Args:
        space: the bounds.
        device: where the buffers live.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    half_range: Tensor

    def __init__(self, space: SpaceSpec, device: torch.device | None = None) -> None:
        super().__init__()
        low = torch.tensor(space.act_low, dtype=torch.float32, device=device)
        high = torch.tensor(space.act_high, dtype=torch.float32, device=device)
        # a = centre + half_range * scaled, in each dimension.
        buffers = {"low": low, "high": high, "centre": (low + high) / 2, "half_range": (high - low) / 2}
        for name, value in buffers.items():
            # Not persistent: bounds in a checkpoint could contradict the `SpaceSpec` that it is loaded under.
            self.register_buffer(name, value, persistent=False)

    def scale(self, action: Float[Tensor, "*b act_dim"]) -> Float[Tensor, "*b act_dim"]:
        """Environment units to [-1, 1]."""
        return (action - self.centre) / self.half_range

    def unscale(self, scaled_action: Float[Tensor, "*b act_dim"]) -> Float[Tensor, "*b act_dim"]:
        """[-1, 1] to environment units, inside the bounds also after rounding."""
        action = torch.addcmul(self.centre, scaled_action, self.half_range)
        # In float32 centre + half_range may lie a rounding beyond
        # the bound, which simulators and robots refuse.
        return torch.clamp(action, self.low, self.high)
