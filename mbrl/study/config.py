"""A comparison as its yaml tells it: datasets x algorithms x seeds, and the config of every run in it."""

import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.names import suggest
from mbrl.data.options import LoadOptions
from mbrl.envs.specs import refuse_import
from mbrl.off_policy.value.judge_config import JudgesConfig
from mbrl.run.config import DeviceName, EvaluationConfig, ResolvedConfig, find_part, is_comparison, resolve
from mbrl.run.documents import (
    KeyPath,
    Override,
    Tree,
    as_tree,
    leaf_paths,
    read_overrides,
    read_yaml,
    set_at,
)
from mbrl.run.judge.rule import RuleName, Select, SelectRule
from mbrl.run.plan.config import PlanConfig, parse_plan_config
from mbrl.run.validation import validate

_LABEL_RULE: Final = r"^[A-Za-z0-9][A-Za-z0-9_+-]{0,39}$"
PLANNER_KEY: Final = "planner"
"""Key of an algorithm whose value is the name of a file in `configs/planners`, or a planner's section."""

_PLACEHOLDER: Final = "to-be-collected"
_SHARED_KEYS: Final = {
    "dataset_options",
    "task",
    "judges",
    "device",
    "log_interval",
    "checkpoint_interval",
    "on_divergence",
}
"""What a comparison hands on to its runs as it is; defaults are those of a run's config."""

Label: TypeAlias = Annotated[str, StringConstraints(pattern=_LABEL_RULE)]


def _named(key: str) -> BeforeValidator:
    """Lets a bare name stand for the mapping `{key: name}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Part: TypeAlias = Annotated[dict[str, Any], _named("file")]
"""Name of a file in `configs/`, `{file: name, further keys}` to change values of it, or a whole section.

The `grid` of an algorithm holds lists of values by dotted key; it is trained once for each combination.
"""


class DatasetChoice(BaseModel):
    """A dataset of a comparison: one that exists, or one that is collected first.

    Attributes:
        source: path, `minari:<id>` or name of a bundled dataset; a bare text in the yaml means this.
        collect: dataset recipe as in `mbrl collect`, such as `pendulum/random`.
        steps: of the collection, in all; null takes what the recipe says.
        seed: of the collection; the same for all seeds of the comparison.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None
    collect: str | None = None
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "DatasetChoice":
        if (self.source is None) == (self.collect is None):
            raise ValueError("a dataset has either source or collect")
        if self.source is not None and (self.steps is not None or self.seed):
            raise ValueError("steps and seed belong to collect")
        return self


DatasetEntry: TypeAlias = Annotated[DatasetChoice, _named("source")]
"""A choice, or the bare name of a dataset that exists."""


class StudyConfig(BaseModel):
    """What is compared with what.

    Attributes:
        description: one line for people.
        datasets: by label.
        dataset_options: what a load may repair.
        task: name of a shipped task or path of a task's yaml; null takes the one that each dataset names.
        dynamics: the ensemble, fitted once for each dataset and seed and shared by all who need it.
        algorithms: by label; one with a `planner` is judged by planning on top of its training.
        seeds: of every random stream of a run, its model's included.
        judges: ensembles that train no policy, shared by all runs on a dataset.
        select: which policy is reported, by the same rule for every algorithm; a bare name stands for its
            rule. Under `judge` each training gives its best judged policy, model-free ones too, and the last
            one is evaluated beside it; null is `judge` where an algorithm needs a model, else `last`. Of the
            trainings in an algorithm's grid the rule picks one; `fqe` picks among these alone. No rule may
            look at online scores.
        evaluation: the judgement, on common starts.
        device: where runs compute; those side by side share a card.
        log_interval: updates between two rows of metrics.
        checkpoint_interval: updates between two checkpoints.
        on_divergence: whether values beyond what the rewards permit only `warn`, or `stop` the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    datasets: Annotated[dict[Label, DatasetEntry], Field(min_length=1, max_length=1000)]
    dataset_options: LoadOptions = LoadOptions()
    task: str | None = None
    dynamics: Part = Field(default_factory=dict[str, Any])
    algorithms: Annotated[dict[Label, Part], Field(min_length=1, max_length=1000)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1, max_length=1000)]
    judges: JudgesConfig = JudgesConfig()
    select: Select = SelectRule()
    evaluation: EvaluationConfig = EvaluationConfig(episodes=20)
    device: DeviceName = "cpu"
    log_interval: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    checkpoint_interval: Annotated[int, Field(ge=1, le=100_000_000)] = 5000
    on_divergence: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _seeds_differ(self) -> "StudyConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class StudySource:
    """A validated comparison and where it was read.

    Attributes:
        name: of the file, without suffix.
        config: the values.
        where: the file, for messages and origins.
        rule: what selects: as the config says, else judges where an algorithm needs a model.
    """

    name: str
    config: StudyConfig
    where: str
    rule: RuleName = "last"

    def variants(self, algorithm: str) -> tuple[dict[str, Any], ...]:
        """Every combination of the values in an algorithm's grid, by dotted key; one empty one without."""
        grid = self.config.algorithms[algorithm].get("grid", {})
        return tuple(dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))

    def resolve(
        self,
        algorithm: str,
        *,
        seed: int,
        dataset: str = _PLACEHOLDER,
        variant: Mapping[str, Any] | None = None,
    ) -> ResolvedConfig:
        """The config of one run: what `mbrl train` makes of the same values, so that results are shared.

        Args:
            algorithm: label.
            seed: one of `config.seeds`.
            dataset: path, `minari:<id>` or name of a bundled dataset.
            variant: one of `variants(algorithm)`; None leaves the grid aside.

        Raises:
            ConfigError: the sections of the algorithm or of the dynamics cannot be used.
        """
        config = self.config
        arguments: dict[str, Any] = {
            **config.model_dump(mode="json", include=_SHARED_KEYS, exclude_defaults=True),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "dataset": dataset,
            "seed": seed,
        }
        overrides: list[Override] = []
        trained = {key: value for key, value in config.algorithms[algorithm].items() if key != PLANNER_KEY}
        for key, part in (("algorithm", trained), ("dynamics", config.dynamics)):
            arguments[key], changes = _split(part)
            overrides += [((key, *path), value) for path, value in changes.items()]
        for path, value in (variant or {}).items():
            overrides.append((("algorithm", *path.split(".")), value))
        try:
            found = resolve(arguments=arguments, overrides=overrides, source=Path(self.where).name)
            return self._with_rule(found)
        except ConfigError as error:
            raise ConfigError(f"Comparison {self.where}, algorithm {algorithm}: {error}") from None

    def _with_rule(self, resolved: ResolvedConfig) -> ResolvedConfig:
        """The same rule for every algorithm; nothing is said where it is the algorithm's own default."""
        along: RuleName = "judge" if self.rule == "judge" else "last"
        needs_model = RECIPES.get(resolved.run.recipe).needs_dynamics
        if along == "last" and not needs_model:
            return resolved
        kept = self.config.select.kept if along == "judge" else SelectRule().kept
        run = resolved.run.model_copy(update={"select": SelectRule(rule=along, kept=kept)})
        origins = {**resolved.origins, ("select", "rule"): Path(self.where).name}
        return dataclasses.replace(resolved, run=run, origins=origins)

    def planner(self, algorithm: str) -> PlanConfig | None:
        """What plans on top of an algorithm's training; None where its policy acts by itself.

        Raises:
            ConfigError: the planner's section cannot be used.
        """
        part = self.config.algorithms[algorithm].get(PLANNER_KEY)
        if part is None:
            return None
        where = f"Comparison {self.where}: algorithms.{algorithm}"
        return parse_plan_config(as_tree(part, where=f"{where}.planner"), where=where)

    def to_yaml(self) -> str:
        """The comparison as it was validated; readable by `load_study`."""
        values = self.config.model_dump(mode="json", exclude_none=True)
        return f"# Comparison {self.name}, as read from {self.where}.\n" + yaml.safe_dump(
            values, sort_keys=False
        )


def load_study(experiment: str, *, overrides: Sequence[Override] = ()) -> StudySource:
    """Reads and validates a comparison, with the config of each of its algorithms.

    Args:
        experiment: name in `configs/experiments`, or path of a yaml.
        overrides: `dotted.key=value` on the comparison's own tree, in order.

    Raises:
        ConfigError: an unknown key or name, a value that is out of range, or a yaml of one run.
    """
    path = find_part("experiments", experiment)
    tree = read_yaml(path)
    if "algorithm" in tree and not is_comparison(tree):
        raise ConfigError(
            f"Config file {path} is one run, not a comparison. Remedy: mbrl train --config {experiment}."
        )
    where = f"Comparison {path}"
    open_parts(tree)
    for keys, value in read_overrides(overrides):
        set_at(tree, keys, value)
    source = StudySource(path.stem, validate(StudyConfig, tree, where=where), str(path))
    source = dataclasses.replace(source, rule=_find_rule(source))
    refuse_import(source.config.task, source=f"The comparison {path}")
    for label, part in source.config.algorithms.items():
        _check_form(part, label, where=where)
        source.planner(label)
        run = source.resolve(label, seed=source.config.seeds[0]).run
        if part.get("grid") and source.rule == "last":
            raise ConfigError(
                f"{where}: algorithms.{label} has a grid and the comparison nothing to choose by. "
                "Remedy: select: judge, or select: fqe."
            )
        for variant in source.variants(label):
            source.resolve(label, seed=source.config.seeds[0], variant=variant)
        if RECIPES.get(run.recipe).is_online:
            raise ConfigError(f"{where}: algorithms.{label} learns in a simulator; compare offline ones.")
    return source


def _find_rule(source: StudySource) -> RuleName:
    config = source.config
    if config.select.rule is not None:
        return config.select.rule
    seed = config.seeds[0]
    needs = (
        RECIPES.get(source.resolve(label, seed=seed).run.recipe).needs_dynamics
        for label, part in config.algorithms.items()
        if {"file", "recipe"} & part.keys()
    )
    return "judge" if config.judges.count > 0 and any(needs) else "last"


def _check_form(part: Mapping[str, Any], label: str, *, where: str) -> None:
    if not {"file", "recipe"} & part.keys():
        hints = "".join(suggest(key, ("file", "recipe")) for key in part)
        raise ConfigError(
            f"{where}: algorithms.{label} names neither a file of configs/algorithms (file: ...) nor a "
            f"recipe (recipe: ...). {hints}".rstrip()
        )
    if not _is_grid(part.get("grid", {})):
        raise ConfigError(f"{where}: algorithms.{label}.grid must hold lists of values by dotted key.")


def _is_grid(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    entries = cast("dict[str, Any]", value).values()
    return all(isinstance(entry, list) and len(cast("list[Any]", entry)) > 0 for entry in entries)


def open_parts(tree: Tree) -> None:
    """Writes bare names of parts as the mappings that they stand for, so that overrides reach into them."""
    algorithms = tree.get("algorithms")
    if isinstance(tree.get("dynamics"), str):
        tree["dynamics"] = {"file": tree["dynamics"]}
    if isinstance(algorithms, dict):
        parts = cast("dict[Any, Any]", algorithms).items()
        tree["algorithms"] = {key: _open_algorithm(part) for key, part in parts}


def _open_algorithm(part: Any) -> Any:
    if isinstance(part, str):
        return {"file": part}
    if not isinstance(part, dict):
        return part
    fields = cast("Tree", part)
    planner: Any = fields.get(PLANNER_KEY)
    return {**fields, PLANNER_KEY: {"file": planner}} if isinstance(planner, str) else fields


def _split(part: Mapping[str, Any]) -> tuple[Any, dict[KeyPath, Any]]:
    """The value that a run's config takes for a part, and the leaves that are changed in it afterwards."""
    changes = {key: value for key, value in part.items() if key not in {"file", "grid"}}
    if "file" not in part:
        return copy.deepcopy(changes), {}
    leaves: dict[KeyPath, Any] = {}
    for path in leaf_paths(changes):
        value: Any = changes
        for key in path:
            value = value[key]
        leaves[path] = value
    return part["file"], leaves
