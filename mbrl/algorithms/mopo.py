"""MOPO and MBPO: a learner on logged transitions mixed with (penalised) model rollouts.

Sources: Yu et al. 2020 (arXiv:2005.13239); Janner et al. 2019 (arXiv:1906.08253) for the rollouts. MBPO offline is
the same stream with a penalty of 0: the edge-of-reach baseline, never a default.

Departures from the paper:
- the penalty is unit-free: the measure divided by its 0.95 quantile on held-out data, times the deviation of the
  logged rewards, so that `penalty.coef` means the same on every robot; `penalty.units: raw` is the paper's form;
- the default measure is the disagreement of the elites (`ens_std`), not the largest predicted deviation;
- rollouts stop where the uncertainty passes its 0.99 quantile on the data;
- termination is learned from the logs; a task's known rule is a choice;
- the default learner has five critics with LayerNorm and half of each batch is logged data.
"""

from typing import ClassVar

import torch
from pydantic import Field

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext, data_value_bounds
from mbrl.algorithms.imagination import (
    PenaltyConfig,
    TerminationSource,
    choose_termination,
    imagine,
    limit_horizon,
)
from mbrl.core.protocols import Policy, Training
from mbrl.core.types import Metrics
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.rollouts.generate import RolloutConfig, generate_rollouts, rollout_metrics
from mbrl.uncertainty.penalty import penalise


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
    real_ratio: float = Field(0.5, ge=0, le=1)
    refresh_interval: int = Field(1000, ge=1)
    retain: int = Field(5, ge=1, le=1000)


@RECIPES.register("mopo", "Logged data mixed with uncertainty-penalised model rollouts (Yu et al. 2020).")
class MOPO:
    """Wires a learner to logged data and penalised imagination."""

    Config: ClassVar[type[RecipeConfig]] = MOPOConfig
    needs_dynamics: ClassVar[bool] = True
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: MOPOConfig, context: RecipeContext) -> Training:
        """A mixture of the dataset and a ring of imagined transitions."""
        transitions, dynamics = context.logged("mopo"), context.model("mopo")
        rollout = limit_horizon(config.rollout, dynamics)
        real = DatasetSource(transitions)
        imagined = ModelBuffer(rollout.starts * rollout.horizon * config.retain, real.layout)
        termination = choose_termination(config.termination, context, dynamics)
        imagination = imagine(
            rollout, config.penalty, dynamics, termination=termination, transitions=transitions
        )
        reward_scale = dynamics.reward_scale if config.penalty.units == "unit_free" else 1.0

        def refresh(policy: Policy, step: int, generator: torch.Generator) -> Metrics:
            del step
            start = real.sample(rollout.starts, generator).observation
            rollouts = generate_rollouts(imagination, policy, start, config=rollout, generator=generator)
            reward = penalise(
                rollouts.reward,
                rollouts.uncertainty,
                penalty_coef=config.penalty.coef,
                reward_scale=reward_scale,
            )
            imagined.push(rollouts.transitions(reward))
            penalty = (rollouts.reward - reward)[rollouts.valid].mean()
            age = torch.tensor(imagined.mean_age)
            return {**rollout_metrics(rollouts), "rollout/penalty": penalty, "rollout/age": age}

        needs_model = config.real_ratio < 1
        return Training(
            learner=config.learner.build(context.for_learner(config)),
            source=MixtureSource([(real, config.real_ratio), (imagined, 1 - config.real_ratio)]),
            refresh=refresh if needs_model else None,
            refresh_interval=config.refresh_interval,
            batch_size=config.learner.config.batch_size,
            value_bounds=data_value_bounds(transitions, config.learner.config.discount),
        )


class MBPOConfig(MOPOConfig):
    """Model rollouts without a penalty and without truncation; see `MOPOConfig`."""

    rollout: RolloutConfig = RolloutConfig(truncation_quantile=None)
    penalty: PenaltyConfig = PenaltyConfig(coef=0.0)
    real_ratio: float = Field(0.05, ge=0, le=1)


@RECIPES.register("mbpo", "MOPO without penalty and truncation: the edge-of-reach baseline (Janner et al. 2019).")
class MBPO(MOPO):
    """The same stream with other defaults."""

    Config: ClassVar[type[RecipeConfig]] = MBPOConfig
