"""What imagination does with the uncertainty of a step: where it cuts, and what it takes off the reward."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.steps import Rollouts
from mbrl.uncertainty.measures import MEASURES, Measure
from mbrl.uncertainty.penalty import CAP, UNIT_QUANTILE, UnitFree, penalise


class PenaltyConfig(BaseModel):
    """How uncertainty lowers imagined rewards: `r - coef * unit * u(s, a)`.

    Attributes:
        measure: id in the registry of uncertainty measures; rollouts are also truncated by it.
        coef: lambda. 1 takes one deviation of the logged rewards from a step as uncertain as the 95th
            percentile of the data.
        units: `unit_free` as above; `raw` uses the measure as it is, without the reward's deviation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str = "ens_std"
    coef: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    units: Literal["unit_free", "raw"] = "unit_free"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyRule:
    """All numbers that stand between an uncertainty and what becomes of a step.

    Attributes:
        measure: what rollouts read; None reads nothing.
        threshold: of the measure, above which a step is flagged; inf flags none.
        coef: lambda.
        reward_scale: c_r, reward units in a unit of the measure: the deviation of the logged rewards of a
            unit-free measure, 1 of a raw one.
        cap: of what is penalised, in the measure's units.
        largest: uncertainty beyond which no policy earns a penalty step after step, in the measure's units.
        reads_density: whether the measure needs the dataset's rows.
    """

    measure: Measure | None = None
    threshold: float = math.inf
    coef: float = 0.0
    reward_scale: float = 1.0
    cap: float = math.inf
    largest: float = 0.0
    reads_density: bool = False

    @classmethod
    def make(
        cls, rollout: RolloutConfig, penalty: PenaltyConfig, dynamics: FittedDynamics
    ) -> "UncertaintyRule":
        """What two sections of a config say, in numbers of a fit.

        Without a penalty and without truncation no uncertainty is computed: each row then goes through one
        elite only.

        Raises:
            ConfigError: the fit stored no quantiles of the measure, or not the one that truncates.
        """
        if penalty.coef == 0 and rollout.truncation_quantile is None:
            return cls()
        quantiles = _quantiles(penalty.measure, dynamics)
        measure: Measure = MEASURES.get(penalty.measure)
        threshold = _quantile(rollout.truncation_quantile, quantiles) / rollout.truncation_divisor
        unit = quantiles[UNIT_QUANTILE]
        reads_density = penalty.measure == "knn"
        if penalty.units == "raw":
            return cls(
                measure=measure,
                threshold=threshold,
                coef=penalty.coef,
                largest=min(threshold, CAP * unit),
                reads_density=reads_density,
            )
        if not math.isinf(threshold):
            # Where the unit is 0 every doubt is beyond the data.
            threshold = threshold / unit if unit > 0 else 0.0
        # A capped uncertainty could never exceed a threshold above the cap, so the measure's cap is raised
        # out of its way; penalties are capped on their own.
        room = CAP if math.isinf(threshold) else max(CAP, 2 * threshold)
        return cls(
            measure=UnitFree(measure, unit, cap=room),
            threshold=threshold,
            coef=penalty.coef,
            reward_scale=dynamics.reward_scale,
            cap=CAP,
            largest=min(threshold, CAP),
            reads_density=reads_density,
        )

    def penalise(self, rollouts: Rollouts, *, halts: bool) -> Float[Tensor, "h b"]:
        """`r - coef * c_r * min(u, cap)` (Yu et al. 2020, eq. 7).

        Args:
            rollouts: imagined steps.
            halts: flagged steps already have the reward of a halt, and pay no penalty besides.

        Returns:
            `[h, b]`, reward units; entries where `valid` is False mean nothing.
        """
        uncertainty = rollouts.uncertainty
        if not math.isinf(self.cap):
            uncertainty = uncertainty.clamp_max(self.cap)
        if halts:
            uncertainty = uncertainty.masked_fill(rollouts.flagged, 0.0)
        return penalise(rollouts.reward, uncertainty, penalty_coef=self.coef, reward_scale=self.reward_scale)

    def largest_penalty(self) -> float:
        """What a step may cost over and over, reward units.

        A step beyond the threshold ends its rollout, so no policy earns more than one such penalty in a row.
        """
        return self.coef * self.largest * self.reward_scale


def _quantiles(measure: str, dynamics: FittedDynamics) -> Mapping[float, float]:
    if measure not in dynamics.thresholds:
        MEASURES.get(measure)  # an unknown name has its own message
        raise ConfigError(
            f"The fit stored no quantiles of the measure {measure!r}, so it cannot be used in "
            "rollouts. Remedy: set algorithm.penalty.measure to one of "
            f"{', '.join(sorted(dynamics.thresholds))}."
        )
    return dynamics.thresholds[measure]


def _quantile(probability: float | None, quantiles: Mapping[float, float]) -> float:
    if probability is None:
        return math.inf
    if probability not in quantiles:
        raise ConfigError(
            f"algorithm.rollout.truncation_quantile={probability} is not among the quantiles that the fit "
            f"stored: {', '.join(str(q) for q in sorted(quantiles))}. Remedy: use one of them, or add it to "
            "dynamics.assessment.truncation_quantiles and fit again."
        )
    return quantiles[probability]
