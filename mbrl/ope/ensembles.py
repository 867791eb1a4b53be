"""Estimates from an ensemble whose members were each fitted to a resample of the log."""

import math

import numpy as np
import scipy.stats

from mbrl.core.estimates import Estimand, Estimate, Family
from mbrl.ope.layout import Array

_MANY_MEMBERS = 30


def ensemble_estimate(name: str, family: Family, values: Array, estimand: Estimand) -> Estimate:
    """Mean over members and starts, `se^2 = var_m(V_m) + var_i(mean_m V_m(s_i)) / n`.

    The first term is what the log leaves open; it is not divided by the number of members. The interval is
    Student t with one degree of freedom less than members, while these are fewer than 30.

    Args:
        name: id of the estimator.
        family: of the estimate.
        values: `[m, n]`, each member's value of each start, in units of the plain sum.
        estimand: what is estimated.
    """
    members, n = values.shape
    scaled = values * estimand.scale
    if not np.isfinite(scaled).all():
        return Estimate(
            name,
            family,
            point=math.nan,
            se=math.nan,
            ci95=(math.nan, math.nan),
            method_of_ci="none: diverged",
            n_eff=0.0,
            estimand=estimand,
            flags=("diverged",),
            valid=False,
            why_not="the values are not finite",
        )
    point, starts = float(scaled.mean()), scaled.mean(0)
    between = float(scaled.mean(1).var(ddof=1)) if members > 1 else math.nan
    within = float(starts.var(ddof=1)) / n if n > 1 else 0.0
    se = math.sqrt(between + within) if members > 1 else math.nan
    quantile = float(scipy.stats.t.ppf(0.975, members - 1)) if 1 < members < _MANY_MEMBERS else 1.959964
    estimate = Estimate(
        name,
        family,
        point=point,
        se=se,
        ci95=(point - quantile * se, point + quantile * se),
        method_of_ci=f"Student t over {members} members and {n} starts"
        if members > 1
        else "none: one member",
        n_eff=float(n),
        estimand=estimand,
        per_episode=starts,
        details={"members": scaled.mean(1), "epistemic_se": math.sqrt(between) if members > 1 else math.nan},
    )
    return estimate if members > 1 else estimate.invalidated("one member has no spread", "no_epistemic")
