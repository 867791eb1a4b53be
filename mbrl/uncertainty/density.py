"""Where the data are: distance of a state and an action to the dataset's rows."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.ops.neighbours import neighbour_distance

NEIGHBOURS = 5
MAX_ROWS = 20_000
"""Rows kept of a larger dataset, drawn without replacement: the search is exhaustive, and grows with them."""


@dataclasses.dataclass(frozen=True, slots=True)
class DensityReference:
    """Standardised rows (s, a) of a dataset.

    Attributes:
        mean: `[obs_dim + act_dim]`, raw units.
        std: `[obs_dim + act_dim]`, raw units, 1 in constant dimensions.
        rows: `[n, obs_dim + act_dim]`, standardised.
    """

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    rows: Float[Tensor, "n d"]

    @classmethod
    def fit(
        cls,
        obs: Float[Tensor, "n obs_dim"],
        action: Float[Tensor, "n act_dim"],
        *,
        generator: torch.Generator,
        max_rows: int = MAX_ROWS,
    ) -> "DensityReference":
        """Standardises the rows and keeps at most `max_rows` of them."""
        rows = torch.cat((obs, action), -1)
        wide = rows.double()
        mean, std = wide.mean(0), wide.std(0, correction=0)
        std = torch.where(std > 1e-7 * mean.abs().clamp_min(1e-5), std, 1.0)
        if rows.shape[0] > max_rows:
            rows = rows[torch.randperm(rows.shape[0], generator=generator)[:max_rows]]
        mean, std = mean.float(), std.float()
        return cls(mean, std, (rows - mean) / std)

    def distance(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Mean distance to the nearest rows, standard deviations of a dimension."""
        query = (torch.cat((obs, action), -1) - self.mean) / self.std
        return neighbour_distance(query, self.rows, count=NEIGHBOURS)
