"""The two models that any model has to beat: nothing changes, and a linear map."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.ops.ridge import ridge_solutions

_CHUNK = 65_536
_RIDGE = (
    1e-6  # per row, on standardised inputs: settles constant and collinear dimensions, moves nothing else
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Ridge regression `s' = s + W [s, a, 1]`.

    Attributes:
        mean: `[in]` of (s, a), raw units.
        std: `[in]`, raw units.
        weights: `[in + 1, obs_dim]`, on standardised inputs and 1.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: Transitions) -> "LinearModel":
        """Least squares over `rows`, whose successors are known; normal equations in float64, streamed."""
        mean, std = fit_moments(np.concatenate((rows.observation, rows.action), 1))
        blocks = (_block(rows, slice(k, k + _CHUNK), mean, std) for k in range(0, len(rows), _CHUNK))
        (weights,) = ridge_solutions(blocks, (_RIDGE,))
        return cls(mean, std, weights.numpy())

    def predict(self, obs: NDArray[np.floating], action: NDArray[np.floating]) -> NDArray[np.float64]:
        """`[b, obs_dim]` next observation, raw units."""
        return obs + _standardised(obs, action, self.mean, self.std) @ self.weights[:-1] + self.weights[-1]


def _block(
    rows: Transitions, part: slice, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    x = _standardised(rows.observation[part], rows.action[part], mean, std)
    return torch.from_numpy(x), torch.from_numpy(
        rows.next_observation[part].astype(np.float64) - rows.observation[part]
    )


def _standardised(
    obs: NDArray[np.floating],
    action: NDArray[np.floating],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> NDArray[np.float64]:
    return (np.concatenate((obs, action), 1).astype(np.float64) - mean) / std
