"""Episodes that were cut before the horizon: what stands for them where no fitted value may.

A cut episode says what it has seen, and nothing of the rest. A fitted value in place of the rest
(`OPEArrays.tail`) asks of cuts only that they do not look ahead. Two things must not rest on a fitted value:
ratios of whole episodes, which are there to need none, and the logged mean return, by which values are put to
the test. They take weights by inverse probability of censoring (Robins & Rotnitzky 1992), which ask that cuts
come whatever the episode does.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mbrl.off_policy.log.layout import Array, OPEArrays


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Censoring:
    """Counts of an episode's age, by which the chance of a cut is told from that of an end.

    Attributes:
        at_risk: `[T]`, episodes that were seen taking step t.
        uncut: `[T]`, K(t), chance that an episode which lasts so long is not cut before its step t (Kaplan &
            Meier 1958, with cuts as the event); 1 at t = 0.
        living: `[T + 1]`, S(t), chance that an episode has not ended by itself before its step t, likewise.
    """

    at_risk: Array
    uncut: Array
    living: Array

    @classmethod
    def of(cls, arrays: OPEArrays) -> "Censoring":
        """Of the padded episodes of a log."""
        ages = np.arange(arrays.steps + 1)
        lengths = np.sort(arrays.length)
        at_risk = (len(arrays) - np.searchsorted(lengths, ages, side="right")).astype(np.float64)
        cut, ended = (
            np.bincount(arrays.length[which], minlength=arrays.steps + 1).astype(np.float64)
            for which in (arrays.truncated, arrays.terminated)
        )
        # Of those that are alive at age t, having taken t steps, some are cut there and never take step t.
        open_ = at_risk + cut
        stays = 1.0 - np.divide(cut, open_, out=np.zeros_like(cut), where=open_ > 0)
        # Of those that take step t some end with it, and have age t + 1 then.
        goes_on = 1.0 - np.divide(ended[1:], at_risk[:-1], out=np.zeros(arrays.steps), where=at_risk[:-1] > 0)
        uncut, living = (np.cumprod(share, dtype=np.float64) for share in (stays[:-1], goes_on))
        return cls(at_risk[:-1], uncut, np.concatenate([[1.0], living]))


def why_not_known(arrays: OPEArrays) -> str | None:
    """Why the log does not tell mean returns without a fitted value; None if it does.

    Weights can stand for a cut episode only where others went on from the age at which it was cut.
    """
    if not arrays.truncated.any():
        return None
    if arrays.estimand.horizon is None:
        return "time-outs cut the logged returns"
    if bool((arrays.truncated & (arrays.length == arrays.steps)).any()):
        return f"no episode that lived was logged beyond step {arrays.steps:,} of {arrays.estimand.horizon:,}"
    return None


def logged_returns(arrays: OPEArrays) -> Array:
    """`[n]`, values of the episodes whose mean is the mean return of whoever acted, despite cuts.

    Without cuts they are the returns. With cuts the mean is `sum_t g^t S(t) mean(r_t of those that take step
    t)`: a product-limit estimate (Bang & Tsiatis 2000, section 3, with a period for each step), the same as
    `mean_i sum_t g^t r_it / K(t)` over the steps that were seen. The values are that mean plus the episode's
    influence on it, so their spread over `sqrt(n)` is its standard error.

    Args:
        arrays: padded log; ratios are not read.

    Raises:
        ValueError: `why_not_known` gives a reason.
    """
    problem = why_not_known(arrays)
    if problem is not None:
        raise ValueError(problem)
    if not arrays.truncated.any():
        return arrays.returns()
    n, steps, found = len(arrays), arrays.steps, Censoring.of(arrays)
    share = found.at_risk / n  # > 0: an episode of T steps has taken them all
    mean = arrays.reward.sum(0) / found.at_risk
    gain = arrays.discounts[:-1] * found.living[:-1] * mean  # g^t S(t) E[r_t | alive]
    # Influence values by the delta method, with h_k the share of those that take step k who end with it.
    # 1. What an episode says of the mean reward of the living: sum_t g^t S(t) / share_t (r_t - mean_t).
    factor = arrays.discounts[:-1] * found.living[:-1] / share
    seen = np.concatenate([[0.0], np.cumsum(factor * mean)])
    influence = arrays.reward @ factor - seen[arrays.length]
    # 2. What it says of survival: dS(t) = -S(t) sum_{k<t} (ended_k - h_k) / (share_k (1 - h_k)).
    later = gain.sum() - np.cumsum(gain)  # sum_{t>k}
    stays = np.divide(found.living[1:], found.living[:-1], out=np.zeros(steps), where=found.living[:-1] > 0)
    weight = np.divide(later, share * stays, out=np.zeros(steps), where=stays > 0)
    expected = np.concatenate([[0.0], np.cumsum(weight * (1.0 - stays))])
    influence += expected[arrays.length] - np.where(arrays.terminated, weight[arrays.length - 1], 0.0)
    return float(gain.sum()) + influence


def whole_episodes(arrays: OPEArrays) -> OPEArrays:
    """The log with episodes that were cut left out, and those that ran to their end in their place.

    A whole one of L steps starts with the weight `1 / K(L - 1)`, a cut one with none (Robins & Rotnitzky
    1992). Without cuts the log is returned as it is.

    Raises:
        ValueError: `why_not_known` gives a reason.
    """
    problem = why_not_known(arrays)
    if problem is not None:
        raise ValueError(problem)
    if not arrays.truncated.any():
        return arrays
    uncut = Censoring.of(arrays).uncut[arrays.length - 1]
    return dataclasses.replace(
        arrays,
        log_start=np.where(arrays.truncated, -np.inf, -np.log(uncut)),
        truncated=np.zeros(len(arrays), dtype=np.bool_),
        value=np.zeros_like(arrays.value),
        action_value=np.zeros_like(arrays.action_value),
        has_values=False,
    )


def whole_weights(arrays: OPEArrays) -> NDArray[np.float64]:
    """`[n]` weights of sum 1 by which whole episodes stand for all; equal ones without cuts.

    Raises:
        ValueError: see `whole_episodes`.
    """
    start = whole_episodes(arrays).log_start
    weight = np.ones(len(arrays)) if start is None else np.exp(start)
    return weight / weight.sum()
