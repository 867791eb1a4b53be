"""Means of episodes as estimates: of independent values, and of self-normalised weights."""

import numpy as np

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimate, Family, Flag
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, final_ess, first_empty_step
from mbrl.off_policy.statistics.bounds import Bootstrap, Interval95, default_interval, student_interval
from mbrl.off_policy.statistics.self_normalised import Terms, influence_values, self_normalised_se


def mean_estimate(name: str, arrays: OPEArrays, values: Array, *, family: Family, n_eff: float) -> Estimate:
    """The mean of independent values with a Student t interval."""
    # X = scale * mean_i X_i, its error sd(X_i) / sqrt(n): episodes are independent, steps are not.
    estimand, n = arrays.estimand, len(arrays)
    values = values * estimand.scale
    point = float(values.mean())
    if not np.isfinite(point):
        return without_point(name, arrays, family, Flag.WEIGHTS_OVERFLOW)
    interval = student_interval(values)
    se = float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(
        name,
        family,
        point=point,
        se=float(se),
        ci95=interval.ends,
        method_of_ci=interval.method,
        n_eff=n_eff,
        estimand=estimand,
        flags=_data_flags(arrays),
        per_episode=values,
    )


def self_normalised_estimate(
    name: str,
    arrays: OPEArrays,
    terms: Terms,
    transform: WeightTransform = PLAIN,
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """A sum of self-normalised means with its delta-method error and an interval."""
    # A ratio of means has no independent summands; its influence values, whose mean is the estimate, take
    # their place (delta method).
    influence = influence_values(terms, len(arrays))
    if not np.isfinite(influence).all():
        return without_point(name, arrays, "ratio", f"all_weights_zero@{first_empty_step(arrays, transform)}")
    scale, n = arrays.estimand.scale, len(arrays)
    point = float(influence.mean())
    interval = default_interval(terms, influence, bootstrap)
    interval = Interval95((interval.ends[0] * scale, interval.ends[1] * scale), interval.method)
    return Estimate(
        name,
        "ratio",
        point=point * scale,
        se=self_normalised_se(influence) * scale if n > 1 else np.nan,
        ci95=interval.ends,
        method_of_ci=interval.method,
        n_eff=final_ess(arrays, transform),
        estimand=arrays.estimand,
        flags=_data_flags(arrays),
        per_episode=influence * scale,
        details={"is_self_normalised": True},
    )


def require_values(arrays: OPEArrays, name: str) -> None:
    """Refuses a log without values.

    Raises:
        EstimandError: Q and V were not given.
    """
    if not arrays.has_values:
        raise EstimandError(f"{name} needs Q and V of the evaluated policy. Remedy: fit them (`fit_fqe`).")


def without_point(name: str, arrays: OPEArrays, family: Family, reason: str) -> Estimate:
    """NaN, with the reason."""
    return Estimate(
        name,
        family,
        point=np.nan,
        se=np.nan,
        ci95=(np.nan, np.nan),
        method_of_ci=f"none: {reason}",
        n_eff=0.0,
        estimand=arrays.estimand,
        flags=(Flag(reason.partition("@")[0]),),
        valid=False,
        why_not=reason,
    )


def _data_flags(arrays: OPEArrays) -> tuple[Flag, ...]:
    return (Flag.BOTH_END_FLAGS,) if arrays.both_flags else ()
