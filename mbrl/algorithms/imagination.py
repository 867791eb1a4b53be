"""What model-based recipes share: from a fitted model and a config to ready-to-run imagination."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.algorithms.base import RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import TransitionBatch
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.termination import NeverTerminates
from mbrl.envs.termination import KnownTermination
from mbrl.ops.targets import value_bounds
from mbrl.rollouts.generate import Box, Imagination, RolloutConfig, Rollouts
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import MEASURES, Measure
from mbrl.uncertainty.penalty import CAP, UNIT_QUANTILE, UnitFree, penalise

TerminationSource: TypeAlias = Literal["learned", "task", "never"]


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


def limit_horizon(rollout: RolloutConfig, dynamics: FittedDynamics) -> RolloutConfig:
    """Shortens the horizon to the model's trusted one, where the config says so.

    Raises:
        ConfigError: not even one step can be trusted.
    """
    trusted = dynamics.report.trusted_horizon
    if not rollout.respect_trusted_horizon or trusted >= rollout.horizon:
        return rollout
    if trusted == 0:
        raise ConfigError(
            "The trusted horizon of the dynamics model is 0: on held-out episodes not even one step is "
            "predicted well. Remedy: use a model-free learner on these data, improve the logs or the fit "
            "(see the report of the fit), or set algorithm.rollout.respect_trusted_horizon=false to go on at "
            "your own risk."
        )
    return rollout.model_copy(update={"horizon": trusted})


def settle_halt_reward(
    rollout: RolloutConfig, transitions: TransitionBatch, *, discount: float
) -> RolloutConfig:
    """Puts a number in the place of an open halt reward: `min(r_min, 0) / (1 - discount)`.

    A halted rollout earns it once and nothing after, so it has to be a value: the least that the logged
    rewards permit, as if the worst of them went on for ever. Halting then never pays, whatever the sign of
    the rewards; an end with reward 0 would be the best there is where rewards are negative.
    """
    if rollout.flagged != "halt" or rollout.halt_reward is not None:
        return rollout
    worst = min(float(transitions.reward.min()), 0.0) / (1 - discount)
    return rollout.model_copy(update={"halt_reward": worst})


def choose_termination(
    source: TerminationSource, context: RecipeContext, dynamics: FittedDynamics
) -> TerminationFn:
    """The learned head, the task's known rule, or none.

    Raises:
        ConfigError: the task declares no rule.
    """
    if source == "learned":
        return dynamics.termination
    if source == "never":
        return NeverTerminates()
    if context.task is None or context.task.termination is None:
        name = "no task is known" if context.task is None else f"the task {context.task.name!r} declares none"
        raise ConfigError(
            f"algorithm.termination=task needs a known termination rule, but {name}. "
            "Remedy: declare one in the task's yaml, or use termination=learned."
        )
    return KnownTermination(context.task.termination)


def imagine(
    rollout: RolloutConfig,
    penalty: PenaltyConfig,
    dynamics: FittedDynamics,
    *,
    termination: TerminationFn,
    transitions: TransitionBatch,
) -> Imagination:
    """Puts together what rollouts need.

    Without a penalty and without truncation no uncertainty is computed: each row then goes through one elite
    only.

    Raises:
        ConfigError: the fit stored no quantiles of the measure, or not the one that truncates.
    """
    box = data_box(transitions) if rollout.clip_to_data else None
    if penalty.coef == 0 and rollout.truncation_quantile is None:
        return Imagination(dynamics.model, termination, box=box)
    if penalty.measure not in dynamics.thresholds:
        MEASURES.get(penalty.measure)  # an unknown name has its own message
        raise ConfigError(
            f"The fit stored no quantiles of the measure {penalty.measure!r}, so it cannot be used in "
            "rollouts. Remedy: set algorithm.penalty.measure to one of "
            f"{', '.join(sorted(dynamics.thresholds))}."
        )
    quantiles = dynamics.thresholds[penalty.measure]
    measure: Measure = MEASURES.get(penalty.measure)
    threshold = _threshold(rollout.truncation_quantile, quantiles) / rollout.truncation_divisor
    if penalty.units == "unit_free":
        measure, threshold = _unit_free(measure, threshold, quantiles[UNIT_QUANTILE])
    reference = None
    if penalty.measure == "knn":
        # Which rows stand for the data is no part of a run's luck.
        rng = RngStreams(0).at("density_reference")
        reference = DensityReference.fit(transitions.observation, transitions.action, generator=rng)
    return Imagination(dynamics.model, termination, measure, threshold, box, reference)


def penalised_reward(
    rollouts: Rollouts, *, rollout: RolloutConfig, penalty: PenaltyConfig, dynamics: FittedDynamics
) -> Float[Tensor, "h b"]:
    """`r - coef * c_r * u`; the reward of a halted step is what the config says, without a penalty.

    Returns:
        `[h, b]`, reward units; entries where `valid` is False mean nothing.
    """
    uncertainty = rollouts.uncertainty
    if penalty.units == "unit_free":
        uncertainty = uncertainty.clamp_max(CAP)
    if rollout.flagged == "halt":
        uncertainty = uncertainty.masked_fill(rollouts.flagged, 0.0)
    return penalise(
        rollouts.reward,
        uncertainty,
        penalty_coef=penalty.coef,
        reward_scale=dynamics.reward_scale if penalty.units == "unit_free" else 1.0,
    )


def imagined_value_bounds(
    transitions: TransitionBatch,
    imagination: Imagination,
    *,
    rollout: RolloutConfig,
    penalty: PenaltyConfig,
    dynamics: FittedDynamics,
    discount: float,
) -> tuple[float, float]:
    """Bounds that the logged rewards put on values, widened by what imagination adds: penalties and halts.

    The largest uncertainty that counts is the truncation threshold: a step beyond it ends its rollout, so no
    policy earns more than one such penalty in a row. A halt reward is earned once, as the last.
    """
    low, high = float(transitions.reward.min()), float(transitions.reward.max())
    if penalty.coef > 0:
        is_unit_free = penalty.units == "unit_free"
        cap = CAP if is_unit_free else CAP * dynamics.thresholds[penalty.measure][UNIT_QUANTILE]
        largest = min(imagination.threshold, cap)
        low -= penalty.coef * largest * (dynamics.reward_scale if is_unit_free else 1.0)
    low, high = value_bounds(low, high, discount=discount)
    if rollout.flagged == "halt" and rollout.halt_reward is not None and math.isfinite(imagination.threshold):
        low, high = min(low, rollout.halt_reward), max(high, rollout.halt_reward)
    return low, high


def data_box(transitions: TransitionBatch) -> Box:
    """Range of the logged observations, successors and rewards."""
    return Box.around(transitions)


def _threshold(quantile: float | None, quantiles: Mapping[float, float]) -> float:
    if quantile is None:
        return math.inf
    if quantile not in quantiles:
        raise ConfigError(
            f"algorithm.rollout.truncation_quantile={quantile} is not among the quantiles that the fit "
            f"stored: {', '.join(str(q) for q in sorted(quantiles))}. Remedy: use one of them, or add it to "
            "dynamics.assessment.truncation_quantiles and fit again."
        )
    return quantiles[quantile]


def _unit_free(measure: Measure, threshold: float, unit: float) -> tuple[Measure, float]:
    """Measure and threshold in units of the measure's 0.95 quantile.

    A capped uncertainty could never exceed a threshold above the cap, so the cap is raised out of its way;
    penalties are capped on their own. Where the unit is 0 every doubt is beyond the data.
    """
    if math.isinf(threshold):
        return UnitFree(measure, unit), math.inf
    threshold = threshold / unit if unit > 0 else 0.0
    return UnitFree(measure, unit, cap=max(CAP, 2 * threshold)), threshold
