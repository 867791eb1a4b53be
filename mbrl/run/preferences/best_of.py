"""Best-of-N policies of stored parts: who draws, and what ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.nets.actors import Actor
from mbrl.nets.best_of import DRAWING, BestOfPolicy
from mbrl.nets.critics import CriticEnsemble
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import resolve
from mbrl.run.inputs import find_run_task, load_run_dataset
from mbrl.run.policies import StoredPolicy
from mbrl.run.preferences.reward import open_reward
from mbrl.run.stage import Workspace
from mbrl.run.store import find_run
from mbrl.run.train import make_recipe_context


def drawing_actor(stored: StoredPolicy) -> Actor:
    """The policy of a file as one that draws.

    Raises:
        ConfigError: it has no density to draw from.
    """
    policy = stored.policy
    if not isinstance(policy, Actor) or policy.spec.kind not in DRAWING:
        raise ConfigError(
            f"The policy {stored.source} has no density to draw from. Remedy: name one that has, such as "
            "--algorithm bc --set algorithm.learner.form=gaussian."
        )
    return policy


def best_by_reward(
    stored: StoredPolicy, reward: Path, *, candidates: int, pessimism: float
) -> tuple[BestOfPolicy, Mapping[str, Any]]:
    """N draws ranked by a reward model, the reward of the step at hand; and what a file says of it.

    Raises:
        ConfigError: the policy draws nothing, the model does not tell actions apart, or the sizes differ.
    """
    actor, found = drawing_actor(stored), open_reward(reward)
    model = found.model
    if model.spec.reads == "states" or model.spec.unit == "probability":
        raise ConfigError(
            f"The reward model {reward} cannot rank the actions of a state: it reads states alone, or gives "
            "probabilities. Remedy: relabel the log with it and rank by the critics of a training on that "
            "(--critic RUN), or fit it with --set reads=steps --set unit=log_odds."
        )
    _check_space(actor, model.body, str(reward))
    policy = BestOfPolicy.of(
        actor,
        model.body,
        candidates=candidates,
        pessimism=pessimism,
        offset=model.offset,
        scale=model.scale,
    )
    return policy, _facts(stored, policy, f"reward model {found.content}")


def best_by_critic(
    stored: StoredPolicy, run: Path, workspace: Workspace, *, candidates: int, pessimism: float
) -> tuple[BestOfPolicy, Mapping[str, Any]]:
    """N draws ranked by the critics of a training's last update; and what a file says of it.

    Raises:
        ConfigError: the policy draws nothing, the training keeps no critics, or the sizes differ.
    """
    actor = drawing_actor(stored)
    critic, digest = open_critics(run, workspace)
    _check_space(actor, critic, str(run))
    policy = BestOfPolicy.of(actor, critic, candidates=candidates, pessimism=pessimism)
    return policy, _facts(stored, policy, f"critics of the training {digest}")


def open_critics(path: Path, workspace: Workspace) -> tuple[CriticEnsemble, str]:
    """The critics of a training's last update, and the digest of the training.

    Raises:
        ConfigError: the learner keeps none, or the checkpoint is gone.
    """
    run = find_run(path, stage="train_policy")
    config = resolve(run.path / "config.yaml").run
    recipe, digest = RECIPES.get(config.recipe), str(run.manifest()["hash"])
    remedy = "Remedy: name a training of iql, td3_bc, cql or another learner with critics."
    if recipe.is_online:
        raise ConfigError(f"{path} was trained in a simulator: there is no log to open it by. {remedy}")
    dataset = load_run_dataset(config, workspace)
    context = make_recipe_context(config, dataset, find_run_task(config, dataset), None)
    learner = recipe.make_learner(config.algorithm, context)
    state = learner.init(RngStreams(config.seed).child("policy").at("init"))
    latest = CheckpointFolder(run.path / "checkpoints", digest).load_latest(
        workspace.progress.message, accept=lambda content: state.load_state_dict(content["learner"])
    )
    critic = getattr(state, "critic", None)
    if latest is None or not isinstance(critic, CriticEnsemble):
        raise ConfigError(f"{path} keeps no critics, or its checkpoint is gone. {remedy}")
    return critic, digest


def _check_space(actor: Actor, ranker: CriticEnsemble, source: str) -> None:
    space = actor.spec.space
    if ranker.net.in_dim != space.obs_dim + space.act_dim:
        raise ConfigError(
            f"{source} ranks states and actions of {ranker.net.in_dim} numbers in all, the policy has "
            f"{space.obs_dim} and {space.act_dim}. Remedy: name parts of one log."
        )


def _facts(stored: StoredPolicy, policy: BestOfPolicy, ranked_by: str) -> Mapping[str, Any]:
    kept = {k: v for k, v in stored.facts.items() if k not in {"run", "recipe", "learner", "updates"}}
    return {
        **kept,
        "algorithm": f"{stored.label}-best-of-{policy.spec.candidates}",
        "behaviour": stored.content,
        "ranked_by": ranked_by,
    }
