"""What every recipe supplies: a config and a `build` that wires a learner to a stream of experience."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Learner, Training
from mbrl.core.registry import Registry
from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.data.returns import LoggedEpisodes
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.envs.specs import TaskSpec
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.targets import value_bounds


class LearnerChoice(BaseModel):
    """A learner by name with its hyper-parameters; in yaml `{name: sac, critics: 5}`.

    Attributes:
        name: id in the learner registry.
        config: that learner's validated config.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    config: SerializeAsAny[LearnerConfig]

    @classmethod
    def parse(cls, value: Any) -> Any:
        """Flat yaml mapping, or the dump of a choice, to a choice validated by the named learner's class."""
        if not isinstance(value, Mapping):
            return value
        fields = dict(cast("Mapping[str, Any]", value))
        if "name" not in fields:
            raise ValueError(f"a learner needs a name, one of: {', '.join(LEARNERS.names())}")
        name = str(fields.pop("name"))
        values: Any = fields["config"] if set(fields) == {"config"} else fields
        return cls(name=name, config=_config_class(name).model_validate(values))

    @model_validator(mode="after")
    def _config_is_the_learners(self) -> "LearnerChoice":
        expected = _config_class(self.name)
        if not isinstance(self.config, expected):
            raise ValueError(
                f"the learner {self.name!r} takes a {expected.__name__}, not a {type(self.config).__name__}"
            )
        return self

    def build(self, context: LearnerContext) -> Learner[Any]:
        """Makes the learner."""
        return LEARNERS.get(self.name)(self.config, context)


def _config_class(name: str) -> type[LearnerConfig]:
    try:
        return LEARNERS.get(name).Config
    except ConfigError as error:
        raise ValueError(str(error)) from error


LearnerField = Annotated[LearnerChoice, BeforeValidator(LearnerChoice.parse)]


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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    learner: LearnerField
    updates: Annotated[int, Field(ge=1, le=1_000_000_000)] = 50_000


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
    """

    space: SpaceSpec
    normaliser: Normaliser
    transitions: TransitionBatch | None = None
    dynamics: FittedDynamics | None = None
    task: TaskSpec | None = None
    episode: Tensor | None = None
    whole: LoggedEpisodes | None = None

    @property
    def episodes(self) -> LoggedEpisodes | None:
        """The logged episodes, whole even where the transitions are blocks of them; None if not noted."""
        if self.whole is not None or self.episode is None or self.transitions is None:
            return self.whole
        return LoggedEpisodes.of_rows(self.transitions, self.episode)

    def logged(self, recipe: str) -> TransitionBatch:
        """The training transitions.

        Raises:
            ConfigError: there are none.
        """
        if self.transitions is None:
            raise ConfigError(f"The recipe {recipe!r} learns from logs: name a dataset.")
        return self.transitions

    def model(self, recipe: str) -> FittedDynamics:
        """The fitted dynamics.

        Raises:
            ConfigError: there are none.
        """
        if self.dynamics is None:
            raise ConfigError(f"The recipe {recipe!r} needs a fitted dynamics model.")
        return self.dynamics

    def for_learner(self, config: RecipeConfig) -> LearnerContext:
        """What the learner of `config` is told."""
        normaliser = self.normaliser
        if not config.learner.config.normalise_observations:
            normaliser = Normaliser.identity(self.space.obs_dim)
        return LearnerContext(self.space, normaliser, config.updates)


class Recipe(Protocol):
    """A registered recipe."""

    Config: ClassVar[type[RecipeConfig]]
    needs_dynamics: ClassVar[bool]
    is_online: ClassVar[bool]

    @staticmethod
    def build(config: Any, context: RecipeContext) -> Training:
        """Wires the learner to its stream."""
        ...


RECIPES: Registry[type[Recipe]] = Registry("recipe", "mbrl.algorithms")


def data_value_bounds(transitions: TransitionBatch, discount: float) -> tuple[float, float]:
    """Bounds that the logged rewards put on values; outside of them a critic has diverged."""
    reward = transitions.reward
    return value_bounds(float(reward.min()), float(reward.max()), discount=discount)
