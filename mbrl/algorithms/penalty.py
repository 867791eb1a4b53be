"""What imagination does with the uncertainty of a step: where it cuts, and what it takes off the reward."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.types import DynamicsPosterior, TransitionBatch
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.steps import Rollouts
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, Measure, StepContext
from mbrl.uncertainty.penalty import CAP, UNIT_QUANTILE, UnitFree, penalise

_ROWS_READ = 1000
"""Logged rows, evenly spaced, on which measures are read whose quantiles are not stored with the fit."""


class PenaltyConfig(BaseModel):
    """How uncertainty lowers imagined rewards: `r - coef * unit * u(s, a)`.

    Attributes:
        measure: id in the registry of uncertainty measures; rollouts are also truncated by it.
        coef: lambda. 1 takes one deviation of the logged rewards from a step as uncertain as the 95th
            percentile of the data.
        units: `unit_free` as above. `raw` is the papers' form: the measure in the units of observations and
            rewards as they are logged, and nothing besides; with `max_aleatoric` the penalty of MOPO. It
            means something else on every robot, and changes with the units of each dimension.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str = "ens_std"
    coef: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    units: Literal["unit_free", "raw"] = "unit_free"


@dataclasses.dataclass(frozen=True, slots=True)
class InRawUnits:
    """A measure of a posterior in the units of observations and rewards; a measure itself.

    Attributes:
        measure: reads a posterior in units of its scales.
    """

    measure: Measure

    def __call__(
        self, posterior: DynamicsPosterior, context: StepContext | None = None
    ) -> Float[Tensor, "b"]:
        """`[b]`, raw units: the measure at scales of 1."""
        raw = dataclasses.replace(
            posterior,
            # Measures divide by these scales: at 1 they read raw units.
            delta_scale=torch.ones_like(posterior.delta_scale),
            reward_scale=torch.ones_like(posterior.reward_scale),
        )
        return self.measure(raw, context)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyRule:
    """All numbers that stand between an uncertainty and what becomes of a step.

    Attributes:
        measure: what penalties read; None reads nothing.
        guard: what the threshold is held against, where that is not `measure`.
        threshold: above which a step is flagged; inf flags none.
        coef: lambda.
        reward_scale: c_r, reward units in a unit of the measure: the deviation of the logged rewards of a
            unit-free measure, 1 of a raw one.
        cap: of what is penalised, in the measure's units.
        largest: uncertainty beyond which no policy earns a penalty step after step, in the measure's units.
        reads_density: whether the measure needs the dataset's rows.
    """

    measure: Measure | None = None
    guard: Measure | None = None
    threshold: float = math.inf
    coef: float = 0.0
    reward_scale: float = 1.0
    cap: float = math.inf
    largest: float = 0.0
    reads_density: bool = False

    @classmethod
    def make(
        cls,
        rollout: RolloutConfig,
        penalty: PenaltyConfig,
        dynamics: FittedDynamics,
        *,
        transitions: TransitionBatch,
    ) -> "UncertaintyRule":
        """What two sections of a config say, in numbers of a fit.

        Without a penalty and without truncation no uncertainty is computed: each row then goes through one
        elite only.

        Args:
            rollout: where steps are cut.
            penalty: which measure, and its price.
            dynamics: the fit, with quantiles of its measures.
            transitions: logged steps, on which a raw measure is read once, and one that the fit did not know.

        Raises:
            ConfigError: the fit stored no quantiles of the measure, or not the one that truncates.
        """
        if penalty.coef == 0 and rollout.truncation_quantile is None:
            return cls()
        quantiles = _quantiles(penalty.measure, rollout, dynamics, transitions)
        threshold = _quantile(rollout.truncation_quantile, quantiles) / rollout.truncation_divisor
        rule = cls(
            measure=MEASURES.get(penalty.measure),
            threshold=threshold,
            coef=penalty.coef,
            # Beyond the threshold a rollout ends, so what can be paid again and again lies below it.
            largest=min(threshold, CAP * quantiles[UNIT_QUANTILE]),
            reads_density=penalty.measure == "knn",
        )
        if penalty.units == "unit_free":
            return rule._unit_free(quantiles[UNIT_QUANTILE], dynamics.reward_scale)
        if penalty.coef == 0 or penalty.measure not in POSTERIOR_MEASURES:
            return rule  # nothing is penalised, or the measure has no other units
        return rule._raw(dynamics, transitions)

    def _unit_free(self, unit: float, reward_scale: float) -> "UncertaintyRule":
        """In units of the measure's 0.95 quantile, priced in deviations of the reward."""
        assert self.measure is not None
        threshold, room = self.threshold, CAP
        if not math.isinf(threshold):
            # Where the unit is 0 any uncertainty is beyond the data.
            threshold = threshold / unit if unit > 0 else 0.0
            # A capped uncertainty could never exceed a threshold above the cap, so the measure's cap is
            # raised out of its way; penalties are capped on their own.
            room = max(CAP, 2 * threshold)
        return dataclasses.replace(
            self,
            measure=UnitFree(self.measure, unit, cap=room),
            threshold=threshold,
            reward_scale=reward_scale,
            cap=CAP,
            largest=min(threshold, CAP),
        )

    def _raw(self, dynamics: FittedDynamics, transitions: TransitionBatch) -> "UncertaintyRule":
        """Penalties in raw units; steps are flagged in the units of the stored quantiles."""
        assert self.measure is not None
        raw = InRawUnits(self.measure)
        step = max(1, len(transitions) // _ROWS_READ)
        with torch.no_grad():
            posterior = dynamics.model.predict(transitions.observation[::step], transitions.action[::step])
            # The same quantile as unit-free measures have, so that the bound on penalties is about as wide.
            unit = float(torch.quantile(raw(posterior).double(), UNIT_QUANTILE))
        # The fit stored quantiles of the measure in its own units:
        # those are what the threshold is held against.
        return dataclasses.replace(self, measure=raw, guard=self.measure, largest=CAP * unit)

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
            # The reward of a halt is the loss already; a penalty besides would count it twice.
            uncertainty = uncertainty.masked_fill(rollouts.flagged, 0.0)
        return penalise(rollouts.reward, uncertainty, penalty_coef=self.coef, reward_scale=self.reward_scale)

    def largest_penalty(self) -> float:
        """What a step may cost over and over, reward units.

        A step beyond the threshold ends its rollout, so no policy earns more than one such penalty in a row.
        """
        return self.coef * self.largest * self.reward_scale


def _quantiles(
    measure: str, rollout: RolloutConfig, dynamics: FittedDynamics, transitions: TransitionBatch
) -> Mapping[float, float]:
    """Those that the fit stored; of a measure that is not this package's, those of logged steps."""
    if measure in dynamics.thresholds:
        return dynamics.thresholds[measure]
    if MEASURES.origin(measure) is None:  # an unknown name has its own message
        raise ConfigError(
            f"The fit stored no quantiles of the measure {measure!r}, so it cannot be used in "
            "rollouts. Remedy: set algorithm.penalty.measure to one of "
            f"{', '.join(sorted(dynamics.thresholds))}."
        )
    step = max(1, len(transitions) // _ROWS_READ)
    obs, action = transitions.observation[::step], transitions.action[::step]
    context = StepContext(obs=obs, action=action, outcome=transitions.next_observation[::step])
    with torch.no_grad():
        # The model was fitted to these rows and is less sure of new ones, so that steps are cut early.
        values = MEASURES.get(measure)(dynamics.model.predict(obs, action), context).double()
    wanted = {UNIT_QUANTILE, rollout.truncation_quantile} - {None}
    return {q: float(torch.quantile(values, q)) for q in wanted if q is not None}


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
