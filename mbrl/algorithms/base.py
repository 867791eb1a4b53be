"""What a recipe is: a config, a learner, and the stream of experience that it learns from."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor

from mbrl.algorithms.rewards import RewardTransform, reward_unit
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import BatchSource, Learner, Refresh, TerminationFn, Training, ValueRefresh
from mbrl.core.registry import Registry
from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.data.merging.mixture import SourceMixture
from mbrl.data.returns import LoggedEpisodes
from mbrl.data.transitions import Transitions
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.envs.specs import TaskSpec
from mbrl.envs.termination import KnownTermination
from mbrl.learners.base import BatchKind, LearnerContext
from mbrl.learners.choice import BATCH_KINDS, BATCH_MAKERS, LearnerField
from mbrl.learners.reward_units import StandardisedRewards
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.targets import value_bounds
from mbrl.preferences.segments import SegmentPairs


def unless_given(**defaults: Any) -> BeforeValidator:
    """Fills what a mapping leaves out: setting one key of a section keeps a recipe's other defaults."""

    def fill(value: Any) -> Any:
        return {**defaults, **cast("Mapping[str, Any]", value)} if isinstance(value, Mapping) else value

    return BeforeValidator(fill)


class RecipeConfig(BaseModel):
    """What all recipes share.

    Attributes:
        learner: the policy-optimisation backend and its hyper-parameters.
        updates: length of the training, in learner updates.
        reward_transform: the unit in which the learner sees rewards. `standardise` takes the deviation of the
            logged rewards, which one outlier cannot move: hyper-parameters then mean the same whatever the
            rewards are measured in. `return_range` takes a thousandth of the range of the episodes' returns,
            `none` the unit of the log. Values are told in the unit of the log in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_learner: ClassVar[Mapping[str, Any]] = {}
    """What the section of the learner holds unless it says otherwise; a recipe without one has it named."""

    only_learners: ClassVar[tuple[str, ...]] = ()
    """The learners that a recipe is defined by, one for each kind of actions; none takes any."""

    may_sum_steps: ClassVar[bool] = False
    """Whether rows may sum up rewards of several steps: streams of logged or played episodes alone."""

    batch_kinds: ClassVar[frozenset[BatchKind]] = frozenset({"transitions"})
    """What batches the recipe can make: learners that read others are refused."""

    learner: LearnerField
    updates: Annotated[int, Field(ge=1, le=1_000_000_000)] = 50_000
    reward_transform: RewardTransform = "standardise"

    @model_validator(mode="before")
    @classmethod
    def _fill_learner(cls, values: Any) -> Any:
        """Setting one key of the default learner keeps the others; another learner gets none of them."""
        if not cls.default_learner or not isinstance(values, Mapping):
            return values
        given = cast("Mapping[str, Any]", values)
        section = given.get("learner", {})
        # A complete choice, or something that the field refuses by itself.
        if not isinstance(section, Mapping) or "config" in section:
            return given
        learner = cast("Mapping[str, Any]", section)
        name = cls.default_learner["name"]
        # Defaults are of one learner: another has no use for its critics and rates.
        if learner.get("name", name) != name:
            return given
        return {**given, "learner": {**cls.default_learner, **learner}}

    @model_validator(mode="after")
    def _check_learner(self) -> "RecipeConfig":
        if self.only_learners and self.learner.name not in self.only_learners:
            raise ValueError(
                f"{self.method()} has the learner {' or '.join(self.only_learners)}, not "
                f"{self.learner.name!r}; recipe: model_based takes any learner"
            )
        steps = self.learner.config.summed_steps
        if steps > 1 and not self.may_sum_steps:
            raise ValueError(
                f"{self.method()} imagines single steps, so the learner cannot sum rewards over {steps}: set "
                "n_steps to 1; the recipes model_free and online have whole episodes"
            )
        kind = self.learner.config.batch_kind
        if kind not in self.batch_kinds:
            raise ValueError(
                f"the learner {self.learner.name} reads {BATCH_KINDS[kind]}, which {self.method()} does not "
                f"make. Remedy: a recipe that does, such as {BATCH_MAKERS[kind]}, or another learner"
            )
        return self

    @property
    def depends_on_length(self) -> bool:
        """Whether an update depends on how many there will be; see `LearnerConfig.depends_on_length`."""
        return self.learner.config.depends_on_length

    @property
    def reads_rewards(self) -> bool:
        """Whether the stream or the learner reads the rewards of the log."""
        return True

    @property
    def start_updates(self) -> int:
        """Updates after which a model-free start of the training's own is over; 0 for no such start."""
        return 0

    @classmethod
    def method(cls) -> str:
        """What the recipe is called in messages."""
        return cls.__name__.removesuffix("Config")


@dataclasses.dataclass(frozen=True, slots=True)
class RecipeContext:
    """What a recipe may use.

    Attributes:
        space: sizes and bounds of the task.
        normaliser: of observations, fitted on the training split.
        transitions: the training split, or None for online recipes.
        dynamics: the fitted model, for recipes with `needs_dynamics`.
        task: the task, where one is known; online recipes need it for its simulator.
        episode: `[n]` int64, index of the episode of each of the transitions; None where nobody noted it.
        whole: the logged episodes that the transitions were taken from; None if they are whole themselves.
        log_termination: the condition under which a step ends the task, where the log carries it.
        expert: demonstrated steps, for recipes that imitate; None where nobody named an expert's log.
        preferences: answered pairs of the log's segments, for learners of preferences.
        known_reward_unit: unit of the rewards of a learner that goes on; None takes the recipe's.
        mixture: the source of each of the transitions, and their shares in the logged rows of a batch; None
            draws all rows alike.
        stored: the training split of a log that stays on disk, for recipes with `reads_stored`; `transitions`
            is None then.
    """

    space: SpaceSpec
    normaliser: Normaliser
    transitions: TransitionBatch | None = None
    dynamics: FittedDynamics | None = None
    task: TaskSpec | None = None
    episode: Tensor | None = None
    whole: LoggedEpisodes | None = None
    log_termination: TerminationFn | None = None
    expert: TransitionBatch | None = None
    preferences: SegmentPairs | None = None
    known_reward_unit: float | None = None
    mixture: SourceMixture | None = None
    stored: Transitions | None = None

    @property
    def known_termination(self) -> TerminationFn | None:
        """The rule that ends the task: its own where it declares one, else the log's; None if unknown."""
        if self.task is not None and self.task.termination is not None:
            return KnownTermination(self.task.termination)
        return self.log_termination

    @property
    def episodes(self) -> LoggedEpisodes | None:
        """The logged episodes, whole even where the transitions are blocks of them; None if not noted."""
        if self.whole is not None or self.episode is None or self.transitions is None:
            return self.whole
        # Rows carry no episodes of their own: they are put together by the index that was noted.
        return LoggedEpisodes.of_rows(self.transitions, self.episode)

    def logged(self, recipe: str) -> TransitionBatch:
        """The training transitions, in memory.

        Args:
            recipe: its name, for the message.

        Raises:
            ConfigError: there are none.
            DataError: they are on disk, and the memory does not suffice.
        """
        if self.transitions is not None:
            return self.transitions
        if self.stored is None:
            raise ConfigError(f"The recipe {recipe} learns from logs: name a dataset.")
        return self.stored.to_batch()

    @property
    def reward(self) -> Tensor | None:
        """`[n]` rewards of the training transitions, wherever these are; None where there are none."""
        if self.stored is not None:
            return torch.tensor(self.stored.reward)
        return None if self.transitions is None else self.transitions.reward

    def model(self, recipe: str) -> FittedDynamics:
        """The fitted dynamics.

        Args:
            recipe: its name, for the message.

        Raises:
            ConfigError: there are none.
        """
        if self.dynamics is None:
            raise ConfigError(f"The recipe {recipe} needs a fitted dynamics model.")
        return self.dynamics

    def demonstrations(self, recipe: str) -> TransitionBatch:
        """The demonstrated steps.

        Args:
            recipe: its name, for the message.

        Raises:
            ConfigError: there are none.
        """
        if self.expert is None:
            raise ConfigError(
                f"The recipe {recipe} imitates: name a log of an expert. Remedy: mbrl train LOG --expert "
                "DATASET, or expert: in the config."
            )
        return self.expert

    def first_observations(self, recipe: str) -> Tensor:
        """States where the logged episodes start, `[e, obs_dim]`, raw units.

        Args:
            recipe: its name, for the message.

        Raises:
            ConfigError: nobody noted which rows belong to which episode.
        """
        if self.episodes is None:
            raise ConfigError(f"The recipe {recipe} needs to know where the logged episodes start.")
        return self.episodes.first_observation

    def reward_unit(self, config: RecipeConfig) -> float:
        """What the learner of `config` has its rewards divided by, reward units; 1 where there is no log.

        Raises:
            ConfigError: the unit needs to know episodes, and nobody noted them.
            DataError: returns have no range to scale by.
        """
        if self.known_reward_unit is not None:
            return self.known_reward_unit
        # A log without rewards has no deviation, and a clone needs none.
        if (reward := self.reward) is None or not config.reads_rewards:
            return 1.0
        return reward_unit(config.reward_transform, reward, self.episodes)

    def for_learner(self, config: RecipeConfig) -> LearnerContext:
        """What the learner of `config` is told."""
        normaliser = self.normaliser
        if not config.learner.config.normalise_observations:
            # The identity instead of none: networks always hold one, and an exported policy is read alike.
            normaliser = Normaliser.identity(self.space.obs_dim)
        return LearnerContext(self.space, normaliser, config.updates)


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """Where a recipe's batches come from.

    Attributes:
        source: what the learner samples.
        refresh: renews the source every `refresh_interval` updates, or None.
        refresh_interval: updates between two refreshes.
        value_bounds: least and largest value that the rewards permit, or None where unknown.
    """

    source: BatchSource
    refresh: Refresh | ValueRefresh | None = None
    refresh_interval: int = 1000
    value_bounds: tuple[float, float] | None = None


class Recipe(abc.ABC):
    """A learner on a stream of experience; a subclass under `@RECIPES.register` is all that a method needs.

    Override `open_stream`, unless a parent has the stream already, and `make_learner` where the learner is
    to be wrapped; never `build`.

    Attributes:
        Config: settings and their defaults; its validators refuse what must not run under the recipe's name.
        needs_dynamics: whether the dynamics are fitted before.
        is_online: whether it trains in a simulator.
        imitates: whether it needs a second log, of an expert.
        weighs_sources: whether it draws logged rows by `RecipeContext.mixture`.
        reads_stored: whether it learns from steps that stay on disk (`RecipeContext.stored`); others have
            them loaded.
    """

    Config: ClassVar[type[RecipeConfig]]
    needs_dynamics: ClassVar[bool] = False
    imitates: ClassVar[bool] = False
    is_online: ClassVar[bool] = False
    weighs_sources: ClassVar[bool] = False
    reads_stored: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def open_stream(cls, config: Any, context: RecipeContext) -> Stream:
        """Where batches come from.

        Args:
            config: a `Config`.
            context: data and model.

        Raises:
            ConfigError: something that the stream needs is missing.
        """

    @classmethod
    def make_learner(cls, config: Any, context: RecipeContext) -> Learner[Any]:
        """The learner that the config names."""
        return config.learner.build(context.for_learner(config))

    @classmethod
    def build(cls, config: Any, context: RecipeContext) -> Training:
        """Wires the learner to its stream, and gives it the unit of its rewards.

        Streams are in units of the log, logged rows and imagined ones alike; the learner alone sees others.
        """
        # Wrapped last, so that penalties and values of a wrapped learner are in its own unit, too.
        stream, learner = cls.open_stream(config, context), cls.make_learner(config, context)
        unit = context.reward_unit(config)
        return Training(
            # At unit 1 there is nothing to scale.
            learner=learner if unit == 1.0 else StandardisedRewards(learner, unit),
            source=stream.source,
            refresh=stream.refresh,
            refresh_interval=stream.refresh_interval,
            batch_size=config.learner.config.batch_size,
            value_bounds=stream.value_bounds,
            reward_unit=unit,
        )


RECIPES: Registry[type[Recipe]] = Registry(
    "recipe",
    "mbrl.algorithms",
    group="mbrl.recipes",
    spelling='mbrl.registry("recipes")',
    needs=("Config", "needs_dynamics", "is_online", "build"),
)


def data_value_bounds(transitions: TransitionBatch, discount: float) -> tuple[float, float]:
    """`reward_value_bounds` of logged transitions."""
    return reward_value_bounds(transitions.reward, discount)


def reward_value_bounds(reward: Float[Tensor, "n"], discount: float) -> tuple[float, float]:
    """Bounds that the logged rewards put on values; outside of them a critic has diverged."""
    # All rewards, outliers as well: a bound has to hold for every value that the log can support.
    return value_bounds(float(reward.min()), float(reward.max()), discount=discount)
