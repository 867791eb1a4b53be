"""Stages of a run: fit the dynamics, train a policy, evaluate it. What is done is not done again."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.data.open import open_dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics, split_for
from mbrl.envs.specs import TaskSpec, find_task, load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.nets.normaliser import Normaliser
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import EvaluationConfig, ResolvedConfig, RunConfig, algorithm_tree, resolve
from mbrl.run.diagnostics import make_shift_probe
from mbrl.run.files import write_json
from mbrl.run.loop import LoopSettings, train
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import StoredPolicy, load_policy, save_policy
from mbrl.run.progress import Progress, SilentProgress
from mbrl.run.shift_monitor import ShiftMonitor
from mbrl.run.store import RunFolder, RunStore, StageKey, find_run, package_version
from mbrl.shift.probe import ShiftProbe
from mbrl.shift.support import BehaviourSupport
from mbrl.uncertainty.held_out import held_out_measures

DYNAMICS_FILE: Final = "dynamics.safetensors"
POLICY_FILE: Final = "policy.safetensors"
_DYNAMICS_VERSION: Final = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Workspace:
    """Where stages work and whom they tell.

    Attributes:
        store: of runs.
        progress: listener.
        minari_root: folder of Minari's local datasets; None for its default.
        supports: behaviours that diagnostics fitted in this process; runs on the same data and seed share.
    """

    store: RunStore
    progress: Progress = dataclasses.field(default_factory=SilentProgress)
    minari_root: Path | None = None
    supports: dict[str, BehaviourSupport] = dataclasses.field(default_factory=dict[str, BehaviourSupport])


def set_up_torch(threads: int) -> None:
    """`threads` threads; denormal numbers, slow and meaningless here, become zero."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def load_run_dataset(config: RunConfig, workspace: Workspace) -> Dataset:
    """The dataset that a config names.

    Raises:
        ConfigError: it names none.
        DataError: it cannot be used.
    """
    if config.dataset is None:
        raise ConfigError("No dataset is named. Remedy: mbrl train DATASET, or dataset: in the config.")
    return open_dataset(config.dataset, config.dataset_options, minari_root=workspace.minari_root)


def find_run_task(config: RunConfig, dataset: Dataset | None) -> TaskSpec | None:
    """The task that the config names, else the one that the dataset names, else None.

    Raises:
        ConfigError: the name is unknown, or the task's sizes are not those of the dataset.
    """
    task = _named_task(config, dataset)
    if task is None:
        return None
    if dataset is not None and (task.obs_dim, task.act_dim) != (dataset.spec.obs_dim, dataset.spec.act_dim):
        raise ConfigError(
            f"Task {task.name!r} has {task.obs_dim} observation and {task.act_dim} action dimensions, the "
            f"dataset {dataset.info.name!r} has {dataset.spec.obs_dim} and {dataset.spec.act_dim}."
        )
    return task


def _named_task(config: RunConfig, dataset: Dataset | None) -> TaskSpec | None:
    if config.task is not None:
        return load_task(config.task)
    if dataset is None:
        return None
    if dataset.info.task is not None:
        return load_task(dataset.info.task)
    return None if dataset.info.env_id is None else find_task(dataset.info.env_id)


def dynamics_key(config: RunConfig, dataset: Dataset) -> StageKey:
    """Identity of the dynamics fit that `config` asks for; other sections of the config do not enter."""
    identity = {"dynamics": config.dynamics.model_dump(mode="json"), "dataset": dataset.content_hash}
    return StageKey("fit_dynamics", dataset.info.name, "ensemble", config.seed, identity)


def fit_dynamics_stage(
    resolved: ResolvedConfig, dataset: Dataset, workspace: Workspace
) -> tuple[FittedDynamics, RunFolder]:
    """Fits the ensemble, or loads the one that was fitted before with the same config, data and seed."""
    config = resolved.run
    key = dynamics_key(config, dataset)
    facts = manifest_facts(config, dataset)
    with workspace.store.open(key, config=resolved.to_yaml(), facts=facts) as run:
        if not run.is_done:
            fitted = _fit(config, dataset, run, key, workspace.progress)
            header, tensors = fitted.to_tensors()
            save_artifact(run.path / DYNAMICS_FILE, tensors, {"dynamics": header}, version=_DYNAMICS_VERSION)
            report = fitted.report.model_dump(mode="json")
            write_json(run.path / "report.json", report)
            run.finish(
                {"stage": key.stage, "dataset": dataset.info.name, "seed": config.seed, "report": report}
            )
        return load_dynamics(run), run


def load_dynamics(run: RunFolder) -> FittedDynamics:
    """The fitted model of a finished fit."""
    return open_dynamics(run.path / DYNAMICS_FILE)


def open_dynamics(path: Path) -> FittedDynamics:
    """The model of a finished fit's folder, or of a dynamics file.

    Raises:
        ConfigError: there is none.
    """
    if path.is_dir():
        path = find_run(path, stage="fit_dynamics").path / DYNAMICS_FILE
    header, tensors = load_artifact(path, version=_DYNAMICS_VERSION, what="dynamics")
    return FittedDynamics.from_tensors(header["dynamics"], tensors)


def _fit(
    config: RunConfig, dataset: Dataset, run: RunFolder, key: StageKey, progress: Progress
) -> FittedDynamics:
    begin = time.perf_counter()
    checkpoints = CheckpointFolder(run.path / "checkpoints", key.digest, keep=1)
    found = checkpoints.load_latest(progress.message)
    epoch = 0 if found is None else found[0]
    stage = ""

    def on_epoch(fit: DynamicsFit) -> None:
        nonlocal epoch, stage
        epoch += 1
        status = fit.progress
        if status.stage != stage:
            progress.start(f"fit {status.stage}", status.max_updates)
            stage = status.stage
        progress.advance(status.updates, holdout_error=min(status.holdout_error, default=float("nan")))
        checkpoints.save(epoch, fit.state_dict())
        run.add_seconds(time.perf_counter() - begin)

    try:
        fitted = fit_dynamics(
            dataset,
            config.dynamics,
            RngStreams(config.seed),
            measures=held_out_measures,
            resume_state=None if found is None else found[1],
            on_epoch=on_epoch,
        )
    finally:
        progress.finish()
    run.add_seconds(time.perf_counter() - begin)
    return fitted


def train_policy_stage(resolved: ResolvedConfig, workspace: Workspace) -> RunFolder:
    """Trains a policy, fitting the dynamics first where the recipe needs them.

    Raises:
        ConfigError: dataset, task and recipe do not go together.
    """
    config, recipe = resolved.run, RECIPES.get(resolved.run.recipe)
    dataset = None if recipe.is_online else load_run_dataset(config, workspace)
    task = find_run_task(config, dataset)
    if dataset is None and (task is None or config.dataset is not None):
        raise ConfigError(
            f"The recipe {config.recipe!r} trains in a simulator: give a task and no dataset "
            "(mbrl train --online TASK)."
        )
    identity: dict[str, Any] = {
        "algorithm": algorithm_tree(config),
        "task": None if task is None else task.model_dump(mode="json"),
    }
    fit = None
    if dataset is not None:
        identity |= {"dataset": dataset.content_hash, "split": split_identity(config.dynamics)}
        if recipe.needs_dynamics:
            fit = functools.partial(fit_dynamics_stage, resolved, dataset, workspace)
            identity["dynamics"] = dynamics_key(config, dataset).digest
    place = dataset.info.name if dataset is not None else f"online-{config.task}"
    key = StageKey("train_policy", place, resolved.name, config.seed, identity)
    facts = manifest_facts(config, dataset)
    with workspace.store.open(key, config=resolved.to_yaml(), facts=facts) as run:
        if not run.is_done:
            context = make_recipe_context(config, dataset, task, fit)
            probe = None
            if dataset is not None and config.diagnostics:
                probe = functools.partial(
                    make_shift_probe, config, dataset, context, supports=workspace.supports
                )
            _train(resolved, context, run, key, progress=workspace.progress, probe=probe)
    return run


def make_recipe_context(
    config: RunConfig,
    dataset: Dataset | None,
    task: TaskSpec | None,
    fit: Callable[[], tuple[FittedDynamics, RunFolder]] | None,
) -> RecipeContext:
    """What a recipe is built from: the training split, its moments, and the dynamics that `fit` makes."""
    if dataset is None:
        assert task is not None
        return RecipeContext(task.space, Normaliser.identity(task.obs_dim), task=task)
    train = split_for(config.dynamics, dataset, RngStreams(config.seed)).train.transitions()
    mean, std = fit_moments(train.observation)
    return RecipeContext(
        space=dataset.spec,
        normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        transitions=train.to_batch(),
        dynamics=None if fit is None else fit()[0],
        task=task,
        episode=torch.tensor(train.episode),
    )


def _train(
    resolved: ResolvedConfig,
    context: RecipeContext,
    run: RunFolder,
    key: StageKey,
    *,
    progress: Progress,
    probe: Callable[..., ShiftProbe] | None,
) -> None:
    config, recipe = resolved.run, RECIPES.get(resolved.run.recipe)
    training = recipe.build(config.algorithm, context)
    shift = None
    if probe is not None:
        shift = ShiftMonitor(functools.partial(probe, value_bounds=training.value_bounds))
    facts = {
        "algorithm": resolved.name,
        "recipe": config.recipe,
        "learner": config.algorithm.learner.name,
        "online": recipe.is_online,
        "dataset": None if recipe.is_online else key.dataset,
        "task": None if context.task is None else context.task.name,
        "seed": config.seed,
        "run": key.digest,
        "version": package_version(),
    }

    def on_checkpoint(step: int, state: Any, seconds: float) -> None:
        run.add_seconds(seconds)
        if config.keep_policies:
            path = run.path / "policies" / f"step-{step:09d}.safetensors"
            save_policy(path, training.learner.policy(state), {**facts, "updates": step})

    outcome = train(
        training,
        folder=run.path,
        rng=RngStreams(config.seed).child("policy"),
        settings=LoopSettings(
            updates=config.algorithm.updates,
            log_interval=config.log_interval,
            checkpoint_interval=config.checkpoint_interval,
            on_divergence=config.on_divergence,
            config_hash=key.digest,
        ),
        progress=progress,
        diagnostics=shift,
        on_checkpoint=on_checkpoint,
    )
    facts["updates"] = config.algorithm.updates
    save_policy(run.path / POLICY_FILE, training.learner.policy(outcome.state), facts)
    rows = [row for row in read_metrics(run.path) if "event" not in row]
    run.finish(
        {
            "stage": key.stage,
            **facts,
            "last_metrics": rows[-1] if rows else {},
            "divergence": outcome.excursions,
            "shift": None if shift is None else shift.report,
            "value_bounds": training.value_bounds,
            "reward_unit": training.reward_unit,
            "seconds": run.manifest()["wall_seconds"],
        }
    )


def evaluate_stage(
    policy_path: Path,
    workspace: Workspace,
    *,
    task: TaskSpec | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    video: Path | None = None,
) -> RunFolder:
    """Evaluates the last policy of a run, or any policy file, in the simulator.

    Args:
        policy_path: folder of a finished training, or a policy file.
        workspace: where the result goes.
        task: replaces the one that the policy was made for.
        episodes: how many; None takes what the run's config says.
        seed: of starts and noise; None likewise.
        video: `.mp4` or `.gif` of the first episode; evaluates again even if that was done.

    Raises:
        ConfigError: there is no policy, or its task is unknown or has no simulator.
    """
    stored, defaults = open_policy(policy_path), evaluation_defaults(policy_path)
    episodes = defaults.episodes if episodes is None else episodes
    seed = defaults.seed if seed is None else seed
    task = task or policy_task(stored)
    content = hashlib.blake2b(stored.path.read_bytes(), digest_size=16).hexdigest()
    identity = {"policy": content, "task": task.model_dump(mode="json"), "episodes": episodes}
    facts = {"policy": str(stored.path), "policy_facts": dict(stored.facts)}
    label = str(stored.facts.get("algorithm", stored.path.stem))
    place = str(stored.facts.get("dataset") or task.name)
    key = StageKey("evaluate", place, f"{label}-s{stored.facts.get('seed', 0)}", seed, identity)
    with workspace.store.open(key, config=_evaluation_config(identity, seed), facts=facts) as run:
        if not run.is_done or video is not None:
            result = evaluate(
                task,
                stored.policy,
                episodes=episodes,
                rng=RngStreams(seed),
                video=video,
                clock=time.perf_counter,
            )
            run.add_seconds(result.seconds or 0.0)
            run.finish({"stage": key.stage, "algorithm": label, **result.to_json(), **facts})
    return run


def open_policy(path: Path) -> StoredPolicy:
    """The policy of a finished training's folder, or of a policy file.

    Raises:
        ConfigError: there is none.
    """
    if path.is_dir():
        path = find_run(path, stage="train_policy").path / POLICY_FILE
    return load_policy(path)


def evaluation_defaults(path: Path) -> EvaluationConfig:
    """What the config of a run says of the judgement of its policy."""
    file = path / "config.yaml"
    return resolve(file).run.evaluation if file.is_file() else EvaluationConfig()


def policy_task(stored: StoredPolicy) -> TaskSpec:
    """The task that a policy was trained for.

    Raises:
        ConfigError: it has no simulator.
    """
    name = stored.facts.get("task")
    if name is None:
        raise ConfigError(
            f"The policy {stored.path} was trained on logs of a task without a simulator, so it cannot be "
            "evaluated in one. Remedy: give --task with a task that has a simulator, if there is one."
        )
    return load_task(str(name))


def _evaluation_config(identity: Mapping[str, Any], seed: int) -> str:
    task, episodes = identity["task"]["name"], identity["episodes"]
    return f"task: {task}\nepisodes: {episodes}\nseed: {seed}\n"


def split_identity(config: DynamicsConfig) -> dict[str, Any]:
    """What decides which episodes are held out, besides the dataset and the seed."""
    return {"fraction": config.holdout_fraction, "gap": config.split_gap}


def manifest_facts(config: RunConfig, dataset: Dataset | None) -> dict[str, Any]:
    """What a manifest says of the data and the machine's use."""
    return {
        "dataset_source": config.dataset,
        "dataset_hash": None if dataset is None else dataset.content_hash,
        "dropped": {} if dataset is None else dict(dataset.dropped),
        "online": dataset is None,
        "device": config.device,
        "threads": config.threads,
    }
