"""A planner by name, as configs write it."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from mbrl.core.errors import ConfigError
from mbrl.planning.base import PLANNERS, Planner, PlannerConfig
from mbrl.planning.problem.problem import Clock, PlanningProblem


class PlannerChoice(BaseModel):
    """A planner by name with its settings; in yaml `{name: mppi, horizon: 5}`.

    Attributes:
        name: id in the planner registry.
        config: that planner's validated settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    config: SerializeAsAny[PlannerConfig]

    @classmethod
    def parse(cls, value: Any) -> Any:
        """A name, a flat mapping, or the dump of a choice, to a choice validated by the planner's class."""
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        fields = dict(cast("Mapping[str, Any]", value))
        if "name" not in fields:
            raise ValueError(f"a planner needs a name, one of: {', '.join(PLANNERS.names())}")
        name = str(fields.pop("name"))
        values: Any = fields["config"] if set(fields) == {"config"} else fields
        if isinstance(values, PlannerConfig):
            return cls(name=name, config=values)
        return cls(name=name, config=_config_class(name).model_validate(values))

    @model_validator(mode="after")
    def _config_is_the_planners(self) -> "PlannerChoice":
        expected = _config_class(self.name)
        if not isinstance(self.config, expected):
            raise ValueError(
                f"the planner {self.name!r} takes a {expected.__name__}, not a {type(self.config).__name__}"
            )
        return self

    def build(self, problem: PlanningProblem, clock: Clock | None = None) -> Planner:
        """Makes the planner."""
        return PLANNERS.get(self.name).build(problem, self.config, clock)

    def tree(self) -> dict[str, Any]:
        """The flat mapping of a yaml."""
        return {"name": self.name, **self.config.model_dump(mode="json")}


def _config_class(name: str) -> type[PlannerConfig]:
    try:
        return PLANNERS.get(name).config
    except ConfigError as error:
        raise ValueError(str(error)) from error


PlannerField: TypeAlias = Annotated[PlannerChoice, BeforeValidator(PlannerChoice.parse)]
