"""Datasets made in a simulator, by recipe: which policies act for which share of the steps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.core.assets import assets_dir, configs_dir
from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest
from mbrl.core.progress import Progress
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.envs.behaviour import EvenShare, load_rule
from mbrl.envs.collect import collect
from mbrl.envs.make import env_versions
from mbrl.envs.specs import TaskSpec, load_task, own_task_hash, refuse_import
from mbrl.nets.random_policy import random_policy
from mbrl.run.documents import read_yaml
from mbrl.run.policies import open_policy
from mbrl.run.store import package_version
from mbrl.run.validation import validate

RANDOM: Final = "random"
"""The policy that acts uniformly in the action box."""


class PartConfig(BaseModel):
    """The episodes of one policy.

    Attributes:
        policy: `random`, the name of a checkpoint or a rule that travels with the package for this task, the
            path of a policy file or of a rule's yaml (`mbrl.envs.behaviour`), or the folder of a training.
        share: of the steps.
        epsilon: share of the steps in which a choice is drawn evenly, whatever the policy does; for discrete
            actions only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Annotated[str, Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.0


class CollectionConfig(BaseModel):
    """A dataset to be made.

    Attributes:
        task: name of a shipped task, or path of a task's yaml.
        description: one line for people.
        steps: in all.
        parts: who acts; shares add up to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    description: str = ""
    steps: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    parts: Annotated[tuple[PartConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _shares_add_up(self) -> "CollectionConfig":
        total = sum(part.share for part in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, not {total:g}")
        return self

    def part_steps(self) -> list[int]:
        """Steps of each part: rounded shares, the last part taking what is left."""
        counts = [round(self.steps * part.share) for part in self.parts[:-1]]
        return [*counts, self.steps - sum(counts)]


def list_collections() -> tuple[str, ...]:
    """Names of the shipped recipes, `<task>/<tier>`, sorted."""
    root = configs_dir() / "datasets"
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.yaml")))


def load_collection(name: str) -> CollectionConfig:
    """A shipped recipe by its name, or a user's own by its path.

    Raises:
        ConfigError: the name is unknown, or the file cannot be used.
    """
    if Path(name).suffix in {".yaml", ".yml"}:
        path = Path(name)
    elif name in list_collections():
        path = configs_dir() / "datasets" / f"{name}.yaml"
    else:
        legal = list_collections()
        raise ConfigError(
            f"Unknown dataset recipe {name!r}. {suggest(name, legal)}Legal names: {listed(legal)}; or the "
            "path of a .yaml file; or a task with --policy."
        )
    config = validate(CollectionConfig, read_yaml(path), where=f"Dataset recipe {path}")
    refuse_import(config.task, source=f"The dataset recipe {path}")
    return config


def collect_dataset(
    config: CollectionConfig, *, name: str, seed: int, progress: Progress, task: TaskSpec | None = None
) -> Dataset:
    """Runs every part's policy with noise and logs its episodes.

    The behaviour log-density of an episode is that of the policy that acted in it.

    Args:
        config: who acts, for how long.
        name: id of the dataset.
        seed: of starts and noise; every part has streams of its own.
        progress: told of finished parts.
        task: stands for the one that `config` names.

    Raises:
        ConfigError: a policy or the task is unknown, has no simulator, or they do not fit each other.
    """
    task = load_task(config.task) if task is None else task
    policies = [_part_policy(part, task) for part in config.parts]
    streams = RngStreams(seed).child("collect")
    episodes: list[Episode] = []
    counts = config.part_steps()
    progress.start(f"collect {name}", config.steps)
    for index, (policy, steps) in enumerate(zip(policies, counts, strict=True)):
        if steps > 0:
            episodes += collect(task, policy, steps=steps, rng=streams.child(f"part-{index}"))
        progress.advance(sum(counts[: index + 1]))
    progress.finish()
    return Dataset(tuple(episodes), task.space, _describe(config, task, name=name, seed=seed))


def _part_policy(part: PartConfig, task: TaskSpec) -> Policy:
    """Who acts in a part.

    Raises:
        ConfigError: there is none, or choices are to be drawn evenly where there are none.
    """
    policy = find_policy(part.policy, task)
    if part.epsilon == 0.0:
        return policy
    if not isinstance(policy, DiscretePolicy):
        raise ConfigError(
            f"The policy {part.policy!r} of the task {task.name} has no probabilities of choices, and "
            f"epsilon is {part.epsilon}. Remedy: leave epsilon out; it is for discrete actions."
        )
    return EvenShare(policy, part.epsilon)


def find_policy(name: str, task: TaskSpec) -> Policy:
    """The policy that a recipe names.

    Raises:
        ConfigError: there is none, or it was made for other spaces.
    """
    if name == RANDOM:
        return random_policy(task.space)
    shipped = shipped_policies(task)
    path = shipped.get(name, Path(name))
    if not path.exists():
        legal = [RANDOM, *shipped]
        raise ConfigError(
            f"There is no policy {name!r} for the task {task.name}. {suggest(name, legal)}"
            f"Legal names: {listed(legal)}; or the path of a policy file, of a rule's yaml or of a "
            "training's folder."
        )
    if path.suffix in {".yaml", ".yml"}:
        return load_rule(path, task)
    stored = open_policy(path)
    space, history = stored.network.spec.space, stored.history
    # The sizes of a history are looked at by `on_frames`.
    if history is None and space != task.space:
        raise ConfigError(f"The policy {path} acts on {space}, the task {task.name} has {task.space}.")
    return stored.on_frames(task.space)


def shipped_policies(task: TaskSpec) -> dict[str, Path]:
    """Behaviour checkpoints and rules that travel with the package, by name."""
    folder = assets_dir() / "behaviour" / task.name
    return {path.stem: path for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.yaml")])}


def _describe(config: CollectionConfig, task: TaskSpec, *, name: str, seed: int) -> DatasetInfo:
    own_task = own_task_hash(task)
    provenance: Mapping[str, str] = {
        "description": config.description,
        "algorithm_name": ", ".join(f"{part.policy} ({part.share:.0%})" for part in config.parts),
        "recipe": json.dumps(config.model_dump(mode="json", exclude_defaults=True)),
        "seed": str(seed),
        "mbrl_version": package_version(),
        "package_versions": json.dumps(env_versions()),
        "ref_source": task.ref_source,
        **({} if own_task is None else {"task_hash": own_task}),
    }
    return DatasetInfo(
        name=name,
        task=task.name,
        env_id=task.env_id,
        max_episode_steps=task.max_episode_steps,
        ref_min_score=task.ref_min_score,
        ref_max_score=task.ref_max_score,
        provenance=provenance,
    )
