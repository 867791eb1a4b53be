"""Where the data are: distance of a state and an action to the dataset's rows."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.data.normaliser import fit_action_moments, fit_moments
from mbrl.ops.neighbours import neighbour_distance

NEIGHBOURS = 5
MAX_ROWS = 20_000
"""Rows kept of a larger dataset, drawn without replacement: the search is exhaustive, and grows with them."""


@dataclasses.dataclass(frozen=True, slots=True)
class DensityReference:
    """Standardised rows (s, a) of a dataset.

    Attributes:
        mean: `[obs_dim + act_dim]`, raw units.
        std: `[obs_dim + act_dim]`, raw units; their size in dimensions that count as constant.
        rows: `[n, obs_dim + act_dim]`, standardised.
        episode: `[n]` int64, where each row comes from; None where nobody noted it.
    """

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    rows: Float[Tensor, "n d"]
    episode: Int[Tensor, "n"] | None = None

    @classmethod
    def fit(
        cls,
        obs: Float[Tensor, "n obs_dim"],
        action: Float[Tensor, "n act_dim"],
        *,
        generator: torch.Generator,
        max_rows: int = MAX_ROWS,
        episode: Int[Tensor, "n"] | None = None,
    ) -> "DensityReference":
        """Standardises the rows and keeps at most `max_rows` of them.

        Args:
            obs: `[n, obs_dim]`, raw units.
            action: `[n, act_dim]`, environment units.
            generator: draws the rows that are kept.
            max_rows: how many.
            episode: `[n]` int64, where each row comes from; needed for distances of the rows themselves.
        """
        rows = torch.cat((obs, action), -1)
        # Moments of all rows, before any are dropped: the unit of a dimension must not depend on the draw.
        # One-hot actions pass as they are: another choice is sqrt(2) deviations away, however rare it is.
        moments = fit_moments(obs.cpu().numpy()), fit_action_moments(action.cpu().numpy())
        mean, std = (torch.from_numpy(np.concatenate(parts)).to(rows) for parts in zip(*moments, strict=True))
        if rows.shape[0] > max_rows:
            # Without replacement: a row that stands in the reference twice would count as two neighbours.
            kept = torch.randperm(rows.shape[0], generator=generator)[:max_rows]
            rows, episode = rows[kept], None if episode is None else episode[kept]
        return cls(mean, std, (rows - mean) / std, episode)

    def distance(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        episode: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b"]:
        """Mean distance to the nearest rows, standard deviations of a dimension.

        A row that is in the reference is at distance 0 from itself, and close to its neighbours in time; a
        state that the log has not seen has neither. With `episode` such rows do not count, so that distances
        of logged and of new rows can be held against one another.

        Args:
            obs: `[b, obs_dim]`, raw units.
            action: `[b, act_dim]`, environment units.
            episode: `[b]` int64, of queries that belong to the dataset; None for all others.
        """
        # The reference's moments for queries as well: with their own, far queries would look near.
        query = (torch.cat((obs, action), -1) - self.mean) / self.std
        groups = None if episode is None or self.episode is None else (episode, self.episode)
        return neighbour_distance(query, self.rows, count=NEIGHBOURS, groups=groups)
