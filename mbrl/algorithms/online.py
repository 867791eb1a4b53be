"""Online: a learner on a replay buffer that a simulator fills, to make behaviour policies; never offline.

The only recipe that meets a simulator. Each refresh runs fresh episodes, so a stream is a function of
`(seed, step)` and resumes bit for bit; an episode that the refresh cuts short counts as truncated.
"""

import dataclasses
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream
from mbrl.algorithms.rewards import RewardTransform
from mbrl.core.device import CPU, on_device
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, Metrics, TransitionBatch
from mbrl.data.sources import ModelBuffer, RowLayout
from mbrl.envs.specs import TaskSpec
from mbrl.nets.random_policy import RandomPolicy


class OnlineConfig(RecipeConfig):
    """A learner fed by the simulator.

    Attributes:
        refresh_interval: updates between two runs of the simulator.
        refresh_steps: environment steps of each run; equal to the interval for one update a step.
        warmup_steps: uniformly random steps before the first update.
        capacity: transitions kept.
        reward_transform: `none`: there is no log whose rewards could tell a unit.
    """

    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    refresh_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 5000
    capacity: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    reward_transform: RewardTransform = "none"

    @property
    def depends_on_length(self) -> bool:
        """The replay buffer has room for what the whole training collects, and no more."""
        return True

    @model_validator(mode="after")
    def _has_no_data_to_standardise_by(self) -> "OnlineConfig":
        if self.learner.config.normalise_observations:
            raise ValueError(
                "learner.normalise_observations has no effect online: there are no logs to take statistics "
                "of. Set it to false"
            )
        if self.reward_transform != "none":
            raise ValueError("reward_transform has no logs to take a unit of online: set it to none")
        return self


@RECIPES.register("online", "A learner in the simulator, to make behaviour policies; not offline.")
class Online(Recipe):
    """Any learner in a simulator."""

    Config = OnlineConfig
    is_online: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: OnlineConfig, context: RecipeContext) -> Stream:
        """A replay buffer of real experience, renewed by the current policy."""
        task = context.task
        if task is None:
            raise ConfigError("The recipe Online trains in a simulator: name a task that has one.")
        layout = RowLayout(context.space.obs_dim, context.space.act_dim)
        # No larger than what will ever be collected: memory is reserved at once.
        buffer = ModelBuffer(min(config.capacity, _rows_needed(config)), layout, from_model=False)

        refresh = _Collect(config, task, buffer)
        return Stream(buffer, refresh=refresh, refresh_interval=config.refresh_interval)


@dataclasses.dataclass(frozen=True, slots=True)
class _Collect:
    """Fresh episodes of the present policy, which a simulator sees on the host."""

    config: OnlineConfig
    task: TaskSpec
    buffer: ModelBuffer

    def __call__(self, policy: Policy, step: int, generator: torch.Generator) -> Metrics:
        from mbrl.envs.collect import collect  # only this recipe meets a simulator

        # Simulators want seeds of their own; drawn from the
        # refresh's generator, they are a function of the step.
        rng = RngStreams(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        # Random actions first: a fresh policy hardly explores.
        if step == 0 and self.config.warmup_steps > 0:
            random = RandomPolicy(self.task.space)
            warmup = collect(self.task, random, steps=self.config.warmup_steps, rng=rng.child("warmup"))
            _push(self.buffer, warmup)
        episodes = _run(self.task, on_device(policy, CPU), self.config.refresh_steps, rng)
        return _push(self.buffer, episodes)


def _run(task: TaskSpec, policy: Policy, steps: int, rng: RngStreams) -> list[Episode]:
    from mbrl.envs.collect import collect

    # One environment: with several, a short run would be cut in the middle of many episodes instead of one.
    return collect(task, policy, steps=steps, rng=rng, num_envs=1)


def _rows_needed(config: OnlineConfig) -> int:
    # Ceiling division: the last refresh may serve fewer updates.
    refreshes = -(-config.updates // config.refresh_interval)
    return config.warmup_steps + refreshes * config.refresh_steps


def _push(buffer: ModelBuffer, episodes: list[Episode]) -> Metrics:
    whole = episodes[:-1] or episodes  # the step budget may have cut the last one
    for episode in episodes:
        buffer.push(_to_batch(episode))
    returns = torch.tensor([episode.episode_return for episode in whole])
    return {"online/episode_return": returns.mean(), "online/episodes": torch.tensor(float(len(episodes)))}


def _to_batch(episode: Episode) -> TransitionBatch:
    observations = torch.tensor(episode.observations)
    terminated = torch.zeros(len(episode), dtype=torch.bool)
    # Only the last step can end the task; a truncation leaves
    # the flag False, so that targets bootstrap there.
    terminated[-1] = episode.terminated
    return TransitionBatch(
        observation=observations[:-1],
        action=torch.tensor(episode.actions),
        reward=torch.tensor(episode.rewards),
        next_observation=observations[1:],
        terminated=terminated,
        from_model=torch.zeros_like(terminated),
    )
