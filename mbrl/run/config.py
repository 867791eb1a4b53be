"""What a run is told: one validated tree, composed of an experiment, named parts and `--set`."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny

from mbrl.algorithms.base import RECIPES, RecipeConfig
from mbrl.core.assets import configs_dir
from mbrl.core.device import check_device_name
from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest
from mbrl.core.registry import Registry
from mbrl.data.options import LoadOptions
from mbrl.dynamics.config import DynamicsConfig
from mbrl.learners.base import LEARNERS
from mbrl.learners.choice import LearnerChoice
from mbrl.off_policy.value.judge_config import JudgesConfig
from mbrl.run.documents import (
    KeyPath,
    Override,
    Tree,
    annotate,
    as_tree,
    leaf_paths,
    read_overrides,
    read_yaml,
    set_at,
    show,
)
from mbrl.run.judge.rule import Select, SelectRule
from mbrl.run.validation import elsewhere, validate

PARTS: Final = {"algorithm": "algorithms", "dynamics": "dynamics"}
"""Keys of an experiment whose value may be the name of a file, and the folder of `configs/` that holds it."""

DeviceName: TypeAlias = Annotated[str, AfterValidator(check_device_name)]
"""`cpu`, `cuda` (the first card) or `cuda:N`."""


class EvaluationConfig(BaseModel):
    """How the policy of a run is evaluated.

    Attributes:
        episodes: full episodes in the simulator.
        seed: of starts and noise; the same for all policies, so that they are compared on common starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episodes: Annotated[int, Field(ge=1, le=100_000)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class RunConfig(BaseModel):
    """Everything that a run depends on.

    Attributes:
        dataset: path, `minari:<id>` or name of a bundled dataset, or a list of several that are taken as one
            (`mbrl.data.merging`); null for online recipes.
        weights: shares of the sources of a merged dataset in the logged rows of a batch, in any unit; null
            draws all rows alike.
        dataset_options: what a load may repair, the same for all datasets.
        expert: second dataset, of an expert's episodes, for algorithms that imitate; read with the same
            options. Its rewards are never read.
        warm_start: folder of a finished training with whose actor and critics this one begins; its policy is
            the first of those among which the result is chosen. null starts from fresh weights.
        continue_from: folder of a finished training of the same learner, whose networks, optimisers and unit
            of rewards go on here; null goes on from none.
        task: name of a shipped task or path of a task's yaml; null takes the one that the dataset names.
        recipe: how the learner gets its experience.
        algorithm: hyper-parameters of the recipe and its learner.
        dynamics: the ensemble, for recipes that need one; its `holdout_fraction` splits for all recipes.
        judges: ensembles that never train a policy, and how they are asked what policies are worth.
        select: which of the policies along the training is its result, see `SelectRule`; a bare name stands
            for its rule.
        reward: in imagination: the rule that the log carries where there is one (`auto`), the `learned`
            head of the dynamics, or the path of the reward model (`.safetensors`) that the log was relabelled
            by, whose lower bound imagined steps then earn as logged ones do.
        policy_data: what a policy learns from: `all` episodes, or those of the `train` split alone. The model
            and its thresholds know the training split only; diagnostics look at held-out states either way.
        evaluation: the judgement of its policy.
        seed: of every random stream.
        threads: of torch, in each process.
        device: where models are fitted, policies trained and values fitted: `cpu`, `cuda` or `cuda:N`. It is
            never changed silently. Like `threads` it is part of how a result is made, and not of what it is.
        log_interval: updates between two rows of metrics.
        checkpoint_interval: updates between two checkpoints.
        keep_policies: keep the policy of every checkpoint in `policies/`, for datasets made along a training.
        on_divergence: whether values beyond what the rewards permit only `warn`, or `stop` the run.
        diagnostics: look at every checkpoint how far the policy leaves the data; the policy is the same
            without. Online recipes have no data to leave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | Annotated[tuple[str, ...], Field(min_length=2, max_length=1000)] | None = None
    weights: (
        Annotated[tuple[Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)], ...], Field(min_length=2)]
        | None
    ) = None
    dataset_options: LoadOptions = LoadOptions()
    expert: str | None = None
    warm_start: str | None = None
    continue_from: str | None = None
    task: str | None = None
    recipe: str
    algorithm: SerializeAsAny[RecipeConfig]
    dynamics: DynamicsConfig = DynamicsConfig()
    judges: JudgesConfig = JudgesConfig()
    select: Select = SelectRule()
    reward: Annotated[str, Field(pattern=r"^(auto|learned|.+\.safetensors)$")] = "auto"
    policy_data: Literal["all", "train"] = "all"
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    device: DeviceName = "cpu"
    log_interval: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    checkpoint_interval: Annotated[int, Field(ge=1, le=100_000_000)] = 5000
    keep_policies: bool = False
    on_divergence: Literal["warn", "stop"] = "warn"
    diagnostics: bool = True

    def tree(self) -> Tree:
        """Plain values in the shape of a yaml file; `resolve` reads them back."""
        values = self.model_dump(mode="json", exclude={"recipe", "algorithm"})
        return {**values, "algorithm": algorithm_tree(self)}


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A config and where its values come from.

    Attributes:
        run: the validated values.
        name: short name of the algorithm, for folders and tables.
        origins: for each leaf `default`, the name of a file, `command line` or `--set`.
    """

    run: RunConfig
    name: str
    origins: Mapping[KeyPath, str]

    def to_yaml(self) -> str:
        """The whole config with the origin of every value as a comment; readable by `resolve`."""
        header = "# Resolved config; behind each value stands where it came from.\n"
        return header + annotate(self.run.tree(), self.origins)


def algorithm_tree(run: RunConfig) -> Tree:
    """The algorithm section as it stands in a yaml: recipe and learner fields side by side."""
    fields = run.algorithm.model_dump(mode="json", exclude={"learner"})
    learner = run.algorithm.learner
    return {
        "recipe": run.recipe,
        **fields,
        "learner": {"name": learner.name, **learner.config.model_dump(mode="json")},
    }


def resolve(
    experiment: Path | str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    overrides: Sequence[Override] = (),
    source: str | None = None,
) -> ResolvedConfig:
    """Composes and validates a config.

    Later beats earlier: defaults, the experiment's file, the files it names, `arguments`, `overrides`.

    Args:
        experiment: name in `configs/experiments`, path of a yaml, or None.
        arguments: top-level values given on the command line; None values count as not given.
        overrides: `dotted.key=value`, or a key's path and its value, in order.
        source: named as the origin of `arguments` and `overrides`; None for the command line's options.

    Raises:
        ConfigError: an unknown key or name, or a value that is out of range.
    """
    parsed = [_open_rule(keys, value) for keys, value in read_overrides(overrides)]
    path = None if experiment is None else find_part("experiments", str(experiment))
    where = f"Config file {path}" if path is not None else "Config"
    tree: Tree = {} if path is None else read_yaml(path)
    if isinstance(tree.get("select"), str):
        tree["select"] = {"rule": tree["select"]}
    if is_comparison(tree):
        raise ConfigError(f"{where} is a comparison, not one run. Remedy: mbrl compare {experiment}.")
    origins = dict.fromkeys(leaf_paths(tree), "" if path is None else path.name)
    whole = {keys[0]: value for keys, value in parsed if len(keys) == 1}
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    for origin, values in ((source or "command line", given), (source or "--set", whole)):
        for key, value in values.items():
            _replace(tree, origins, key, value, origin)
    where += "".join(f", {key} of {tree[key]}" for key in PARTS if _is_path(tree.get(key)))
    name = _compose(tree, origins, where=where if path is not None else "")
    for keys, value in parsed:
        if len(keys) > 1:
            set_at(tree, keys, value)
            origins[keys] = source or "--set"
    return ResolvedConfig(run=build_run_config(tree, where=where), name=name, origins=origins)


def _open_rule(keys: KeyPath, value: Any) -> tuple[KeyPath, Any]:
    """`select=NAME` names the rule, and leaves the rest of its section."""
    return (("select", "rule"), value) if keys == ("select",) and isinstance(value, str) else (keys, value)


def is_comparison(tree: Tree) -> bool:
    """Whether a yaml compares algorithms over datasets (`mbrl.study.config`) instead of naming a run."""
    return {"datasets", "algorithms"} <= tree.keys()


def build_run_config(tree: Tree, *, where: str) -> RunConfig:
    """Validates a composed tree.

    Raises:
        ConfigError: see `resolve`.
    """
    tree = dict(tree)
    _refuse_unknown(tree, where=where)
    fields = as_tree(tree.pop("algorithm", None), where=f"{where}: algorithm")
    if not fields:
        raise ConfigError(
            f"{where}: no algorithm is named. Remedy: --algorithm NAME (mbrl list algorithms), or algorithm: "
            "in the config."
        )
    recipe, algorithm = parse_algorithm(fields, where=where)
    return validate(RunConfig, {**tree, "recipe": recipe, "algorithm": algorithm}, where=where)


def _refuse_unknown(tree: Tree, *, where: str) -> None:
    """Comes before what is missing: `algoritm` is a slip, and no config without an algorithm."""
    if "recipe" in tree:
        raise ConfigError(f"{where}: Unknown key recipe. It belongs into algorithm: algorithm.recipe.")
    legal = RunConfig.model_fields.keys() - {"recipe"}
    for key in tree:
        if key not in legal:
            hint = suggest(key, legal) or elsewhere([RunConfig], (key,))
            raise ConfigError(f"{where}: Unknown key {key[:100]}. {hint}Legal keys here: {listed(legal)}.")


def parse_algorithm(fields: Tree, *, where: str) -> tuple[str, RecipeConfig]:
    """The recipe's id and its validated config, from the algorithm section of a yaml.

    Raises:
        ConfigError: see `resolve`.
    """
    fields = dict(fields)
    recipe = _known(fields.pop("recipe", None), RECIPES, key="algorithm.recipe", where=where)
    if "learner" in fields:
        fields["learner"] = _parse_learner(fields["learner"], where=where)
    return recipe, validate(RECIPES.get(recipe).Config, fields, where=where, prefix="algorithm")


def _parse_learner(value: Any, *, where: str) -> LearnerChoice:
    fields = dict(as_tree(value, where=f"{where}: algorithm.learner"))
    name = _known(fields.pop("name", None), LEARNERS, key="algorithm.learner.name", where=where)
    config = validate(LEARNERS.get(name).Config, fields, where=where, prefix="algorithm.learner")
    return LearnerChoice(name=name, config=config)


def _known(name: Any, registry: Registry[Any], *, key: str, where: str) -> str:
    if name is None:
        raise ConfigError(f"{where}: {key} is missing. Legal names: {listed(registry.names())}.")
    if not isinstance(name, str) or name not in registry:
        problem = f"{where}: {key} = {show(name)} is unknown."
        raise ConfigError(f"{problem} {registry.explain_unknown(str(name))}")
    return name


def find_part(folder: str, name: str) -> Path:
    """The yaml that a name or a path stands for.

    Args:
        folder: folder of `configs/`.
        name: file name without suffix, or the path of a yaml.

    Raises:
        ConfigError: there is none; the message lists the legal names.
    """
    if _is_path(name):
        return Path(name).expanduser()
    legal = part_names(folder)
    if name not in legal:
        raise ConfigError(
            f"Unknown name {show(name)} for {folder}. {suggest(name, legal)}Legal names: {listed(legal)}; "
            "or the path of a .yaml file."
        )
    return configs_dir() / folder / f"{name}.yaml"


def part_names(folder: str) -> tuple[str, ...]:
    """Names of the shipped files in a folder of `configs/`, sorted."""
    return tuple(sorted(path.stem for path in (configs_dir() / folder).glob("*.yaml")))


def describe_parts(folder: str) -> dict[str, str]:
    """What the comment above each file of a folder of `configs` says first, by name."""
    return {name: _first_words(find_part(folder, name).read_text()) for name in part_names(folder)}


def _first_words(text: str) -> str:
    """The comment at the top, up to its first full stop or bracket."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r" \(|\.(?: |$)", " ".join(line.removeprefix("#").strip() for line in comment))[0]


def stable_hash(values: Any) -> str:
    """Hex digest (blake2b, 16 bytes) of plain values; keys in any order give the same."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _replace(tree: Tree, origins: dict[KeyPath, str], key: str, value: Any, source: str) -> None:
    """Sets a top-level value; what was known of the leaves below it is forgotten."""
    for path in [path for path in origins if path[0] == key]:
        del origins[path]
    tree[key] = value
    origins.update(dict.fromkeys(leaf_paths({key: value}), source))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and Path(value).suffix in {".yaml", ".yml"}


def _compose(tree: Tree, origins: dict[KeyPath, str], *, where: str) -> str:
    """Puts named files in place of their names; returns a short name of the algorithm."""
    name = ""
    for key, folder in PARTS.items():
        value = tree.get(key)
        if isinstance(value, str):
            try:
                path = find_part(folder, value)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}" if where else str(error)) from None
            _replace(tree, origins, key, read_yaml(path), path.name)
            name = path.stem if key == "algorithm" else name
    if name:
        return name
    section: Any = tree.get("algorithm")
    fields = cast("Tree", section) if isinstance(section, dict) else {}
    learner: Any = fields.get("learner")
    if fields.get("recipe") == "model_free" and isinstance(learner, dict):
        return str(cast("Tree", learner).get("name", "custom"))
    return str(fields.get("recipe", "custom"))
