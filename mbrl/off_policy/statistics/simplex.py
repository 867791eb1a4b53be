"""Weights on the simplex: the blend of estimates with the least estimated error."""

from typing import Final, cast

import numpy as np
import scipy.optimize

from mbrl.off_policy.log.layout import Array

KKT_TOLERANCE: Final = 1e-8


def least_error_blend(error: Array) -> Array:
    """The y of the simplex with the least `y' E y`; the last corner if E is 0.

    With `E = L'L` it is the point of least norm in the hull of the columns of L. That point solves the
    non-negative least squares `min |L z|^2 + (1'z - 1)^2` up to a factor, exactly, in finitely many steps.

    Args:
        error: `[k, k]`, symmetric, positive semi-definite.

    Raises:
        ArithmeticError: the solution misses the optimality conditions by more than 1e-8.
    """
    k, trace = error.shape[0], float(np.trace(error))
    if trace <= 0.0:
        return np.eye(k)[-1]
    # 1. E = L'L, by its eigenvalues; scaled, so that tolerances mean something.
    scaled = error / trace
    values, vectors = np.linalg.eigh(scaled)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    # 2. min |L z|^2 + (1'z - 1)^2 over z >= 0; y = z / 1'z.
    system = np.concatenate([root, np.ones((1, k))])
    target = np.append(np.zeros(k), 1.0)
    solution, _ = cast("tuple[Array, float]", scipy.optimize.nnls(system, target))
    blend = solution / solution.sum()
    # 3. Optimal where no corner has a smaller directional derivative than y itself: y'E y <= (E y)_k.
    gradient = scaled @ blend
    residual = max(0.0, float(blend @ gradient - gradient.min()))
    if residual > KKT_TOLERANCE:
        raise ArithmeticError(f"the blend misses its optimality conditions by {residual:.1e}")
    return blend
