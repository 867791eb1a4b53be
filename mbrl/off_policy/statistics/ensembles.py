"""Estimates from an ensemble whose members were each fitted to a resample of the log."""

import dataclasses
import math

import numpy as np
import scipy.special

from mbrl.core.estimates import Estimand, Estimate, Family, Flag
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.bounds import LEVEL, NOTHING, Ends

_MANY_MEMBERS = 30


def member_interval(values: Array, within: float, *, level: float = LEVEL) -> tuple[float, Ends]:
    """Standard error `sqrt(var_m + within)` of a mean over members, and its Student t interval.

    The degrees of freedom are one less than members, while these are fewer than 30.

    Args:
        values: `[m]`, one for each member.
        within: variance of the mean from what all members share, such as the first states.
        level: nominal coverage.
    """
    if values.size < 2:
        return math.nan, NOTHING
    # Not divided by the number of members: they are draws from one posterior, and more of them
    # make its mean better known but the log no larger.
    se, point = math.sqrt(float(values.var(ddof=1)) + within), float(values.mean())
    half = member_quantile(values.size, level) * se
    return se, (point - half, point + half)


def member_quantile(members: int, level: float = LEVEL) -> float:
    """Two-sided quantile of Student t with one degree of freedom less than members; normal from 30 on."""
    upper = 0.5 + level / 2
    if members >= _MANY_MEMBERS:
        return float(scipy.special.ndtri(upper))
    return float(scipy.special.stdtrit(members - 1, upper))


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
            flags=(Flag.DIVERGED,),
            valid=False,
            why_not="the values are not finite",
        )
    # Two variances: between the members, which is what the log leaves open, and of the mean over starts,
    # which all members share.
    point, starts = float(scaled.mean()), scaled.mean(0)
    by_member = scaled.mean(1)
    between = float(by_member.var(ddof=1)) if members > 1 else math.nan
    se, ends = member_interval(by_member, float(starts.var(ddof=1)) / n if n > 1 else 0.0)
    estimate = Estimate(
        name,
        family,
        point=point,
        se=se,
        ci95=ends,
        method_of_ci=f"Student t over {members} members and {n} starts"
        if members > 1
        else "none: one member",
        n_eff=float(n),
        estimand=estimand,
        per_episode=starts,
        details={"members": by_member, "epistemic_se": math.sqrt(between) if members > 1 else math.nan},
    )
    return estimate if members > 1 else estimate.invalidated("one member has no spread", Flag.NO_EPISTEMIC)


def widened_by_members(estimate: Estimate, points: Array) -> Estimate:
    """An estimate from fitted values that took them as known, with what the log leaves open of them.

    `se^2 + var_m(point_m)`; each end moves outward in quadrature by the members' deviation times the Student
    t quantile of `member_interval`.

    Args:
        estimate: from the mean of the members.
        points: `[m]`, what each member's values alone would give, units of the estimate.
    """
    # Independent errors add in quadrature, and so do the arms of an interval.
    spread = float(points.std(ddof=1)) if points.size > 1 else math.nan
    reach, (low, high) = member_quantile(points.size) * spread, estimate.ci95
    return dataclasses.replace(
        estimate,
        se=math.hypot(estimate.se, spread),
        ci95=(
            estimate.point - math.hypot(estimate.point - low, reach),
            estimate.point + math.hypot(high - estimate.point, reach),
        ),
        method_of_ci=f"{estimate.method_of_ci}, widened by {points.size} members of the value",
        details={**estimate.details, "epistemic_se": spread},
    )
