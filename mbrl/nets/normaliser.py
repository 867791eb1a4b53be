"""Affine scaling held inside a net, so that raw units stay at every seam."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Standardises the last axis: `(x - mean) / std`. Its statistics are buffers and travel with checkpoints.

    Args:
        mean: `[d]`, raw units.
        std: `[d]`, raw units, > 0 (statistics of constant dimensions are floored where they are fitted).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, "d"], std: Float[Tensor, "d"]) -> None:
        super().__init__()
        # NaN is not greater than 0 either.
        if not bool((std > 0).all()):
            raise ValueError(f"a normaliser needs positive deviations, got {std.tolist()}")
        # float32 like the networks, though statistics are taken in float64;
        # copies, since the caller may go on changing its own.
        self.register_buffer("mean", mean.detach().to(torch.float32).clone())
        self.register_buffer("std", std.detach().to(torch.float32).clone())

    @classmethod
    def identity(cls, size: int) -> "Normaliser":
        """The normaliser that changes nothing."""
        return cls(torch.zeros(size), torch.ones(size))

    @staticmethod
    def tensor_shapes(size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of a normaliser of vectors of this size."""
        return {"mean": (size,), "std": (size,)}

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Raw units to standard deviations from the mean."""
        return (x - self.mean) / self.std

    def inverse(self, x_n: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Standard deviations from the mean to raw units."""
        return x_n * self.std + self.mean
