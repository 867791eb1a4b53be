"""Online: a learner on what a simulator gives, to make behaviour policies; never offline.

Learners that take steps of whoever acted have a replay buffer; those that learn on policy have the newest
steps of their own policy alone. The only recipe that meets a simulator. Each refresh runs fresh episodes, so
a stream is a function of `(seed, step)` and resumes bit for bit; an episode that the refresh cuts short
counts as truncated.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream
from mbrl.algorithms.rewards import RewardTransform
from mbrl.core.device import CPU, on_device
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy, StateValueFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, Metrics, OnPolicyBatch, TransitionBatch, concat
from mbrl.data.sources import ModelBuffer, OnPolicySource, RowLayout
from mbrl.envs.specs import TaskSpec
from mbrl.learners.base import BatchKind
from mbrl.nets.random_policy import random_policy
from mbrl.ops.several_steps import sum_steps
from mbrl.rollouts.on_policy import Judgement, judge_steps


class OnlineConfig(RecipeConfig):
    """A learner fed by the simulator.

    Attributes:
        refresh_interval: updates between two runs of the simulator.
        refresh_steps: environment steps of each run; equal to the interval for one update a step. On policy,
            `refresh_interval * batch_size / refresh_steps` is the number of passes over them.
        warmup_steps: uniformly random steps before the first update; none on policy.
        capacity: transitions kept; on policy those of one run.
        reward_transform: `none`: there is no log whose rewards could tell a unit.
    """

    batch_kinds: ClassVar[frozenset[BatchKind]] = frozenset({"transitions", "on_policy"})
    may_sum_steps: ClassVar[bool] = True

    refresh_interval: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    refresh_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 5000
    capacity: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    reward_transform: RewardTransform = "none"

    @property
    def depends_on_length(self) -> bool:
        """The replay buffer has room for what the whole training collects, and no more."""
        return super().depends_on_length or self.learner.config.batch_kind == "transitions"

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
        """A replay buffer of real experience, renewed by the current policy; its newest steps on policy."""
        task = context.task
        if task is None:
            raise ConfigError("The recipe Online trains in a simulator: name a task that has one.")
        if config.learner.config.batch_kind == "on_policy":
            runs = _OwnSteps(task, config, OnPolicySource())
            return Stream(runs.source, refresh=runs, refresh_interval=config.refresh_interval)
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

        learner = self.config.learner.config
        # Simulators want seeds of their own; drawn from the
        # refresh's generator, they are a function of the step.
        rng = _simulator_streams(generator)

        def push(episodes: list[Episode]) -> Metrics:
            return _push(self.buffer, episodes, steps=learner.summed_steps, discount=learner.discount)

        # Random actions first: a fresh policy hardly explores.
        if step == 0 and self.config.warmup_steps > 0:
            random = random_policy(self.task.space)
            push(collect(self.task, random, steps=self.config.warmup_steps, rng=rng.child("warmup")))
        return push(_run(self.task, on_device(policy, CPU), self.config.refresh_steps, rng))


def _simulator_streams(generator: torch.Generator) -> RngStreams:
    """Streams of the host that a refresh's generator fixes."""
    return RngStreams(int(torch.randint(2**62, (), generator=generator, device=generator.device)))


@dataclasses.dataclass(frozen=True, slots=True)
class _OwnSteps:
    """Runs the present policy in the simulator, and takes the advantages of its steps."""

    task: TaskSpec
    config: OnlineConfig
    source: OnPolicySource

    def refresh_with_value(
        self, policy: Policy, value: StateValueFn | None, step: int, generator: torch.Generator
    ) -> Metrics:
        """Renews all steps."""
        del step
        learner: Any = self.config.learner.config
        policy, value = on_device((policy, value), CPU)
        judgement = Judgement.of(policy, value, discount=learner.discount, trace=learner.trace)
        episodes = _run(self.task, policy, self.config.refresh_steps, _simulator_streams(generator))
        steps = concat([_judge_episode(episode, judgement) for episode in episodes])
        self.source.replace(on_device(steps, generator.device))
        return _metrics(episodes)


def _judge_episode(episode: Episode, judgement: Judgement) -> OnPolicyBatch:
    """An episode is one column of steps."""
    batch = _to_batch(episode)
    steps = TransitionBatch(
        batch.observation[:, None],
        batch.action[:, None],
        batch.reward[:, None],
        batch.next_observation[:, None],
        batch.terminated[:, None],
        batch.from_model[:, None],
    )
    valid = torch.ones(len(episode), 1, dtype=torch.bool)
    continues = valid.clone()
    continues[-1] = False
    return judge_steps(steps, judgement, valid=valid, continues=continues)


def _run(task: TaskSpec, policy: Policy, steps: int, rng: RngStreams) -> list[Episode]:
    from mbrl.envs.collect import collect

    # One environment: with several, a short run would be cut in the middle of many episodes instead of one.
    return collect(task, policy, steps=steps, rng=rng, num_envs=1)


def _rows_needed(config: OnlineConfig) -> int:
    # Ceiling division: the last refresh may serve fewer updates.
    refreshes = -(-config.updates // config.refresh_interval)
    return config.warmup_steps + refreshes * config.refresh_steps


def _push(buffer: ModelBuffer, episodes: list[Episode], *, steps: int, discount: float) -> Metrics:
    for episode in episodes:
        # A piece that is too short for a sum of several steps, and did not end, teaches nothing.
        if len(episode) >= steps or episode.terminated:
            index = torch.zeros(len(episode), dtype=torch.int64)
            buffer.push(sum_steps(_to_batch(episode), index, steps=steps, discount=discount))
    return _metrics(episodes)


def _metrics(episodes: list[Episode]) -> Metrics:
    whole = episodes[:-1] or episodes  # the step budget may have cut the last one
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
