"""Encodings of numbers that let a small network see sharp thresholds."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PiecewiseLinearEncoding(nn.Module):
    """Appends to `x` how far each of its last `d` coordinates lies through each of `k - 1` intervals.

    Interval j of a coordinate becomes `clamp((x - edge_j) / (edge_{j+1} - edge_j), 0, 1)`: linear inside,
    constant outside, so that a linear layer on top can be steep where edges are dense (Gorishniy et al. 2022,
    eq. 1; there the outermost intervals go on linearly, which here the coordinates themselves do).

    Args:
        edges: `[k, d]`, ascending in each column, in the units of the input; equal neighbours make a step. A
            single row makes no interval: the encoding is then the identity.
    """

    edges: Tensor

    def __init__(self, edges: Float[Tensor, "k d"]) -> None:
        super().__init__()
        if bool((edges.diff(dim=0) < 0).any()):
            raise ValueError("the edges of a coordinate must ascend")
        # A copy, and a buffer: it moves and is stored with the network that was fitted on it.
        self.register_buffer("edges", edges.detach().to(torch.float32).clone())

    @property
    def added_size(self) -> int:
        """Coordinates that the encoding appends."""
        return (self.edges.shape[0] - 1) * self.edges.shape[1]

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """`[*b, n]` to `[*b, n + (k - 1) d]`."""
        if self.added_size == 0:
            return x
        # Edges that coincide make a step of that width instead of a division by 0.
        low, width = self.edges[:-1], self.edges.diff(dim=0).clamp_min(1e-6)
        # [*b, 1, d] against edges [k - 1, d].
        part = x[..., -self.edges.shape[1] :].unsqueeze(-2)
        return torch.cat([x, ((part - low) / width).clamp_(0.0, 1.0).flatten(-2)], -1)
