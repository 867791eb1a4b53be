"""Features of states and actions whose inner products are a kernel, from a few landmarks (Nystroem)."""

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.normaliser import fit_moments
from mbrl.off_policy.log.layout import Array

KernelShape: TypeAlias = Literal["rbf", "delta"]

_LEAST_EIGENVALUE = 1e-10  # share of the largest
_SAME = 1e-9  # squared distance of points that differ by rounding only


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Points:
    """States with actions; for finitely many actions also with the probabilities of each.

    Attributes:
        state: `[n, s]`.
        action: `[n, a]`.
    """

    state: Array
    action: Array

    def __len__(self) -> int:
        return len(self.state)

    def select(self, rows: slice | NDArray[np.int64]) -> "Points":
        """Some of them."""
        return Points(self.state[rows], self.action[rows])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LandmarkBasis:
    """`psi(z)` with `<psi(z), psi(z')> = k(z, z')` for landmarks, and nearly so elsewhere.

    `rbf`: `k = 1 + exp(-|z - z'|^2 / (2 width^2))` on standardised (s, a). With finitely many actions
    (one-hot vectors) it is `<a, a'>` times the exponential of states, plus the constant; features of
    probabilities are then exact means over actions. `delta`: `k = 1{s = s'} <a, a'>`. The constant makes the
    total mass a moment that is matched.

    Attributes:
        landmarks: `[m]`.
        centre: subtracted from (s, a), or from s where actions are finitely many.
        unit: divisor, likewise.
        width: of the Gaussian, in these units; 0 for `delta`.
        root: `[m, r]`, features are `k(z, landmarks) root`.
        is_discrete: actions are one-hot vectors or probabilities.
    """

    landmarks: Points
    centre: Array
    unit: Array
    width: float
    root: Array
    is_discrete: bool

    @classmethod
    def fit(
        cls,
        points: Points,
        *,
        count: int,
        shape: KernelShape,
        is_discrete: bool,
        generator: torch.Generator,
        width: float | None = None,
    ) -> "LandmarkBasis":
        """Draws landmarks among the points (`rbf`), or takes every different one (`delta`).

        Args:
            points: n of them.
            count: landmarks.
            shape: of the kernel.
            is_discrete: whether actions are one-hot vectors.
            generator: draws the landmarks.
            width: of the Gaussian; None takes the median distance of two landmarks.

        Raises:
            DataError: `delta`, and there are more different points than landmarks.
        """
        joined = points.state if is_discrete else np.concatenate([points.state, points.action], 1)
        centre, unit = fit_moments(joined)
        if shape == "rbf":
            points = points.select(
                torch.randperm(len(points), generator=generator)[:count].sort().values.numpy()
            )
        landmarks = _distinct(points)
        if len(landmarks) > count:
            raise DataError(
                f"a table of {len(landmarks)} different states and actions needs as many landmarks, "
                f"not {count}",
                remedy="Raise landmarks, or use the rbf kernel.",
            )
        # Distances first: the median of them is the width, where none is given.
        bare = cls(landmarks, centre, unit, 0.0, np.eye(len(landmarks)), is_discrete)
        if shape == "delta":
            return bare
        if width is None:
            squares = bare.squared_distances(landmarks)
            apart = np.sqrt(squares[squares > _SAME])
            width = float(np.median(apart)) if apart.size else 1.0
        wide = dataclasses.replace(bare, width=width)
        # K = U diag(s) U' over the landmarks; the features k(z, landmarks) U s^-1/2 have the inner products
        # of the kernel on them. Directions of vanishing s are rounding.
        values, vectors = np.linalg.eigh(wide.kernel(landmarks))
        kept = values > _LEAST_EIGENVALUE * values[-1]
        return dataclasses.replace(wide, root=vectors[:, kept] / np.sqrt(values[kept]))

    @property
    def size(self) -> int:
        """Features, r or r + 1."""
        return self.root.shape[1] + (self.width > 0)

    def __call__(self, points: Points) -> Array:
        """`[n, size]` features."""
        kernel = self.kernel(points)
        if self.width == 0:
            return kernel
        weight = points.action.sum(1) if self.is_discrete else np.ones(len(points))
        return np.concatenate([weight[:, None], kernel @ self.root], 1)

    def kernel(self, points: Points) -> Array:
        """`[n, m]`, the kernel at each landmark, without its constant."""
        squares = self.squared_distances(points)
        if self.width > 0:
            similar = np.exp(squares / (-2.0 * self.width**2))
        else:
            similar = (squares < _SAME).astype(np.float64)
        return similar * (points.action @ self.landmarks.action.T) if self.is_discrete else similar

    def squared_distances(self, points: Points) -> Array:
        """`[n, m]` between points and landmarks, standardised."""
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x'y, one product of matrices.
        x, y = self._standardised(points), self._standardised(self.landmarks)
        squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2.0 * (x @ y.T)
        return np.maximum(squares, 0.0)

    def _standardised(self, points: Points) -> Array:
        joined = points.state if self.is_discrete else np.concatenate([points.state, points.action], 1)
        return (joined - self.centre) / self.unit


def _distinct(points: Points) -> Points:
    """Each different point once."""
    joined = np.concatenate([points.state, points.action], 1)
    return points.select(np.sort(np.unique(joined, axis=0, return_index=True)[1]))
