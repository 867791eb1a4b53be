"""The stream of every model-based recipe: logged transitions mixed with rollouts of the current policy.

A recipe is a preset of `ModelBasedConfig`, with checks of its own; `build_model_based` wires any learner to
the stream (Janner et al. 2019, arXiv:1906.08253, algorithm 2; penalties: Yu et al. 2020, arXiv:2005.13239).
"""

import dataclasses
import warnings
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.algorithms.base import RecipeConfig, RecipeContext, data_value_bounds, unless_given
from mbrl.algorithms.imagination import (
    PenaltyConfig,
    TerminationSource,
    choose_termination,
    imagine,
    imagined_value_bounds,
    limit_horizon,
    penalised_reward,
    settle_halt_reward,
)
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy, Training
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.report import DynamicsReport
from mbrl.rollouts.generate import Imagination, RolloutConfig, Rollouts, generate_rollouts, rollout_metrics

RealRatio = Annotated[float, Field(ge=0, le=1)]
_LEAST_STEPS_TO_JUDGE = 1000


class ModelBasedConfig(RecipeConfig):
    """A learner on logged transitions and model rollouts; its defaults are guarded by a penalty and a cut.

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
    real_ratio: RealRatio = 0.5
    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    retain: Annotated[int, Field(ge=1, le=1000)] = 5


class UnpenalisedConfig(ModelBasedConfig):
    """Model rollouts without a penalty and without truncation unless asked for; see `ModelBasedConfig`."""

    rollout: Annotated[RolloutConfig, unless_given(truncation_quantile=None)] = RolloutConfig(
        truncation_quantile=None
    )
    penalty: Annotated[PenaltyConfig, unless_given(coef=0.0)] = PenaltyConfig(coef=0.0)

    def refuse_penalty(self, recipe: str) -> None:
        """A recipe that is defined by its lack of a penalty must not be used under its name with one.

        Raises:
            ValueError: there is one.
        """
        if self.penalty.coef > 0:
            raise ValueError(
                f"{recipe} does not penalise imagined rewards, so "
                f"penalty.coef={self.penalty.coef} must be 0; "
                "recipe: model_based combines any learner with any penalty"
            )


def build_model_based(recipe: str, config: ModelBasedConfig, context: RecipeContext) -> Training:
    """A learner on a mixture of the dataset and a ring of imagined transitions.

    Args:
        recipe: its id, for messages.
        config: of the stream and the learner.
        context: data and model.

    Raises:
        ConfigError: data, model, quantiles or start states are missing, or the model cannot be trusted.
    """
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
    rollout = settle_halt_reward(limit_horizon(config.rollout, dynamics), transitions, discount=discount)
    termination = choose_termination(config.termination, context, dynamics)
    imagination = imagine(rollout, config.penalty, dynamics, termination=termination, transitions=transitions)
    imagined = ModelBuffer(rollout.starts * rollout.horizon * config.retain, real.layout)
    return dataclasses.replace(
        training,
        source=MixtureSource([(real, config.real_ratio), (imagined, 1 - config.real_ratio)]),
        refresh=_Refresh(
            starts=_start_states(rollout, context, transitions),
            imagined=imagined,
            imagination=imagination,
            rollout=rollout,
            penalty=config.penalty,
            dynamics=dynamics,
            false_ends=FalseEnds(dynamics.report),
        ),
        value_bounds=imagined_value_bounds(
            transitions,
            imagination,
            rollout=rollout,
            penalty=config.penalty,
            dynamics=dynamics,
            discount=discount,
        ),
    )


def _start_states(
    rollout: RolloutConfig, context: RecipeContext, transitions: TransitionBatch
) -> Float[Tensor, "n obs_dim"]:
    if rollout.start_states == "any":
        return transitions.observation
    episodes = context.episodes
    if episodes is None:
        raise ConfigError(
            "algorithm.rollout.start_states=initial needs to know where the logged episodes start, which is "
            "not noted here. Remedy: use start_states=any."
        )
    return episodes.first_observation


@dataclasses.dataclass(slots=True)
class FalseEnds:
    """Warns once where imagined episodes end more often than logged ones and rewards are negative.

    Attributes:
        report: of the fit; knows the logged rate and the mean logged reward.
        has_warned: it was said.
    """

    report: DynamicsReport
    has_warned: bool = False

    def check(self, rollouts: Rollouts, *, halts: bool) -> None:
        """Compares one refresh with the log; a refresh of less than a thousand steps proves nothing.

        Args:
            rollouts: of the refresh.
            halts: flagged steps are terminated on purpose, and do not count.
        """
        if self.has_warned:
            return
        steps = rollouts.valid & ~rollouts.flagged if halts else rollouts.valid
        total = int(steps.sum())
        if total < _LEAST_STEPS_TO_JUDGE:
            return
        rate = int((rollouts.terminated & steps).sum()) / total
        message = self.report.termination.warn_of_imagined_rate(rate, mean_reward=self.report.reward.mean)
        if message is not None:
            self.has_warned = True
            remedy = "Remedy: set algorithm.termination=task where the task has a known rule, or =never."
            warnings.warn(f"{message} {remedy}", RuntimeWarning, stacklevel=3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Refresh:
    """Renews the imagined data: rollouts of the current policy from logged states, penalised."""

    starts: Float[Tensor, "n obs_dim"]
    imagined: ModelBuffer
    imagination: Imagination
    rollout: RolloutConfig
    penalty: PenaltyConfig
    dynamics: FittedDynamics
    false_ends: FalseEnds

    def __call__(self, policy: Policy, step: int, generator: torch.Generator) -> Metrics:
        device = generator.device
        index = torch.randint(len(self.starts), (self.rollout.starts,), generator=generator, device=device)
        rollouts = generate_rollouts(
            self.imagination, policy, self.starts[index], config=self.rollout, generator=generator
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
        self.false_ends.check(rollouts, halts=self.rollout.flagged == "halt")
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
