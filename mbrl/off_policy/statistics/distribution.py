"""Distributions of returns with weights: quantiles, the mean of the worst part, shares with few events.

`F(x) = sum_i share_i 1{G_i <= x}` with the weights of whole episodes (Chandak et al. 2021, section 3; Huang
et al. 2021, eq. 7). Returns are discounted from `discount^0` on.
"""

import dataclasses
from typing import Final

import numpy as np

from mbrl.off_policy.log.layout import Array

WORST: Final = 0.1
"""Share of the episodes over which CVaR is the mean."""

_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ReturnDistribution:
    """A distribution with atoms.

    Attributes:
        value: `[n]`, ascending.
        cdf: `[n]`, `F(value)`, ascending; ends at 1 where the weights were normalised.
    """

    value: Array
    cdf: Array

    @classmethod
    def make(cls, returns: Array, weight: Array, *, is_normalised: bool = True) -> "ReturnDistribution":
        """From returns `[n]` and their weights `[n]`, none negative.

        Args:
            returns: of the episodes.
            weight: of the episodes; their sum must not be 0.
            is_normalised: divide by their sum. Else by n: unbiased, but F may leave [0, 1], and is clipped.
        """
        # F at the sorted returns; a running maximum keeps it a distribution where weights made it fall.
        order = np.argsort(returns, kind="stable")
        cdf = np.cumsum(weight[order])
        total = float(cdf[-1]) if is_normalised else float(returns.size)
        return cls(returns[order], np.maximum.accumulate(np.clip(cdf / total, 0.0, 1.0)))

    def quantile(self, level: float) -> float:
        """Least x with `F(x) >= level`; the largest return where F does not get there."""
        # A level just below: sums of shares miss a level by a rounding, as 0.7 + 0.1 does 0.8.
        index = int(np.searchsorted(self.cdf, level * (1 - _ROUNDING)))
        return float(self.value[min(index, self.value.size - 1)])

    def cvar(self, share: float = WORST) -> float:
        """Mean of the lowest `share` of the mass; the atom at its edge counts in part."""
        # Mass of each atom within the lowest share: min(F, share) grows by it.
        mass = np.diff(np.minimum(self.cdf, share), prepend=0.0)
        return float(mass @ self.value) / float(mass.sum())

    def mean(self) -> float:
        """`sum_i x_i (F(x_i) - F(x_{i-1}))`."""
        return float(np.diff(self.cdf, prepend=0.0) @ self.value)


def cvar_payload(returns: Array, quantile: Array | float, share: float = WORST) -> Array:
    """`q - (q - G)_+ / share`: its mean is CVaR where q is the quantile (Rockafellar & Uryasev 2000, eq. 4).

    q maximises that mean, so to first order an interval of the mean needs no correction for the error of q.
    """
    return np.asarray(quantile - np.maximum(quantile - returns, 0.0) / share)
