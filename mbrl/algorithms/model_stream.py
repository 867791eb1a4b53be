"""The stream of every model-based recipe: logged transitions mixed with rollouts of the current policy.

A recipe is a preset of `ModelBasedConfig` with checks of its own, under `ModelBasedRecipe`.
"""

import dataclasses
import warnings
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.algorithms.base import Recipe, RecipeConfig, RecipeContext, Stream, data_value_bounds, unless_given
from mbrl.algorithms.imagination import (
    TerminationSource,
    choose_termination,
    imagine,
    imagined_value_bounds,
    limit_horizon,
    settle_halt_reward,
)
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.data.sources import DatasetSource, LoggedFirst, MixtureSource, ModelBuffer
from mbrl.dynamics.report import DynamicsReport
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination, generate_rollouts
from mbrl.rollouts.steps import Rollouts, rollout_metrics

RealRatio = Annotated[float, Field(ge=0, le=1)]
_LEAST_STEPS_TO_JUDGE = 1000


class ModelBasedConfig(RecipeConfig):
    """A learner on logged transitions and model rollouts; its defaults are guarded by a penalty and a cut.

    Attributes:
        rollout: how imagination runs.
        penalty: how uncertainty lowers imagined rewards.
        termination: who ends imagined episodes: the `learned` head, the known rule of the `task` (or of the
            log), or nobody; `auto` takes the rule where there is one.
        real_ratio: rho, share of logged transitions in a batch; 1 never touches the model.
        logged_updates: first updates, which see logged rows alone, before anything is imagined: a model-free
            start of the training's own, for learners that hold to the log; a multiple of `refresh_interval`.
            The policy at its end may be the result.
        refresh_interval: updates between two refreshes of the imagined data.
        retain: refreshes whose rows the buffer can hold.
    """

    may_penalise: ClassVar[bool] = True
    """Whether a recipe's name permits penalties of imagined rewards."""

    may_start_logged: ClassVar[bool] = True
    """Whether updates are possible whose batches hold no imagined row."""

    rollout: RolloutConfig = RolloutConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    termination: TerminationSource = "auto"
    real_ratio: RealRatio = 0.5
    logged_updates: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    retain: Annotated[int, Field(ge=1, le=1000)] = 5

    @model_validator(mode="after")
    def _check_penalty(self) -> "ModelBasedConfig":
        # Results under a method's name must be those of the method.
        if self.penalty.coef > 0 and not self.may_penalise:
            raise ValueError(
                f"{self.method()} does not penalise imagined rewards, so penalty.coef={self.penalty.coef} "
                "must be 0; recipe: model_based combines any learner with any penalty"
            )
        return self

    @model_validator(mode="after")
    def _check_start(self) -> "ModelBasedConfig":
        updates, interval = self.logged_updates, self.refresh_interval
        if updates > 0 and not self.may_start_logged:
            raise ValueError(
                f"{self.method()} needs imagined rows in every update, so logged_updates must be 0; a start "
                "from another training is warm_start"
            )
        if updates % interval or (updates > 0 and updates >= self.updates):
            raise ValueError(
                f"logged_updates={updates} must be less than updates={self.updates} and a multiple of "
                f"refresh_interval={interval}, at which imagination begins"
            )
        return self

    @property
    def start_updates(self) -> int:
        """Those on logged rows alone."""
        return self.logged_updates


class UnpenalisedConfig(ModelBasedConfig):
    """Model rollouts without a penalty and without truncation unless asked for; see `ModelBasedConfig`."""

    rollout: Annotated[RolloutConfig, unless_given(truncation_quantile=None)] = RolloutConfig(
        truncation_quantile=None
    )
    penalty: Annotated[PenaltyConfig, unless_given(coef=0.0)] = PenaltyConfig(coef=0.0)


class ModelBasedRecipe(Recipe):
    """A learner on a mixture of the dataset and a ring of imagined transitions.

    The stream of MBPO (Janner et al. 2019, algorithm 2) with the penalties of MOPO (Yu et al. 2020,
    algorithm 2). A method is a `Config` with defaults of its own, and what that refuses.
    """

    Config: ClassVar[type[RecipeConfig]] = ModelBasedConfig
    needs_dynamics: ClassVar[bool] = True
    weighs_sources: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: Any, context: RecipeContext) -> Stream:
        """Logged rows, and what the policy of each refresh imagines.

        Raises:
            ConfigError: data, model, quantiles or start states are missing, or the model cannot be trusted.
        """
        assert isinstance(config, ModelBasedConfig)
        transitions = context.logged(cls.__name__)
        real = DatasetSource(transitions, context.mixture)
        discount = config.learner.config.discount
        # No imagination, so no model has to be trusted or even fitted well.
        if config.real_ratio == 1:
            bounds = data_value_bounds(transitions, discount)
            return Stream(real, refresh_interval=config.refresh_interval, value_bounds=bounds)
        dynamics = context.model(cls.__name__)
        # The horizon and the halt reward are settled before
        # anything depends on them: buffer, rule and bounds.
        rollout = settle_halt_reward(limit_horizon(config.rollout, dynamics), transitions, discount=discount)
        rule = UncertaintyRule.make(rollout, config.penalty, dynamics, transitions=transitions)
        termination = choose_termination(config.termination, context, dynamics)
        # The most rows that `retain` refreshes can make; a ring, so that old policies' rows leave first.
        imagined = ModelBuffer(rollout.starts * rollout.horizon * config.retain, real.layout)
        refresh = _Refresh(
            starts=start_states(rollout, context, transitions),
            imagined=imagined,
            imagination=imagine(rollout, rule, dynamics, termination=termination, transitions=transitions),
            rollout=rollout,
            rule=rule,
            report=dynamics.report,
            false_ends=FalseEnds(dynamics.report),
            first=config.logged_updates,
        )
        mixture = MixtureSource([(real, config.real_ratio), (imagined, 1 - config.real_ratio)])
        return Stream(
            LoggedFirst(real, imagined, mixture) if config.logged_updates > 0 else mixture,
            refresh=refresh,
            refresh_interval=config.refresh_interval,
            value_bounds=imagined_value_bounds(transitions, rule, rollout=rollout, discount=discount),
        )


def start_states(
    rollout: RolloutConfig, context: RecipeContext, transitions: TransitionBatch
) -> Float[Tensor, "n obs_dim"]:
    """Logged states from which rollouts start.

    Raises:
        ConfigError: first ones are asked for, and nobody noted where episodes start.
    """
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
        reward = self.report.reward
        # 0 warns of nothing: only negative rewards make an early end attractive.
        mean = 0.0 if reward is None else reward.mean
        message = self.report.termination.warn_of_imagined_rate(rate, mean_reward=mean)
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
    rule: UncertaintyRule
    report: DynamicsReport
    false_ends: FalseEnds
    first: int

    def __call__(self, policy: Policy, step: int, generator: torch.Generator) -> Metrics:
        if step < self.first:
            return {}
        # s_0 uniform over the start states.
        device, halts = generator.device, self.rollout.flagged == "halt"
        index = torch.randint(len(self.starts), (self.rollout.starts,), generator=generator, device=device)
        # h steps of the current policy in the model.
        rollouts = generate_rollouts(
            self.imagination, policy, self.starts[index], config=self.rollout, generator=generator
        )
        # r - lambda c_r u, into the ring; rows of the oldest refresh leave it.
        reward = self.rule.penalise(rollouts, halts=halts)
        self.imagined.push(rollouts.transitions(reward))
        # A mixture with an empty source cannot be drawn from; say why it is empty instead.
        if len(self.imagined) == 0:
            raise ConfigError(
                f"Nothing was imagined at update {step}: every first step was dropped as too uncertain. "
                "Remedy: set algorithm.rollout.flagged=keep, or raise algorithm.rollout.truncation_quantile."
            )
        self.false_ends.check(rollouts, halts=halts)
        return {**rollout_metrics(rollouts), **self._metrics(rollouts, reward)}

    def _metrics(self, rollouts: Rollouts, reward: Float[Tensor, "h b"]) -> dict[str, Tensor]:
        valid = rollouts.valid
        count = valid.sum().clamp_min(1)
        # Steps of index h and more come after h trusted ones.
        beyond = valid[self.report.trusted_horizon :].sum()
        return {
            "rollout/penalty": (rollouts.reward - reward)[valid].double().sum() / count,
            "rollout/beyond_trusted_rate": beyond.double() / count,
            "rollout/age": torch.tensor(self.imagined.mean_age),
        }
