"""A quadratic model of what plans are worth, and where it is largest: what draws of many dimensions miss.

Source: Hansen 2019, "A global surrogate assisted CMA-ES" (lq-CMA-ES): a full quadratic is regressed on the
best plans that were scored, weighted by rank. Where returns are quadratic in the plan, as those of linear
dynamics with quadratic costs are, its maximum is the best plan, exactly.

Departures: the maximum is proposed beside the draws, it replaces none of the method's own steps; directions
in which the model is convex are followed uphill (Dauphin et al. 2014); with too few plans for a full
quadratic there is no model, where the source goes on with a diagonal one.
"""

from typing import Final, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_ENOUGH: Final = 1.1
"""Plans for each coefficient before there is a model, as in lq-CMA-ES."""

_LOCAL: Final = 2
"""The model is of the best plans alone, this many for each coefficient: a quadratic is a local model."""

_BEST_WEIGHT: Final = 20.0
"""Weight of the best plan in that of the last one that counts, linear in between, as in lq-CMA-ES."""

_MOST_COEFFICIENTS: Final = 1500
"""Of a model, 53 dimensions: a fit takes some 7 GFLOP for each state, and more grows with the cube."""

_RIDGE: Final = 1e-10
"""Share of the largest squared feature: keeps dimensions solvable in which no plan differs."""

_FARTHEST: Final = 3.0
"""Steps end this many deviations of the plans from the best one, in each principal direction of the model by
itself: beyond lies nothing that was looked at, and a flat direction must not shorten the others."""


def coefficients(dims: int) -> int:
    """Of a quadratic in `dims` variables: `(n + 1) (n + 2) / 2`."""
    return (dims + 1) * (dims + 2) // 2


def plans_needed(dims: int) -> int:
    """Scored plans that a model of `dims` variables asks for."""
    return int(_ENOUGH * coefficients(dims)) + 1


@torch.no_grad()
def quadratic_peak(
    plans: Float[Tensor, "b n d"], score: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "b d"], Bool[Tensor, "b"]] | None:
    """The maximum of a quadratic that is regressed on the best of the plans; computed in float64.

    Args:
        plans: as vectors.
        score: -inf where it is not finite; such plans say nothing.

    Returns:
        The maximum, not clipped to any box, and where there is one; None where there are too few plans or too
        many dimensions.
    """
    dims = plans.shape[2]
    if plans.shape[1] < plans_needed(dims) or coefficients(dims) > _MOST_COEFFICIENTS:
        return None
    # 1. The best plans, in units of their own spread around the best of all.
    count = min(plans.shape[1], _LOCAL * plans_needed(dims))
    best = torch.argsort(score, dim=1, descending=True, stable=True)[:, :count]
    y, x = score.gather(1, best).double(), plans.take_along_dim(best[..., None], 1).double()
    is_finite = y.isfinite()
    known = is_finite.sum(1) >= plans_needed(dims)
    x = torch.where(is_finite[..., None], x, x[:, :1])
    y = torch.where(is_finite, y - y[:, :1], 0.0)
    centre, scale = x[:, :1], x.std(1, keepdim=True).clamp_min(1e-9)
    z = (x - centre) / scale
    # 2. Weighted least squares of 1, z_i and z_i z_j.
    weight = torch.linspace(_BEST_WEIGHT, 1.0, count, dtype=z.dtype, device=z.device).sqrt() * is_finite
    solution = _regress(z, y / y.abs().amax(1, keepdim=True).clamp_min(1e-300), weight)
    known &= solution.isfinite().all(1)
    solution = solution.nan_to_num()
    # 3. Up to its maximum from the best plan: a Newton step with curvatures of the right sign.
    peak = (centre + scale * _ascend(solution, dims)[:, None])[:, 0]
    known &= peak.isfinite().all(1)
    return torch.where(known[:, None], peak, centre[:, 0]).to(plans.dtype), known


def _regress(
    z: Float[Tensor, "b n d"], y: Float[Tensor, "b n"], weight: Float[Tensor, "b n"]
) -> Float[Tensor, "b c"]:
    """Coefficients of 1, z_i, z_i z_j (i <= j); NaN where they are not determined."""
    rows, columns = torch.triu_indices(z.shape[2], z.shape[2], device=z.device)
    found: list[Tensor] = []
    # State by state: the features of all at once would need gigabytes for long plans of many states.
    for place, target, share in zip(z, y, weight, strict=True):
        features = torch.cat((torch.ones_like(place[:, :1]), place, place[:, rows] * place[:, columns]), 1)
        features *= share[:, None]
        gram = features.T @ features
        gram.diagonal().add_(_RIDGE * gram.diagonal().amax())
        factor, info = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(gram))
        if int(info) != 0:
            found.append(torch.full_like(gram[0], torch.nan))
            continue
        found.append(torch.cholesky_solve(features.T @ (share * target)[:, None], factor)[:, 0])
    return torch.stack(found)


def _ascend(solution: Float[Tensor, "b c"], dims: int) -> Float[Tensor, "b d"]:
    """`sum_i clip((v_i' g) / |l_i|) v_i` of the model's gradient g and curvatures l_i along v_i, at z = 0."""
    gradient, products = solution[:, 1 : dims + 1], solution[:, dims + 1 :]
    rows, columns = torch.triu_indices(dims, dims, device=solution.device)
    hessian = solution.new_zeros(len(solution), dims, dims)
    hessian[:, rows, columns] = products
    # z_i z_j stands once for i and j, so that both halves of the Hessian get it; the diagonal counts twice.
    hessian = hessian + hessian.mT
    curvature, along = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(hessian))
    length = (along.mT @ gradient[..., None])[..., 0] / curvature.abs().clamp_min(1e-300)
    return (along @ length.clamp(-_FARTHEST, _FARTHEST)[..., None])[..., 0]
