"""What `mbrl auto` tries, and the rule by which it takes one: all of it fixed before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.data.options import LoadOptions
from mbrl.off_policy.value.judge_config import JudgesConfig
from mbrl.run.config import find_part
from mbrl.run.documents import Override, Tree, read_overrides, read_yaml, set_at
from mbrl.run.judge.rule import SelectRule
from mbrl.run.validation import validate
from mbrl.study.config import Label, Part, StudyConfig, StudySource, open_parts

DEFAULT: Final = "default"
"""Of `configs/auto`, for boxes of actions."""

DISCRETE: Final = "discrete"
"""Of `configs/auto`, for choices."""

LOG: Final = "log"
"""Label of the one dataset."""

Share = Annotated[float, Field(gt=0, lt=1)]


class AutoConfig(BaseModel):
    """A portfolio and a rule.

    Attributes:
        description: one line for people.
        dataset_options: what a load may repair.
        task: name of a shipped task or path of a task's yaml; null takes the one that the log names.
        dynamics: the ensemble of all fits, judges included.
        algorithms: candidates by label, the simplest first: among equals the first is taken.
        weights: of the time of a candidate's training; 1 where nothing is said.
        judges: ensembles that train no policy, and how they are asked; at least two, so that one can object.
        kept: policies along each training among which judges choose; fewer where judging them takes too long.
        fit_share: most of the time that model fits may take.
        estimate_share: of the time, for off-policy estimates of the pick.
        least_updates: of a training that is worth starting.
        tie_errors: standard errors of a paired difference within which a simpler candidate is as good.
        seed: of every random stream.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    dataset_options: LoadOptions = LoadOptions()
    task: str | None = None
    dynamics: Part = Field(default_factory=dict[str, Any])
    algorithms: Annotated[dict[Label, Part], Field(min_length=1, max_length=100)]
    weights: dict[Label, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict[str, float])
    judges: JudgesConfig = JudgesConfig()
    kept: Annotated[int, Field(ge=1, le=1000)] = 20
    fit_share: Share = 0.4
    estimate_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    least_updates: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    tie_errors: Annotated[float, Field(ge=0, le=10)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _is_sound(self) -> "AutoConfig":
        unknown = sorted(self.weights.keys() - self.algorithms.keys())
        if unknown:
            raise ValueError(f"weights.{unknown[0]} is no candidate; there are {', '.join(self.algorithms)}")
        if self.judges.count < 2:
            raise ValueError("judges.count must be 2 or more: the pick is taken only where judges agree")
        if self.fit_share + self.estimate_share >= 1:
            raise ValueError("fit_share and estimate_share leave no time for trainings")
        return self

    def weight(self, label: str) -> float:
        """Of a candidate's time."""
        return self.weights.get(label, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class AutoSource:
    """A validated config and where it was read.

    Attributes:
        name: of the file, without suffix.
        config: the values.
        where: the file, for messages and origins.
    """

    name: str
    config: AutoConfig
    where: str

    def study(
        self,
        source: str,
        *,
        fit_updates: int | None = None,
        judge_updates: int | None = None,
        updates: Mapping[str, int] | None = None,
        kept: int | None = None,
    ) -> StudySource:
        """The comparison on the one log whose trainings are the candidates.

        Args:
            source: of the log.
            fit_updates: most of the model's fit; None for what the config says.
            judge_updates: most of the fit of every judge; None likewise.
            updates: of each candidate's training, by label; None for all of them with those of their config.
            kept: policies along each training; None for what the config says.

        Raises:
            ConfigError: a section of an algorithm or of the dynamics cannot be used.
        """
        config = self.config
        labels = list(config.algorithms if updates is None else updates)
        dynamics, judges = dict(config.dynamics), config.judges
        if fit_updates is not None:
            dynamics["max_updates"] = fit_updates
        if judge_updates is not None:
            judges = judges.model_copy(update={"max_updates": judge_updates})
        algorithms = {
            label: {**config.algorithms[label], **({} if updates is None else {"updates": updates[label]})}
            for label in labels
        }
        study = StudyConfig(
            description=config.description,
            datasets={LOG: source},  # pyright: ignore[reportArgumentType] - a bare name stands for a choice
            dataset_options=config.dataset_options,
            task=config.task,
            dynamics=dynamics,
            algorithms=algorithms,
            seeds=(config.seed,),
            judges=judges,
            select=SelectRule(rule="judge", kept=kept or config.kept),
        )
        return StudySource(self.name, study, self.where, rule="judge")


def load_options(overrides: Sequence[Override] = ()) -> LoadOptions:
    """How the log is opened whose actions say which shipped portfolio it gets.

    Raises:
        ConfigError: an option is unknown, or out of range.
    """
    tree: Tree = {}
    for keys, value in read_overrides(overrides):
        set_at(tree, keys, value)
    return validate(LoadOptions, tree.get("dataset_options", {}), where="dataset_options")


def load_auto(name: str = DEFAULT, *, overrides: Sequence[Override] = ()) -> AutoSource:
    """Reads and validates a portfolio, with the config of each of its candidates.

    Args:
        name: in `configs/auto`, or path of a yaml.
        overrides: `dotted.key=value`, in order.

    Raises:
        ConfigError: an unknown key or name, or a value that is out of range.
    """
    path = find_part("auto", name)
    tree: Tree = read_yaml(path)
    open_parts(tree)
    for keys, value in read_overrides(overrides):
        set_at(tree, keys, value)
    source = AutoSource(path.stem, validate(AutoConfig, tree, where=f"Portfolio {path}"), str(path))
    study = source.study("log")
    for label in study.config.algorithms:
        study.resolve(label, seed=source.config.seed)
    return source
