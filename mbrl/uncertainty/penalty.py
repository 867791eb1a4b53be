"""From an uncertainty to a penalised reward, without units."""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from mbrl.core.types import DynamicsPosterior
from mbrl.uncertainty.measures import Measure, StepContext

UNIT_QUANTILE = 0.95
"""The quantile over held-out rows that counts as an uncertainty of 1."""

CAP = 10.0
"""Largest unit-free uncertainty: beyond it the model is wrong, and by how much means nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnitFree:
    """A measure in units of what it reads on held-out data, `min(u / q_0.95(u), cap)`; a measure itself.

    Attributes:
        measure: reads a posterior, and perhaps a context.
        quantile: its 0.95 quantile on held-out rows, its own units.
        cap: largest value.
    """

    measure: Measure
    quantile: float
    cap: float = CAP

    def __call__(
        self, posterior: DynamicsPosterior, context: StepContext | None = None
    ) -> Float[Tensor, "b"]:
        """`[b]` in [0, cap]; 1 is as unsure as the 95th percentile of the data."""
        # Measures differ in size by orders of magnitude; in this unit one coefficient serves them all.
        return unit_free(self.measure(posterior, context), self.quantile, cap=self.cap)


def unit_free(uncertainty: Float[Tensor, "*b"], quantile: float, *, cap: float = CAP) -> Float[Tensor, "*b"]:
    """`min(u / quantile, cap)`; 0 where both are 0.

    Args:
        uncertainty: any shape, >= 0, the measure's units.
        quantile: >= 0, the same units.
        cap: largest value.
    """
    if quantile <= 0.0:  # identical members: agreement is 0, and anything else is as far off as can be
        return (uncertainty > 0).to(uncertainty.dtype) * cap
    # Capped: an unbounded penalty of a few steps would be all that critics see.
    return (uncertainty / quantile).clamp_max(cap)


def penalise(
    reward: Float[Tensor, "*b"],
    uncertainty: Float[Tensor, "*b"],
    *,
    penalty_coef: float,
    reward_scale: float = 1.0,
) -> Float[Tensor, "*b"]:
    """Penalised reward `r - penalty_coef * reward_scale * u` (Yu et al. 2020, eq. 7).

    Args:
        reward: any shape, reward units.
        uncertainty: same shape; unit-free, or raw for the paper's form with `reward_scale` 1.
        penalty_coef: lambda, >= 0.
        reward_scale: c_r, deviation of the logged rewards, reward units.
    """
    return reward - penalty_coef * reward_scale * uncertainty
