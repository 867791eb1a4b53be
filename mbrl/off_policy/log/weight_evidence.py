"""Whether weights carry an estimate: one rule for every estimator that reweights what was logged.

An interval of weighted episodes is made from the weights that were drawn. Where few episodes carry them, or
where the largest ones have too heavy a tail, those that would widen it are missing, and it is narrow for lack
of evidence. Three numbers tell, each blind to something that another sees:

- the effective number of episodes `(sum w)^2 / sum w^2` (Kong 1992): how many equal ones would do as well;
- the largest share of one episode; its inverse is the effective number that reacts to the worst alone
  (Martino, Elvira & Louzada 2017, ESS-infinity);
- Pareto k, the shape of the tail of the weights (Vehtari et al. 2024, PSIS): above 0.5 they have no variance,
  and from about 0.7 on no number of episodes that anybody logs is enough.

A fourth counts where weights are not normalised: they average 1 over all logs, and an estimate from a log
where they do not is off by about as much. The heavy ones that would have made up for it were not drawn, and
nothing of what was drawn tells how heavy they are (the control variate of Hesterberg 1995, read as a test).
"""

import dataclasses
from typing import Final

import numpy as np

from mbrl.core.estimates import Flag
from mbrl.off_policy.log.diagnostics import LEAST_ESS, USABLE_PARETO_K, pareto_k
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import PLAIN, WeightTransform, exp_weights, log_sum_exp, weight_blocks

MOST_SHARE: Final = 0.1
"""Share of the weight that one episode may carry."""

MOST_GAP: Final = 2.0
"""Standard errors by which the mean of weights that are not normalised may miss 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class WeightEvidence:
    """What carries an estimate.

    Attributes:
        ess: effective number of episodes, the least of any step.
        largest_share: of one episode, the most at any step.
        pareto_k: tail shape of the last step's weights; NaN where too few have a tail.
        mean_weight: of the last step; 1 is its expectation.
        mean_gap: its distance from 1, in standard errors; NaN where the weights have none, or are no ratios.
    """

    ess: float
    largest_share: float
    pareto_k: float
    mean_weight: float = np.nan
    mean_gap: float = np.nan

    @classmethod
    def of_log(cls, arrays: OPEArrays, transform: WeightTransform = PLAIN) -> "WeightEvidence":
        """Of cumulative ratios, over all steps: per-decision estimates read every one of them."""
        ess, share, last = float(len(arrays)), 1.0 / len(arrays), np.zeros(len(arrays))
        for block in weight_blocks(arrays, transform):
            log_weight = block.log_weight
            total, squares = log_sum_exp(log_weight), log_sum_exp(2 * log_weight)
            with np.errstate(invalid="ignore"):
                by_step = np.where(np.isfinite(total), np.exp(2 * total - squares), 0.0)
            ess = min(ess, float(by_step.min()))
            share = max(share, float(np.nan_to_num(block.share, nan=1.0).max()))
            last = log_weight[:, -1]
        return cls(ess, share, pareto_k(last), *_mean_of(exp_weights(last)))

    @classmethod
    def of_weights(cls, weight: Array) -> "WeightEvidence":
        """Of one weight for each episode, `[n]`; what is negative has no tail of its own."""
        size = np.abs(weight)
        if not size.any():
            return cls(0.0, 1.0, np.nan)
        with np.errstate(divide="ignore"):
            log_weight = np.log(np.maximum(weight, 0.0))
        ess = float(weight.sum()) ** 2 / float(np.square(weight).sum())
        return cls(ess, float(size.max() / size.sum()), pareto_k(log_weight))

    def problem(self, *, is_normalised: bool = True) -> tuple[str, Flag] | None:
        """Why these weights carry nothing, with the flag; None if they do.

        Args:
            is_normalised: whether an estimate divides by the sum of the weights, and so does not care for it.
        """
        if self.ess == 0.0:
            return (
                "no logged episode could have come from the policy: every weight is 0",
                Flag.ALL_WEIGHTS_ZERO,
            )
        if self.ess < LEAST_ESS:
            return f"{self.ess:.1f} effective episodes, {LEAST_ESS:g} are needed", Flag.LOW_ESS
        if self.largest_share > MOST_SHARE:
            reason = (
                f"one episode carries {self.largest_share:.0%} of the weight, at most {MOST_SHARE:.0%} may"
            )
            return reason, Flag.DOMINATED
        if self.pareto_k >= USABLE_PARETO_K:
            return f"the weights have too heavy a tail (Pareto k {self.pareto_k:.2f})", Flag.HEAVY_TAIL
        if not is_normalised and abs(self.mean_gap) > MOST_GAP:
            reason = (
                f"the weights average {self.mean_weight:.3g}, {abs(self.mean_gap):.1f} standard errors from "
                "the 1 that they must: heavy ones were not drawn"
            )
            return reason, Flag.WEIGHTS_OFF_ONE
        return None


def _mean_of(weight: Array) -> tuple[float, float]:
    """Mean of weights `[n]`, and by how many standard errors it misses 1."""
    if len(weight) < 2 or not np.isfinite(weight).all():
        return np.nan, np.nan
    mean, error = float(weight.mean()), float(weight.std(ddof=1)) / np.sqrt(len(weight))
    return mean, (mean - 1.0) / error if error > 0 else np.nan
