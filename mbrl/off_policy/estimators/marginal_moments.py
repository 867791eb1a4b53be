"""The moments that marginal ratios match, and the ridge regression that matches them."""

import dataclasses
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl.off_policy.estimators.marginal_steps import MarginalSteps
from mbrl.off_policy.log.landmarks import LandmarkBasis
from mbrl.off_policy.log.layout import Array

_FOLDS: Final = 5  # parts of the episodes: weights and values of four give the influence of the fifth
_ROUNDING: Final = 1e-13  # singular values below this share of the largest say nothing


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over the episodes of each fold, as shares of means over all episodes.

    Attributes:
        matrix: `[folds, r, r]`, `A = mean_i sum_t psi_t phi_t'`.
        payload: `[folds, r, 2]`, `mean_i sum_t psi_t x_t` of the rewards and of the masses x.
        start: `[folds, r]`, `b = mean_i psi(s_0, pi)`.
        fold: `[n]`, of each episode.
    """

    matrix: Array
    payload: Array
    start: Array
    fold: NDArray[np.int64]

    @classmethod
    def gather(cls, steps: MarginalSteps, basis: LandmarkBasis) -> "Moments":
        """The moments of a log in a basis; one pass over the rows."""
        # Folds by rank of the return: they are alike, and do not depend on the order of the episodes.
        folds, rank = min(_FOLDS, steps.episodes), np.empty(steps.episodes, dtype=np.int64)
        rank[np.argsort(steps.returns, kind="stable")] = np.arange(steps.episodes)
        fold, size = rank % folds, basis.size
        matrix, payload = np.zeros((folds, size, size)), np.zeros((folds, size, 2))
        start = np.zeros((folds, size))
        for rows, psi, phi in steps.features(basis):
            of_row = fold[steps.episode[rows]]
            for index in range(folds):
                here = of_row == index
                # Sums, kept by fold: to leave one out is then to add up the
                # others, without a second pass over the rows.
                matrix[index] += steps.weight * psi[here].T @ phi[here]
                payload[index] += steps.weight * psi[here].T @ steps.payload[rows][here]
        for rows, psi in steps.starts(basis):
            for index in range(folds):
                start[index] += psi[fold[rows] == index].sum(0) / steps.episodes
        return cls(matrix, payload, start, fold)

    @property
    def folds(self) -> int:
        """The number of folds."""
        return len(self.start)

    def without(self, index: int) -> "Moments":
        """All folds but one."""
        rest = np.arange(self.folds) != index
        return Moments(self.matrix[rest], self.payload[rest], self.start[rest], self.fold)


class MomentSolution(NamedTuple):
    """Weights and values that match moments.

    Attributes:
        alpha: `[r]`, the weight of a step is `psi' alpha`.
        theta: `[r]`, the value of a state and an action is `psi' theta`, of the combined payload.
        error: `[r]`, moments of the first states that are left unmatched.
    """

    alpha: Array
    theta: Array
    error: Array


def solve_moments(moments: Moments, combination: Array, ridge: float) -> MomentSolution:
    """`alpha = argmin |A' a - b|^2 + ridge s_max^2 |a|^2` over all folds, and the value function beside it.

    `A' alpha = b` says `mean_i sum_t w_t phi_t = mean_i psi(s_0, pi)`: the weights match the moment of every
    function of the basis (minimax weight learning, Uehara et al. 2020, section 4). The transpose,
    `A theta = payload`, is the Bellman equation in that basis (their section 5): one factorisation does both.

    Args:
        moments: of the episodes that may be used.
        combination: `[2]`, the payload is `x @ combination`.
        ridge: share of the largest squared singular value.
    """
    matrix, start = moments.matrix.sum(0), moments.start.sum(0)
    system = _SingularSystem.factorise(matrix)
    alpha = system.weights(start, ridge)
    # The same singular vectors with left and right exchanged solve the transposed system.
    theta = system.values_of(moments.payload.sum(0) @ combination, ridge)
    return MomentSolution(alpha, theta, start - matrix.T @ alpha)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _SingularSystem:
    """`A = left diag(values) right'`."""

    left: Array
    values: Array
    right: Array  # [r, r], columns

    @classmethod
    def factorise(cls, matrix: Array) -> "_SingularSystem":
        # Not the normal equations: they square the condition
        # number, which kernels on close landmarks make large.
        left, values, right = np.linalg.svd(matrix)
        return cls(left, values, right.T)

    def weights(self, start: Array, ridge: float) -> Array:
        """a, coefficients of the weight function, `(A A' + l)^-1 A start`."""
        return self.left @ (self._shrunk(ridge) * (self.right.T @ start))

    def values_of(self, payload: Array, ridge: float) -> Array:
        """Coefficients of the value function, `A' (A A' + l)^-1 payload`."""
        return self.right @ (self._shrunk(ridge) * (self.left.T @ payload))

    def _shrunk(self, ridge: float) -> Array:
        """`s / (s^2 + ridge s_max^2)`, 0 where s is rounding."""
        # The ridge may be 0; what is rounding must then not be divided by.
        kept = self.values > _ROUNDING * self.values[0]
        squares = np.where(kept, np.square(self.values) + ridge * self.values[0] ** 2, 1.0)
        return np.where(kept, self.values / squares, 0.0)
