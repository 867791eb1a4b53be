"""A blend of several estimates of one value, with the weights of the least estimated error.

After OPERA (Nie et al. 2024): minimise `y' E y` over the simplex. E is the covariance of the estimates under
one bootstrap of episodes that all share, plus `beta beta'`, beta their distance from the interval of an
anchor, as MAGIC measures bias. Departure: what an ensemble leaves open enters E as well, since episodes do
not show it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import numpy as np
import scipy.special
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import EstimandMismatchError
from mbrl.core.estimates import Estimate, Flag
from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.bounds import LEVEL
from mbrl.off_policy.statistics.self_normalised import draw_counts
from mbrl.off_policy.statistics.simplex import least_error_blend


class BlendConfig(BaseModel):
    """How estimates are blended.

    Attributes:
        resamples: of the episodes.
        seed: of the resamples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: Annotated[int, Field(ge=0)] = 0


DEFAULT: Final = BlendConfig()


def blend_estimates(parts: Sequence[Estimate], *, anchor: str, config: BlendConfig = DEFAULT) -> Estimate:
    """`y' estimates`, to be shown beside its parts, never alone.

    Args:
        parts: estimates of one quantity with `per_episode` values of the same episodes, or of the `starts`
            among them that `details` name; of estimates that rest on the same fit only one, since their
            common error would count as independent.
        anchor: name of the part whose 95 % interval the bias of the others is measured from.
        config: of the resamples.

    Returns:
        The blend; `details` hold `parts` (names), `weights` (y) and `bias` (beta).

    Raises:
        EstimandMismatchError: the parts estimate different quantities.
        ValueError: a part has no point or no values by episode, or the anchor has no interval.
    """
    _check(parts)
    points = np.array([part.point for part in parts])
    ends = next((part.ci95 for part in parts if part.name == anchor), None)
    if ends is None or not np.isfinite(ends).all():
        raise ValueError(f"the anchor {anchor!r} is no part with an interval")
    bias = points - np.clip(points, *ends)
    values = _shared_values(parts)
    covariance = _covariance(parts, values, config)
    weights = least_error_blend(covariance + np.outer(bias, bias))
    se = math.sqrt(float(weights @ covariance @ weights))
    half = float(scipy.special.ndtri(0.5 + LEVEL / 2)) * se
    point = float(weights @ points)
    return Estimate(
        "blend",
        "hybrid",
        point=point,
        se=se,
        ci95=(point - half, point + half),
        method_of_ci="normal, weights taken as known",
        n_eff=float(weights @ [part.n_eff for part in parts]),
        estimand=parts[0].estimand,
        per_episode=values @ weights,
        details={"parts": [part.name for part in parts], "weights": weights, "bias": bias},
    )


def blend_primaries(estimates: Mapping[str, Estimate], *, least_ess: float) -> Estimate | None:
    """The blend of the primary estimates, one of each family; None of fewer than two.

    Where two or more are valid, of these. Else of all that have an interval, and not valid itself: errors of
    different families partly cancel, so it still ranks policies, but nothing vouches for its interval. The
    anchor is the first of ratio, value and model that is among them: its bias is the least.

    Args:
        estimates: by name.
        least_ess: effective episodes below which ratios are not counted; few heavy episodes look certain.
    """
    found = [estimates[name] for name in primary_estimators().values() if name in estimates]
    usable = [
        part
        for part in found
        if part.per_episode is not None
        and bool(np.isfinite(part.ci95).all())
        and (part.family != "ratio" or part.n_eff >= least_ess)
    ]
    valid = [part for part in usable if part.valid]
    parts = valid if len(valid) > 1 else usable
    if len(parts) < 2:
        return None
    blend = blend_estimates(parts, anchor=parts[0].name)
    if len(valid) > 1:
        return blend
    invalid = ", ".join(part.name for part in parts if not part.valid)
    return blend.invalidated(f"fewer than two of its parts count, not {invalid}", Flag.INVALID_PARTS)


def _shared_values(parts: Sequence[Estimate]) -> Array:
    """`[n, k]`, values by episode of the episodes that all parts know.

    Raises:
        ValueError: they rest on different episodes.
    """
    starts = next((part.details["starts"] for part in parts if "starts" in part.details), None)
    columns = [
        _values(part) if starts is None or "starts" in part.details else _values(part)[starts]
        for part in parts
    ]
    lengths = {column.size for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"the parts rest on different episodes: {sorted(lengths)} of them")
    return np.stack(columns, 1)


def _covariance(parts: Sequence[Estimate], values: Array, config: BlendConfig) -> Array:
    """`[k, k]`: of the means over resampled episodes, and what the ensembles leave open on the diagonal."""
    n = values.shape[0]
    counts = draw_counts(n, config.resamples, np.random.default_rng(config.seed))
    covariance = np.atleast_2d(np.cov(counts @ values / n, rowvar=False))
    epistemic = [float(part.details.get("epistemic_se", 0.0)) ** 2 for part in parts]
    return covariance + np.diag(epistemic)


def _check(parts: Sequence[Estimate]) -> None:
    if not parts:
        raise ValueError("there is nothing to blend")
    if any(part.estimand != parts[0].estimand for part in parts):
        texts = "; ".join(f"{part.name}: {part.estimand.describe()}" for part in parts)
        raise EstimandMismatchError(f"Estimates of different quantities cannot be blended: {texts}.")
    without = [part.name for part in parts if not math.isfinite(part.point)]
    if without:
        raise ValueError(f"without a point: {', '.join(without)}")


def _values(part: Estimate) -> Array:
    if part.per_episode is None:
        raise ValueError(f"{part.name} has no values by episode")
    return part.per_episode
