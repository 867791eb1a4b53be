"""MOPO and MBPO: a learner on logged transitions mixed with (penalised) model rollouts.

Sources: Yu et al. 2020 (arXiv:2005.13239); Janner et al. 2019 (arXiv:1906.08253) for the rollouts. MBPO
offline is the same stream with a penalty of 0: the edge-of-reach baseline, never a default.

Departures from the paper:
- the penalty is unit-free: the measure divided by its 0.95 quantile on held-out data, times the deviation
  of the logged rewards, so that `penalty.coef` means the same on every robot; `penalty.units: raw` is the
  paper's form;
- the default measure is the disagreement of the elites (`ens_std`), not the largest predicted deviation;
- rollouts stop where the uncertainty passes its 0.99 quantile on the data;
- termination is learned from the logs; a task's known rule is a choice;
- the default learner has five critics with LayerNorm and half of each batch is logged data.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Field
from torch import Tensor

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext, data_value_bounds
from mbrl.algorithms.imagination import (
    PenaltyConfig,
    TerminationSource,
    choose_termination,
    imagine,
    imagined_reward_range,
    limit_horizon,
    penalised_reward,
)
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy, Training
from mbrl.core.types import Metrics
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.ops.targets import value_bounds
from mbrl.rollouts.generate import Imagination, RolloutConfig, Rollouts, generate_rollouts, rollout_metrics


class MOPOConfig(RecipeConfig):
    """Penalised model rollouts.

    Attributes:
        rollout: how imagination runs.
        penalty: how uncertainty lowers imagined rewards.
        termination: who ends imagined episodes: the `learned` head, the known rule of the `task`, or nobody.
        real_ratio: rho, share of logged transitions in a batch; 1 never touches the model.
        refresh_interval: updates between two refreshes of the imagined data.
        retain: refreshes whose rows the buffer can hold.
    """

    rollout: RolloutConfig = RolloutConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    termination: TerminationSource = "learned"
    real_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    retain: Annotated[int, Field(ge=1, le=1000)] = 5


@RECIPES.register("mopo", "Logged data mixed with uncertainty-penalised model rollouts (Yu et al. 2020).")
class MOPO:
    """Wires a learner to logged data and penalised imagination."""

    Config: ClassVar[type[RecipeConfig]] = MOPOConfig
    needs_dynamics: ClassVar[bool] = True
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: MOPOConfig, context: RecipeContext) -> Training:
        """A mixture of the dataset and a ring of imagined transitions."""
        return _build("mopo", config, context)


def _unless_given(**defaults: Any) -> BeforeValidator:
    """Fills what a mapping leaves out, so that setting one key of a section keeps the other defaults."""

    def fill(value: Any) -> Any:
        return {**defaults, **cast("Mapping[str, Any]", value)} if isinstance(value, Mapping) else value

    return BeforeValidator(fill)


class MBPOConfig(MOPOConfig):
    """Model rollouts without a penalty and without truncation unless asked for; see `MOPOConfig`."""

    rollout: Annotated[RolloutConfig, _unless_given(truncation_quantile=None)] = RolloutConfig(
        truncation_quantile=None
    )
    penalty: Annotated[PenaltyConfig, _unless_given(coef=0.0)] = PenaltyConfig(coef=0.0)
    real_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05


@RECIPES.register("mbpo", "MOPO without penalty and truncation: the edge-of-reach baseline (Janner 2019).")
class MBPO:
    """The same stream with other defaults."""

    Config: ClassVar[type[RecipeConfig]] = MBPOConfig
    needs_dynamics: ClassVar[bool] = True
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: MBPOConfig, context: RecipeContext) -> Training:
        """See `MOPO.build`."""
        return _build("mbpo", config, context)


def _build(recipe: str, config: MOPOConfig, context: RecipeContext) -> Training:
    transitions = context.logged(recipe)
    real, discount = DatasetSource(transitions), config.learner.config.discount
    training = Training(
        learner=config.learner.build(context.for_learner(config)),
        source=real,
        refresh_interval=config.refresh_interval,
        batch_size=config.learner.config.batch_size,
        value_bounds=data_value_bounds(transitions, discount),
    )
    if config.real_ratio == 1:
        return training
    dynamics = context.model(recipe)
    rollout = limit_horizon(config.rollout, dynamics)
    termination = choose_termination(config.termination, context, dynamics)
    imagination = imagine(rollout, config.penalty, dynamics, termination=termination, transitions=transitions)
    imagined = ModelBuffer(rollout.starts * rollout.horizon * config.retain, real.layout)
    low, high = imagined_reward_range(
        transitions, imagination, rollout=rollout, penalty=config.penalty, dynamics=dynamics
    )
    return dataclasses.replace(
        training,
        source=MixtureSource([(real, config.real_ratio), (imagined, 1 - config.real_ratio)]),
        refresh=_Refresh(real, imagined, imagination, rollout, config.penalty, dynamics),
        value_bounds=value_bounds(low, high, discount=discount),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Refresh:
    """Renews the imagined data: rollouts of the current policy from logged states, penalised."""

    real: DatasetSource
    imagined: ModelBuffer
    imagination: Imagination
    rollout: RolloutConfig
    penalty: PenaltyConfig
    dynamics: FittedDynamics

    def __call__(self, policy: Policy, step: int, generator: torch.Generator) -> Metrics:
        start = self.real.sample(self.rollout.starts, generator).observation
        rollouts = generate_rollouts(
            self.imagination, policy, start, config=self.rollout, generator=generator
        )
        reward = penalised_reward(
            rollouts, rollout=self.rollout, penalty=self.penalty, dynamics=self.dynamics
        )
        self.imagined.push(rollouts.transitions(reward))
        if len(self.imagined) == 0:
            raise ConfigError(
                f"Nothing was imagined at update {step}: every first step was dropped as too uncertain. "
                "Remedy: set algorithm.rollout.flagged=keep, or raise algorithm.rollout.truncation_quantile."
            )
        return {**rollout_metrics(rollouts), **self._metrics(rollouts, reward)}

    def _metrics(self, rollouts: Rollouts, reward: Float[Tensor, "h b"]) -> dict[str, Tensor]:
        valid = rollouts.valid
        count = valid.sum().clamp_min(1)
        beyond = valid[self.dynamics.report.trusted_horizon :].sum()
        return {
            "rollout/penalty": (rollouts.reward - reward)[valid].double().sum() / count,
            "rollout/beyond_trusted_rate": beyond.double() / count,
            "rollout/age": torch.tensor(self.imagined.mean_age),
        }
