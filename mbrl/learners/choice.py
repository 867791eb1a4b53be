"""A learner by name: what configs hold, and whether it fits a task's actions. No learner by itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Learner
from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LEARNERS, BatchKind, LearnerConfig, LearnerContext


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
        # A dump nests the learner's fields below `config`, yaml writes them beside the name: both are read.
        values: Any = fields["config"] if set(fields) == {"config"} else fields
        return cls(name=name, config=_config_class(name).model_validate(values))

    @model_validator(mode="after")
    def _config_is_the_learners(self) -> "LearnerChoice":
        expected = _config_class(self.name)
        # Checked besides parsing, for choices that are made in Python.
        if not isinstance(self.config, expected):
            raise ValueError(
                f"the learner {self.name!r} takes a {expected.__name__}, not a {type(self.config).__name__}"
            )
        return self

    def check_actions(self, space: SpaceSpec, *, algorithm: str | None = None) -> None:
        """Refuses a learner of choices in a box of actions, and the other way round.

        Args:
            space: of the log or the task.
            algorithm: the same method for such actions, where the caller knows one.

        Raises:
            ConfigError: naming the counterpart.
        """
        if self.config.acts_on_choices != space.is_discrete:
            raise ConfigError(_wrong_actions(self.name, space, algorithm))

    def build(self, context: LearnerContext) -> Learner[Any]:
        """Makes the learner.

        Raises:
            ConfigError: it does not act in the space of the task.
        """
        self.check_actions(context.space)
        return LEARNERS.get(self.name)(self.config, context)


DISCRETE_PREFIX: Final = "discrete_"
"""Of the names of learners and algorithms over choices that have a form over boxes of actions."""


def counterpart_name(name: str, space: SpaceSpec) -> str:
    """What the form of a method for the actions of `space` is called, whether there is one or not."""
    plain = name.removeprefix(DISCRETE_PREFIX)
    return f"{DISCRETE_PREFIX}{plain}" if space.is_discrete else plain


def _wrong_actions(learner: str, space: SpaceSpec, algorithm: str | None) -> str:
    if space.choices is not None:
        shown = ", ".join(space.choices[:4]) + (", ..." if len(space.choices) > 4 else "")
        what = f"acts in a box, and the actions here are {space.act_dim} choices ({shown})"
    else:
        what = f"acts over choices, and an action here is {space.act_dim} continuous numbers"
    if algorithm is not None:
        return f"The learner {learner!r} {what}. Remedy: take the algorithm {algorithm!r}."
    fitting = [n for n in LEARNERS.names() if LEARNERS.get(n).Config.acts_on_choices == space.is_discrete]
    return f"The learner {learner!r} {what}. Remedy: take one of {', '.join(fitting)}."


def _config_class(name: str) -> type[LearnerConfig]:
    try:
        return LEARNERS.get(name).Config
    # pydantic collects ValueErrors with their place in the config; any other would pass through it.
    except ConfigError as error:
        raise ValueError(str(error)) from error


LearnerField = Annotated[LearnerChoice, BeforeValidator(LearnerChoice.parse)]


BATCH_KINDS: Final[Mapping[BatchKind, str]] = {
    "transitions": "steps of whoever acted",
    "on_policy": "steps of its own policy alone",
    "demonstrations": "steps of an expert beside those of a log",
    "preferences": "answers about pairs of segments",
}
"""What a learner reads, in words."""
BATCH_MAKERS: Final[Mapping[BatchKind, str]] = {
    "transitions": "model_free",
    "on_policy": "mopo_ppo",
    "demonstrations": "demonstrations",
    "preferences": "preferences",
}
"""Recipes that make them."""
