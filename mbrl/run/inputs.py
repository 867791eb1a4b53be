"""What a run's config names: its dataset, its task, and what a manifest says of them."""

from pathlib import Path
from typing import Any

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.imagination import TerminationSource
from mbrl.algorithms.preferences import PreferencesConfig
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import RewardFn, TerminationFn
from mbrl.data.dataset import Dataset
from mbrl.data.merging.merge import merge_datasets, sources_digest, sources_of
from mbrl.data.merging.mixture import SourceMixture, weighted_sources
from mbrl.data.open import open_dataset
from mbrl.data.rules import logged_reward, logged_termination
from mbrl.dynamics.config import DynamicsConfig
from mbrl.envs.specs import TaskSpec, find_task, load_named_task, load_task
from mbrl.envs.termination import KnownTermination
from mbrl.preferences.files import read_preferences
from mbrl.preferences.pairs import PreferenceSet
from mbrl.run.config import RunConfig
from mbrl.run.preferences.relabelling import reward_of_log
from mbrl.run.preferences.reward import open_reward
from mbrl.run.stage import Workspace


def load_run_dataset(config: RunConfig, workspace: Workspace) -> Dataset:
    """The dataset that a config names.

    Raises:
        ConfigError: it names none.
        DataError: it cannot be used.
    """
    if config.dataset is None:
        raise ConfigError("No dataset is named. Remedy: mbrl train DATASET, or dataset: in the config.")
    if isinstance(config.dataset, tuple):
        return merge_datasets([_open(source, config, workspace) for source in config.dataset])
    return _open(config.dataset, config, workspace)


def _open(source: str, config: RunConfig, workspace: Workspace) -> Dataset:
    workspace.progress.message(f"Open {source}.")  # a large log takes a while, and all of it is checked
    return open_dataset(source, config.dataset_options, minari_root=workspace.minari_root)


def load_run_mixture(config: RunConfig, part: Dataset, whole: Dataset) -> SourceMixture | None:
    """In which shares batches are drawn from the sources of the log; None where nobody asked.

    Args:
        config: of the run.
        part: that the policy learns from.
        whole: the log.

    Raises:
        ConfigError: the log has no such sources.
    """
    return None if config.weights is None else SourceMixture.of(part, config.weights, whole=whole)


def mixture_identity(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """What decides how often a row is drawn: shares and sources; nothing where all rows are drawn alike.

    Raises:
        ConfigError: the log has no such sources, or the recipe draws no logged rows by source.
    """
    if config.weights is None:
        return {}
    if not RECIPES.get(config.recipe).weighs_sources:
        raise ConfigError(
            f"weights: the recipe {config.recipe!r} does not draw logged rows by their source. Remedy: leave "
            "them away, or train model_free, reanalyse, or a recipe on the stream of model_based."
        )
    weighted_sources(dataset, config.weights)
    total = sum(config.weights)
    shares = [weight / total for weight in config.weights]
    return {"mixture": {"shares": shares, "sources": sources_digest(dataset)}}


def load_run_expert(config: RunConfig, dataset: Dataset | None, workspace: Workspace) -> Dataset | None:
    """The expert's log that a config names; None for algorithms that imitate nobody.

    Raises:
        ConfigError: it names one for an algorithm that reads none, none for one that does, or one of other
            sizes than the log.
        DataError: it cannot be used.
    """
    imitates = RECIPES.get(config.recipe).imitates
    if config.expert is None or not imitates or dataset is None:
        if config.expert is not None:
            raise ConfigError(
                f"expert={config.expert}: the recipe {config.recipe!r} imitates nobody. Remedy: leave it "
                "away, or train airl, gail, smodice or demodice."
            )
        if imitates:
            raise ConfigError(
                f"The recipe {config.recipe!r} imitates: name a log of an expert beside the log. Remedy: "
                "mbrl train LOG --expert DATASET, or expert: in the config."
            )
        return None
    expert = open_dataset(config.expert, config.dataset_options, minari_root=workspace.minari_root)
    if expert.spec != dataset.spec or expert.info.history != dataset.info.history:
        raise ConfigError(
            f"The expert's log {expert.info.name!r} has {expert.spec.obs_dim} observations and "
            f"{expert.spec.act_dim} actions in {list(expert.spec.act_low)} to {list(expert.spec.act_high)}, "
            f"the log {dataset.info.name!r} {dataset.spec.obs_dim} and {dataset.spec.act_dim} in "
            f"{list(dataset.spec.act_low)} to {list(dataset.spec.act_high)}. Remedy: two logs of one "
            "machine, with the same history."
        )
    return expert


def find_run_task(config: RunConfig, dataset: Dataset | None) -> TaskSpec | None:
    """The task that the config names, else the one that the dataset names, else None.

    Raises:
        ConfigError: the name is unknown, or the task's sizes are not those of the dataset.
    """
    task = _named_task(config, dataset)
    if task is None:
        return None
    if dataset is None:
        return task
    spec, history = dataset.spec, dataset.info.history
    # A simulator gives one frame at a time; a policy that reads more remembers them.
    frame_dim = spec.obs_dim if history is None else history.frame_dim(spec.obs_dim, spec.act_dim)
    if (task.obs_dim, task.act_dim) != (frame_dim, spec.act_dim):
        raise ConfigError(
            f"Task {task.name!r} has {task.obs_dim} observation and {task.act_dim} action dimensions, the "
            f"dataset {dataset.info.name!r} has {frame_dim} and {spec.act_dim}."
        )
    return task


def _named_task(config: RunConfig, dataset: Dataset | None) -> TaskSpec | None:
    if config.task is not None:
        return load_task(config.task)
    if dataset is None:
        return None
    info = dataset.info
    if info.task is not None:
        return load_named_task(
            info.task,
            source=f"The dataset {info.name!r}",
            env_id=info.env_id,
            content_hash=info.provenance.get("task_hash"),
        )
    return None if dataset.info.env_id is None else find_task(dataset.info.env_id)


def known_termination(task: TaskSpec | None, dataset: Dataset) -> TerminationFn | None:
    """The rule that ends the task: of the task where it declares one, else of the log; None if unknown."""
    if task is not None and task.termination is not None:
        return KnownTermination(task.termination)
    return logged_termination(dataset.info)


def known_reward(run: RunConfig, dataset: Dataset) -> RewardFn | None:
    """Who says what an imagined step earns besides the dynamics' own head; None for that head.

    The reward that the log carries as a rule, or the reward model that the config names.

    Raises:
        ConfigError: the log was not relabelled by that model.
    """
    if run.reward == "learned" or not dataset.has_rewards:
        return None
    return logged_reward(dataset.info) if run.reward == "auto" else reward_of_log(Path(run.reward), dataset)


def reward_identity(run: RunConfig) -> dict[str, Any]:
    """Who says what an imagined step earns, where that is not what the log says; a model by its content."""
    if run.reward in {"auto", "learned"}:
        return {} if run.reward == "auto" else {"reward": run.reward}
    return {"reward": open_reward(Path(run.reward)).content}


def load_run_preferences(run: RunConfig, dataset: Dataset) -> PreferenceSet | None:
    """The answers that the algorithm learns from; None for one that learns from none.

    Raises:
        ConfigError: the policy is to learn from a part of the episodes alone.
        DataError: the file is wrong, or about another log.
    """
    algorithm = run.algorithm
    if not isinstance(algorithm, PreferencesConfig) or algorithm.preferences is None:
        return None
    if run.policy_data != "all":
        raise ConfigError(
            f"policy_data={run.policy_data}: answers are about all episodes. Remedy: policy_data=all."
        )
    found = read_preferences(algorithm.preferences)
    found.require_log(dataset)
    return found


def named_end(asked: TerminationSource, rule: TerminationFn | None, *, option: str) -> TerminationSource:
    """Who ends imagined episodes: `task`, `learned` or `never`; `auto` takes a rule where one is known.

    Args:
        asked: by whom they are to end.
        rule: that is known (`known_termination`), or None.
        option: that asks, for the message.

    Raises:
        ConfigError: a rule is asked for, and none is known.
    """
    if asked == "auto":
        return "learned" if rule is None else "task"
    if asked == "task" and rule is None:
        raise ConfigError(
            f"{option}=task needs a task with a known rule of termination. Remedy: declare it in the task's "
            f"yaml or the log's schema, or use {option}=auto."
        )
    return asked


def split_identity(config: DynamicsConfig) -> dict[str, Any]:
    """What decides which episodes are held out, besides the dataset and the seed."""
    return {"fraction": config.holdout_fraction, "gap": config.split_gap}


def manifest_facts(config: RunConfig, dataset: Dataset | None) -> dict[str, Any]:
    """What a manifest says of the data and the machine's use."""
    parts = () if dataset is None else sources_of(dataset)
    listed = {"dataset_parts": [part.model_dump(mode="json") for part in parts]} if parts else {}
    return {
        "dataset_source": list(config.dataset) if isinstance(config.dataset, tuple) else config.dataset,
        "dataset_hash": None if dataset is None else dataset.content_hash,
        **listed,
        **({} if config.expert is None else {"expert_source": config.expert}),
        **({} if config.warm_start is None else {"warm_start": config.warm_start}),
        **({} if config.continue_from is None else {"continue_from": config.continue_from}),
        "dropped": {} if dataset is None else dict(dataset.dropped),
        "online": dataset is None,
        "threads": config.threads,
    }
