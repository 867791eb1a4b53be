"""The two models that any model has to beat: nothing changes, and a linear map."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import fit_moments

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
        size = len(mean) + 1
        gram, moment = np.zeros((size, size)), np.zeros((size, rows.observation.shape[1]))
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            x = _features(rows.observation[part], rows.action[part], mean, std)
            delta = rows.next_observation[part].astype(np.float64) - rows.observation[part]
            # W = (X^T X + ridge n I)^-1 X^T (s' - s)
            gram += x.T @ x
            moment += x.T @ delta
        weights = np.linalg.solve(gram + _RIDGE * len(rows) * np.eye(size), moment)
        return cls(mean, std, weights.astype(np.float64))

    def predict(self, obs: NDArray[np.floating], action: NDArray[np.floating]) -> NDArray[np.float64]:
        """`[b, obs_dim]` next observation, raw units."""
        return obs + _features(obs, action, self.mean, self.std) @ self.weights


def _features(
    obs: NDArray[np.floating],
    action: NDArray[np.floating],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> NDArray[np.float64]:
    x = (np.concatenate((obs, action), 1).astype(np.float64) - mean) / std
    return np.concatenate((x, np.ones((len(x), 1))), 1)
