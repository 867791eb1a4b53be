"""The stage that trains a policy: on a log, or (the recipe `online` alone) in a simulator."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.device import on_device
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.formats.limits import show_bytes
from mbrl.data.inspection.rows import find_reward_outliers
from mbrl.data.normaliser import fit_moments
from mbrl.data.returns import LoggedEpisodes
from mbrl.data.rules import logged_termination
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.fit import split_for
from mbrl.envs.specs import TaskSpec, own_task_hash
from mbrl.learners.base import LearnsReward
from mbrl.learners.choice import counterpart_name
from mbrl.nets.normaliser import Normaliser
from mbrl.preferences.files import content_digest
from mbrl.preferences.segments import SegmentPairs
from mbrl.run.config import ResolvedConfig, RunConfig, algorithm_tree, part_names
from mbrl.run.continuation import continue_shorter
from mbrl.run.diagnostics import ShiftMonitor, make_shift_probe
from mbrl.run.fit import dynamics_key, fit_dynamics_stage, for_log
from mbrl.run.inputs import (
    find_run_task,
    load_run_dataset,
    load_run_expert,
    load_run_mixture,
    load_run_preferences,
    manifest_facts,
    mixture_identity,
    reward_identity,
    split_identity,
)
from mbrl.run.judge.along import KeptPolicies, check_selection, select_along, selection_identity
from mbrl.run.judge.continued import Continued
from mbrl.run.judge.warm_start import WarmStart, check_start, open_warm_start
from mbrl.run.loop import LoopOutcome, LoopSettings, train
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import POLICY_FILE, save_policy
from mbrl.run.preferences.recovered import keep_reward
from mbrl.run.preferences.reward import REWARD_FILE
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey, package_version


def train_policy_stage(
    resolved: ResolvedConfig,
    workspace: Workspace,
    *,
    dataset: Dataset | None = None,
    fitted: tuple[FittedDynamics, str] | None = None,
) -> RunFolder:
    """Trains a policy, fitting the dynamics first where the recipe needs them.

    Args:
        resolved: config of the run.
        workspace: where results go.
        dataset: the log, if it is open already; None opens the one that the config names.
        fitted: dynamics to learn from and the digest of their fit's identity; None makes or finds that fit.

    Raises:
        ConfigError: dataset, task and recipe do not go together.
    """
    config, recipe = resolved.run, RECIPES.get(resolved.run.recipe)
    dataset, task = _open_inputs(resolved, workspace, dataset)
    expert, start = load_run_expert(config, dataset, workspace), open_warm_start(config, dataset)
    identity = _identity(config, dataset, task) | selection_identity(config)
    identity |= {} if expert is None else {"expert": expert.content_hash}
    identity |= {} if start is None else {"warm_start": start.identity}
    fit: Callable[[], FittedDynamics] | None = None
    if dataset is not None and recipe.needs_dynamics:
        fit, identity["dynamics"] = _model_source(resolved, dataset, workspace, fitted)
        identity |= reward_identity(config)
    place = dataset.info.name if dataset is not None else f"online-{config.task}"
    key = StageKey("train_policy", place, resolved.name, config.seed, identity)

    def work(work: StageWork) -> Mapping[str, Any]:
        kept = KeptPolicies.of(config, work.path, _policy_facts(resolved, dataset, task, key))
        continue_shorter(config, workspace.store, work, kept)
        context = make_recipe_context(config, dataset, task, None, expert=expert)
        if start is not None:  # before the fit, which takes minutes
            context = check_start(start, config, context)
        context = dataclasses.replace(context, dynamics=None if fit is None else fit())
        _tell_what_matters(config, dataset, context, work)
        work.restart_clock()  # the fit is a stage of its own
        # Made on the host, where the log is; then all that updates and refreshes read moves to its device.
        training = on_device(RECIPES.get(config.recipe).build(config.algorithm, context), workspace.device)
        shift = _make_monitor(config, dataset, context, training, workspace)
        rng = RngStreams(config.seed, workspace.device).child("policy")
        outcome = _run_loop(resolved, training, rng, shift, kept, work, start)
        summary = _conclude(config, training, outcome, shift, kept, work)
        summary = {**summary, **_recover_reward(training, outcome, dataset, work)}
        if dataset is None or not kept.steps:
            return summary
        return {**summary, **select_along(resolved, dataset, kept, work, workspace, fit)}

    stage = Stage(
        key=key,
        config=resolved.to_yaml(),
        facts=manifest_facts(config, dataset),
        work=work,
        results=(POLICY_FILE, REWARD_FILE) if recipe.imitates else (POLICY_FILE,),
    )
    return perform(stage, workspace)


def _open_inputs(
    resolved: ResolvedConfig, workspace: Workspace, dataset: Dataset | None
) -> tuple[Dataset | None, TaskSpec | None]:
    """Log and task of a training; what it would be refused for later is refused here."""
    config, recipe = resolved.run, RECIPES.get(resolved.run.recipe)
    if dataset is None and not recipe.is_online:
        dataset = load_run_dataset(config, workspace)
    if dataset is not None and config.algorithm.reads_rewards:
        dataset.require_rewards(f"The algorithm {resolved.name!r}")
    task = find_run_task(config, dataset)
    check_actions(resolved, dataset, task)
    if dataset is None and (task is None or config.dataset is not None):
        raise ConfigError(
            f"The recipe {config.recipe!r} trains in a simulator: give a task and no dataset "
            "(mbrl train --online TASK)."
        )
    if dataset is not None:
        check_selection(config, dataset)
    return dataset, task


def check_actions(resolved: ResolvedConfig, dataset: Dataset | None, task: TaskSpec | None) -> None:
    """Refuses a method for other actions than those of the log or the task.

    Raises:
        ConfigError: naming the same method for such actions, where one is shipped.
    """
    if dataset is None and task is None:
        return
    space = task.space if dataset is None and task is not None else cast("Dataset", dataset).spec
    name = counterpart_name(resolved.name, space)
    known = name if name != resolved.name and name in part_names("algorithms") else None
    resolved.run.algorithm.learner.check_actions(space, algorithm=known)


def make_recipe_context(
    config: RunConfig,
    dataset: Dataset | None,
    task: TaskSpec | None,
    fit: Callable[[], FittedDynamics] | None,
    *,
    expert: Dataset | None = None,
) -> RecipeContext:
    """What a recipe is built from: the episodes to learn from, their moments, the dynamics, an expert."""
    if dataset is None:
        assert task is not None
        return RecipeContext(task.space, Normaliser.identity(task.obs_dim), task=task)
    part = dataset
    if config.policy_data == "train":
        part = split_for(config.dynamics, dataset, RngStreams(config.seed)).train
    train, answers = part.steps(), load_run_preferences(config, dataset)
    mean, std = fit_moments(train.observation)
    stays = train.stored is not None and train.action_mask is None and RECIPES.get(config.recipe).reads_stored
    return RecipeContext(
        space=dataset.spec,
        normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        transitions=None if stays else train.to_batch(),
        stored=train if stays else None,
        dynamics=None if fit is None else fit(),
        task=task,
        episode=torch.tensor(train.episode),
        whole=LoggedEpisodes.of(part),
        log_termination=logged_termination(dataset.info),
        expert=None if expert is None else expert.transitions().to_batch(),
        preferences=None if answers is None else SegmentPairs.of(dataset, answers),
        mixture=load_run_mixture(config, part, dataset),
    )


def _tell_what_matters(
    config: RunConfig, dataset: Dataset | None, context: RecipeContext, work: StageWork
) -> None:
    """Warns of outliers, and says so where a known rule takes the place of the learned head unasked."""
    _warn_of_outliers(dataset)
    if context.mixture is not None:
        work.progress.message(context.mixture.describe())
    stored = None if dataset is None or context.stored is not None else dataset.steps().stored
    if stored is not None:
        size = show_bytes(stored.rows.nbytes)
        work.progress.message(f"The mapped log is loaded ({size}): {config.recipe} reads whole arrays.")
    if context.dynamics is not None and context.dynamics.known_reward is not None:
        who = "the log's rule" if config.reward == "auto" else "the reward model"
        work.progress.message(f"Imagined steps earn what {who} says (reward=learned: what the fit says).")
    is_open = getattr(config.algorithm, "termination", None) == "auto"
    if is_open and context.known_termination is not None:
        work.progress.message("Imagined episodes end by the known rule of the task.")


def _warn_of_outliers(dataset: Dataset | None) -> None:
    if dataset is None or not dataset.has_rewards:
        return
    outliers = find_reward_outliers(dataset.steps())
    for outlier in outliers[:1]:
        others = "" if len(outliers) == 1 else f" ({len(outliers) - 1} more are like it)"
        warnings.warn(
            f"{outlier.describe()}{others}: values are learned from it all the same, and hardly from the "
            f"others. Remedy: {outlier.remedy}",
            RuntimeWarning,
            stacklevel=2,
        )


def _model_source(
    resolved: ResolvedConfig,
    dataset: Dataset,
    workspace: Workspace,
    fitted: tuple[FittedDynamics, str] | None,
) -> tuple[Callable[[], FittedDynamics], str]:
    """What makes or finds the model when the training begins, and the digest of the model's identity."""
    if fitted is None:
        digest = dynamics_key(resolved.run, dataset).digest
        return lambda: fit_dynamics_stage(resolved, dataset, workspace)[0], digest
    model, digest = for_log(fitted[0], resolved.run, dataset), fitted[1]
    return lambda: model, digest


def _make_monitor(
    config: RunConfig,
    dataset: Dataset | None,
    context: RecipeContext,
    training: Training,
    workspace: Workspace,
) -> ShiftMonitor | None:
    """What looks at the policy along the training; None where nobody asked, or there is no log to leave."""
    if dataset is None or not config.diagnostics:
        return None
    probe = functools.partial(make_shift_probe, config, dataset, context, supports=workspace.supports)
    return ShiftMonitor(functools.partial(probe, value_bounds=training.value_bounds))


def _identity(config: RunConfig, dataset: Dataset | None, task: TaskSpec | None) -> dict[str, Any]:
    """What the policy is a function of, besides the seed and the model."""
    identity: dict[str, Any] = {
        "algorithm": algorithm_tree(config),
        "task": None if task is None else task.model_dump(mode="json"),
    }
    if dataset is not None:
        identity |= {
            "dataset": dataset.content_hash,
            "split": split_identity(config.dynamics),
            "policy_data": config.policy_data,
            **mixture_identity(config, dataset),
        }
        answers = load_run_preferences(config, dataset)
        if answers is not None:  # by content: the path stands in the algorithm's section
            identity["preferences"] = content_digest(answers)
    return identity


def _policy_facts(
    resolved: ResolvedConfig, dataset: Dataset | None, task: TaskSpec | None, key: StageKey
) -> dict[str, Any]:
    """What a policy's file says of where it comes from."""
    config, is_online = resolved.run, RECIPES.get(resolved.run.recipe).is_online
    own_task = None if task is None else own_task_hash(task)
    history = None if dataset is None else dataset.info.history
    return {
        "algorithm": resolved.name,
        "recipe": config.recipe,
        "learner": config.algorithm.learner.name,
        "online": is_online,
        "dataset": None if is_online else key.dataset,
        "task": None if task is None else task.name,
        **({} if own_task is None else {"task_hash": own_task}),
        "seed": config.seed,
        "run": key.digest,
        **({} if history is None else {"history": dataclasses.asdict(history)}),
        "version": package_version(),
    }


def _run_loop(
    resolved: ResolvedConfig,
    training: Training,
    rng: RngStreams,
    shift: ShiftMonitor | None,
    kept: KeptPolicies,
    work: StageWork,
    start: WarmStart | Continued | None,
) -> LoopOutcome:
    config, learner = resolved.run, training.learner

    def on_start(state: Any) -> None:
        if start is not None:
            start.fill(state, config, reward_unit=training.reward_unit, progress=work.progress)
            kept.keep(0, lambda: learner.policy(state))

    def on_checkpoint(step: int, state: Any, _seconds: float) -> None:
        work.note_seconds()
        if config.keep_policies:
            path = work.path / "policies" / f"step-{step:09d}.safetensors"
            save_policy(path, learner.policy(state), {**kept.facts, "updates": step})

    return train(
        training,
        folder=work.path,
        rng=rng,
        settings=LoopSettings(
            updates=config.algorithm.updates,
            log_interval=config.log_interval,
            checkpoint_interval=config.checkpoint_interval,
            on_divergence=config.on_divergence,
            config_hash=work.key.digest,
        ),
        progress=work.progress,
        diagnostics=shift,
        on_start=on_start,
        on_checkpoint=on_checkpoint,
        on_update=lambda step, state: kept.keep(step, lambda: learner.policy(state)),
    )


def _recover_reward(
    training: Training, outcome: LoopOutcome, dataset: Dataset | None, work: StageWork
) -> Mapping[str, Any]:
    """Stores the reward that a learner has recovered, if it is one that does; an entry of the summary."""
    if dataset is None or not isinstance(training.learner, LearnsReward):
        return {}
    reward = training.learner.reward_model(outcome.state)
    return {"recovered_reward": keep_reward(work.path, reward, dataset).model_dump(mode="json")}


def _conclude(
    config: RunConfig,
    training: Training,
    outcome: LoopOutcome,
    shift: ShiftMonitor | None,
    kept: KeptPolicies,
    work: StageWork,
) -> Mapping[str, Any]:
    """Stores the last policy; returns the summary."""
    facts = {**kept.facts, "updates": config.algorithm.updates}
    last = training.learner.policy(outcome.state)
    kept.keep(config.algorithm.updates, lambda: last)  # a lost file of it is made again
    if not kept.steps:
        save_policy(work.path / POLICY_FILE, last, facts)
    rows = [row for row in read_metrics(work.path) if "event" not in row]
    return {
        **facts,
        "last_metrics": rows[-1] if rows else {},
        "divergence": outcome.excursions,
        "shift": None if shift is None else shift.report,
        "value_bounds": training.value_bounds,
        "reward_unit": training.reward_unit,
        "seconds": work.note_seconds(),
    }
