"""A training that begins with actor and critics of another, whose policy is judged beside its own.

The policy that a training starts from is the first of those among which its result is chosen. So the result
is never below the start by the rule that chooses.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.progress import Progress, SilentProgress
from mbrl.data.dataset import Dataset
from mbrl.nets.actors import Actor
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import RunConfig, resolve
from mbrl.run.judge.continued import Continued, open_continued
from mbrl.run.policies import StoredPolicy, open_policy
from mbrl.run.records import TrainingSummary
from mbrl.run.store import RunFolder, find_run

_ACTORS: Final = ("actor", "target_actor")
_CRITICS: Final = ("critic", "target_critic", "state_value")
"""Fields of learners' states that mean the same in all of them."""

_UNIT_TOLERANCE: Final = 1e-6
_ACTOR_FIELDS: Final = ("kind", "hidden", "activation", "layer_norm", "components")


@dataclasses.dataclass(frozen=True, slots=True)
class WarmStart:
    """A finished training that another one begins with.

    Attributes:
        run: its folder.
        digest: of its identity.
        config: of it.
        stored: its result.
    """

    run: RunFolder
    digest: str
    config: RunConfig
    stored: StoredPolicy

    @property
    def identity(self) -> dict[str, str]:
        """What it does, wherever it lies."""
        return {"run": self.digest, "policy": self.stored.content}

    @property
    def known_reward_unit(self) -> None:
        """The training that begins has its own; critics are refused where it is another one."""
        return None

    def fill(self, state: Any, config: RunConfig, *, reward_unit: float, progress: Progress) -> None:
        """Puts actor and critics into a fresh state, targets among them; optimisers begin anew.

        The actor is that of the result, also where an earlier policy than the last was selected; critics are
        those of the last update.

        Args:
            state: of the learner that `config` names.
            config: of the training that begins.
            reward_unit: in which its learner sees rewards, reward units.
            progress: told what was taken over.

        Raises:
            ConfigError: the networks, the discount or the unit of rewards differ; there is no actor, or no
                checkpoint.
        """
        self._fill_actor(state, config)
        critics = {name: getattr(state, name) for name in _CRITICS if hasattr(state, name)}
        found: Mapping[str, Mapping[str, Tensor]] = self._stored_critics() if critics else {}
        taken = [name for name in critics if name in found]
        if taken:
            self._check_values(config, reward_unit)
        for name in taken:
            self._load(critics[name], found[name], name)
        parts = "actor and critics" if taken else "the actor; critics begin anew" if critics else "the actor"
        progress.message(f"Starts from {self.run.path} ({self.stored.title}): {parts}.")

    def _fill_actor(self, state: Any, config: RunConfig) -> None:
        actor, theirs = getattr(state, "actor", None), self.stored.policy
        learner = config.algorithm.learner.name
        if not isinstance(actor, Actor):
            raise ConfigError(
                f"warm_start={self.run.path}: the learner {learner!r} of {config.recipe!r} has no actor to "
                "begin with. Remedy: td3_bc, rebrac, sac, cql, iql or awac; or no warm_start."
            )
        if not isinstance(theirs, Actor):
            raise ConfigError(
                f"warm_start={self.run.path}: its policy ({self.stored.label}) is no single network, and "
                f"none that {learner!r} could improve. Remedy: start from a training of td3_bc, iql, bc or "
                "another learner with an actor."
            )
        other = [name for name in _ACTOR_FIELDS if getattr(actor.spec, name) != getattr(theirs.spec, name)]
        if other:
            raise ConfigError(
                f"warm_start={self.run.path}: its actor has {_describe(theirs, other)}, that of {learner!r} "
                f"{_describe(actor, other)}. {_remedy(actor, theirs, other)}"
            )
        for name in _ACTORS:
            if hasattr(state, name):
                getattr(state, name).load_state_dict(theirs.state_dict())

    def _stored_critics(self) -> Mapping[str, Mapping[str, Tensor]]:
        """States of the networks of the start's last update, by field."""
        folder = CheckpointFolder(self.run.path / "checkpoints", self.digest)
        told: list[str] = []
        latest = folder.load_latest(told.append)
        if latest is None:
            raise ConfigError(
                f"warm_start={self.run.path}: its checkpoints are gone{'; ' + told[0] if told else ''}. "
                "Remedy: train it again, or name another training."
            )
        learner: Mapping[str, Any] = latest[1]["learner"]
        return {name: learner[name] for name in _CRITICS if isinstance(learner.get(name), Mapping)}

    def _check_values(self, config: RunConfig, reward_unit: float) -> None:
        """Values of critics mean the same in both trainings."""
        mine, theirs = (run.algorithm.learner.config.discount for run in (config, self.config))
        if mine != theirs:
            raise ConfigError(
                f"warm_start={self.run.path}: its critics discount by {theirs:g}, this training by {mine:g}. "
                f"Remedy: algorithm.learner.discount={theirs:g}, or a start that was trained with {mine:g}."
            )
        unit = float(self.run.summary(TrainingSummary).get("reward_unit", 1.0))
        if not math.isclose(unit, reward_unit, rel_tol=_UNIT_TOLERANCE):
            raise ConfigError(
                f"warm_start={self.run.path}: its critics count in units of {unit:.4g}, this training in "
                f"units of {reward_unit:.4g}. Remedy: the same log for both, and algorithm.reward_transform="
                f"{self.config.algorithm.reward_transform}."
            )

    def _load(self, module: nn.Module, stored: Mapping[str, Tensor], name: str) -> None:
        sizes = {key: list(value.shape) for key, value in module.state_dict().items()}
        found = {key: list(value.shape) for key, value in stored.items()}
        if sizes != found:
            key = next(key for key in {**sizes, **found} if sizes.get(key) != found.get(key))
            raise ConfigError(
                f"warm_start={self.run.path}: {name}.{key} is {found.get(key)} there and {sizes.get(key)} "
                f"here. Remedy: the settings of its learner {_critic_settings(self.config)}; or a start "
                "without critics, such as bc."
            )
        module.load_state_dict(dict(stored))


def check_start(start: WarmStart | Continued, config: RunConfig, context: RecipeContext) -> RecipeContext:
    """Fills a state that nobody needs: whatever `fill` would refuse is refused before anything is fitted.

    Args:
        start: what the training begins with, or goes on from.
        config: of the training that begins.
        context: of its recipe; the dynamics may be missing.

    Returns:
        The context with what the start fixes of it.

    Raises:
        ConfigError: see `fill`.
    """
    context = dataclasses.replace(context, known_reward_unit=start.known_reward_unit)
    learner = config.algorithm.learner.build(context.for_learner(config.algorithm))
    state = learner.init(torch.Generator().manual_seed(0))
    unit = context.reward_unit(config.algorithm)
    start.fill(state, config, reward_unit=unit, progress=SilentProgress())
    return context


def open_warm_start(config: RunConfig, dataset: Dataset | None) -> WarmStart | Continued | None:
    """The training that a config begins with, or goes on from; None where it starts afresh.

    Raises:
        ConfigError: there is no such finished training, two are named, it is for other observations or
            actions, or the recipe trains in a simulator.
    """
    named = [name for name in (config.warm_start, config.continue_from) if name is not None]
    if not named:
        return None
    if len(named) == 2:
        raise ConfigError("A training begins with one other. Remedy: warm_start or continue_from, not both.")
    path = Path(named[0]).expanduser()
    if config.continue_from is not None and dataset is not None:
        return open_continued(config, dataset, path)
    if dataset is None or RECIPES.get(config.recipe).is_online:
        raise ConfigError(
            f"warm_start={path}: {config.recipe!r} trains in a simulator, where nothing is judged "
            "against the start. Remedy: no warm_start, or an algorithm that learns from a log."
        )
    run = find_run(path, stage="train_policy")
    stored = open_policy(path)
    space, history = stored.network.spec.space, stored.history
    if space != dataset.spec or history != dataset.info.history:
        raise ConfigError(
            f"warm_start={path}: its policy reads {space.obs_dim} numbers and acts with {space.act_dim} in "
            f"{list(space.act_low)} to {list(space.act_high)}; the log {dataset.info.name!r} has "
            f"{dataset.spec.obs_dim} and {dataset.spec.act_dim} in {list(dataset.spec.act_low)} to "
            f"{list(dataset.spec.act_high)}. Remedy: a training on this log, with the same history."
        )
    return WarmStart(run, str(run.manifest()["hash"]), resolve(path / "config.yaml").run, stored)


def _describe(actor: Actor, names: list[str]) -> str:
    return ", ".join(f"{name}={_plain(getattr(actor.spec, name))}" for name in names)


def _remedy(actor: Actor, theirs: Actor, names: list[str]) -> str:
    if "kind" in names:
        makers = {
            "deterministic": "td3_bc, rebrac or bc",
            "tanh_gaussian": "cql, sac_n, edac or bc_gaussian",
            "clipped_gaussian": "iql or awac",
            "mixture": "bc with form=mixture",
        }
        return f"Remedy: a start that was trained by {makers[actor.spec.kind]}."
    return f"Remedy: algorithm.learner.hidden={_plain(theirs.spec.hidden)}, or a start of these widths."


def _critic_settings(config: RunConfig) -> str:
    learner = config.algorithm.learner
    values = learner.config.model_dump(mode="json")
    known = [name for name in ("hidden", "critics", "critic_layer_norm") if name in values]
    return f"{learner.name!r} ({', '.join(f'{name}={values[name]}' for name in known)})"


def _plain(value: Any) -> Any:
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
