"""What marginal ratios and fitted values say of a policy, and of each other."""

import dataclasses
import math
from typing import Final

import numpy as np
import torch

from mbrl.core.estimates import Estimand, Flag
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.marginal_ratio import MarginalRatio
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.value.fqe_result import FQEResult

MAX_IMBALANCE: Final = 0.1
"""Share of the moments of the first states, and of the mass, that weights may leave unmatched."""

MAX_WITNESSED_BIAS: Final = 0.5
"""Standard errors by which ratios may miss the moment of a fitted value: a 95 % interval that is off by half
of one still covers 92 %."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MarginalEvidence:
    """What ratios and fitted values say of a policy, and of each other.

    Attributes:
        ratio: weights of logged steps.
        critics: fitted values of the same policy.
        corrected: `[k, n]`, see `corrected_values`.
        estimand: what is estimated.
    """

    ratio: MarginalRatio
    critics: FQEResult
    corrected: Array
    estimand: Estimand

    @classmethod
    def gather(cls, context: EstimatorContext, generator: torch.Generator) -> "MarginalEvidence":
        """Fits what was not fitted before.

        Raises:
            DataError: fewer than two episodes.
        """
        ratio = context.marginal_ratio(generator)
        critics = context.fit_values(generator)
        logged = context.members_on_log(generator)
        corrected = corrected_values(ratio, critics, context.dataset, logged)
        return cls(ratio, critics, corrected, context.estimand)

    @property
    def values(self) -> Array:
        """`[n]` values by the ratios alone; their mean is the estimate, their spread its error."""
        return (self.ratio.value + self.ratio.influence) * self.estimand.scale

    @property
    def se(self) -> float:
        """Of the ratios' estimate."""
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))

    @property
    def witnessed_bias(self) -> float:
        """By how much the ratios miss the moment of the fitted value.

        Right weights give `sum w (Q - g V') = E V(s_0)` for every function Q, whether it is a value or not.
        """
        return (float(self.corrected.mean()) - self.ratio.value) * self.estimand.scale

    @property
    def details(self) -> dict[str, float]:
        """For reports."""
        return {
            "imbalance": self.ratio.imbalance,
            "mass": self.ratio.mass,
            "landmarks": self.ratio.landmarks,
            "negative_share": self.ratio.negative_share,
            "witnessed_bias": self.witnessed_bias,
            "tail_share": 0.0,  # cuts change what the log visits, and ratios are relative to that
        }

    def problem(self) -> tuple[str, Flag] | None:
        """Why the ratios cannot be believed, with the flag; None if they can."""
        # In the order of what each test takes for granted: first the moments of the kernel itself, then how
        # many episodes speak, then a function from outside the kernel, if it had time to become one.
        ratio, missed = self.ratio, self.witnessed_bias
        if ratio.imbalance > MAX_IMBALANCE or abs(ratio.mass - 1.0) > MAX_IMBALANCE:
            reason = (
                f"no weights on the log do: {ratio.imbalance:.0%} of the moments stay unmatched, and the "
                f"visits add up to {ratio.mass:.0%}"
            )
            return reason, Flag.UNBALANCED
        problem = WeightEvidence.of_weights(ratio.episode_mass).problem()
        if problem is not None:
            return problem
        if self.critics.config.updates < self.critics.least_updates:
            return "the values that its weights are tested by had too few updates", Flag.UNTESTED_WEIGHTS
        if not abs(missed) <= MAX_WITNESSED_BIAS * self.se:
            reason = (
                f"its weights miss the moment of the fitted value by {abs(missed):.3g}, more than "
                f"{MAX_WITNESSED_BIAS:g} standard errors: the kernel cannot follow the policy"
            )
            return reason, Flag.UNBALANCED_VALUE
        return None


def corrected_values(
    ratio: MarginalRatio, critics: FQEResult, data: Dataset, logged: tuple[Array, Array]
) -> Array:
    """`[k, n]`, `V_m(s_0) + sum_t w (r + g V_m(s') - Q_m(s, a))` of each member and episode.

    Args:
        ratio: of the policy on these episodes.
        critics: fitted values of the same policy and estimand.
        data: the episodes.
        logged: Q `[k, N]` and V `[k, N + n]` of its members on them (`FQEResult.members_on_log`).
    """
    rows, n, (action_value, value) = data.transitions(), len(data), logged
    following = np.arange(len(rows)) + rows.episode + 1  # an episode has one state more than steps
    # Temporal differences r + g V(s') - Q(s, a) of every member, weighted and summed over each episode.
    goes_on = critics.estimand.discount * ~rows.terminated
    differences = rows.reward + goes_on * value[:, following] - action_value
    weighted, episode = ratio.normalised * differences[:, ratio.rows], rows.episode[ratio.rows]
    return critics.initial + np.stack([np.bincount(episode, weights=w, minlength=n) for w in weighted])
