"""Where a training starts from another one's end: its networks, its optimisers, and its unit of rewards."""

import dataclasses
from pathlib import Path
from typing import Any

from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec, StateDict
from mbrl.run.checkpoint import UNUSABLE, CheckpointFolder
from mbrl.run.config import RunConfig, resolve
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import find_run


@dataclasses.dataclass(frozen=True, slots=True)
class WarmStart:
    """The end of a training.

    Attributes:
        path: its folder.
        digest: of its identity.
        state: of its learner after the last update.
        reward_unit: what its learner divided rewards by, reward units: its values are in that unit, so the
            training that goes on keeps it, whatever its own log would say.
    """

    path: Path
    digest: str
    state: StateDict
    reward_unit: float

    def load_into(self, state: Any) -> None:
        """Fills a fresh state.

        Raises:
            ConfigError: its networks are of other sizes.
        """
        try:
            state.load_state_dict(self.state)
        except UNUSABLE as error:
            raise ConfigError(
                f"warm_start={self.path}: its networks do not fit this training ({str(error)[:200]}). "
                "Remedy: the same learner with the same networks; take the config of that run."
            ) from error


def warm_start_digest(config: RunConfig) -> str | None:
    """Digest of the training that a config starts from; None where it starts afresh.

    Raises:
        ConfigError: there is no such training, it has another learner, or updates depend on the length of the
            training, so that there is no way to go on.
    """
    if config.warm_start is None:
        return None
    run = find_run(Path(config.warm_start), stage="train_policy")
    before = resolve(run.path / "config.yaml").run
    ours, theirs = config.algorithm.learner.name, before.algorithm.learner.name
    if ours != theirs:
        raise ConfigError(
            f"warm_start={config.warm_start}: it trained {theirs!r}, and this is {ours!r}. Remedy: the same "
            "learner; its networks and optimisers are what is taken over."
        )
    if config.algorithm.depends_on_length:
        raise ConfigError(
            f"warm_start={config.warm_start}: updates depend on the length of the training (a schedule of "
            "the learning rate, say), and that training is over. Remedy: --set "
            "algorithm.learner.actor_schedule=constant, or what else the learner calls its schedule."
        )
    return str(run.manifest()["hash"])


def open_warm_start(config: RunConfig, space: SpaceSpec, workspace: Workspace) -> WarmStart | None:
    """The training that a config starts from; None where it starts afresh.

    Raises:
        ConfigError: see `warm_start_digest`; or it is for other spaces, or its checkpoints are gone.
    """
    digest = warm_start_digest(config)
    if digest is None or config.warm_start is None:
        return None
    run = find_run(Path(config.warm_start), stage="train_policy")
    theirs = open_policy(run.path, "last").network.spec.space
    if theirs != space:
        raise ConfigError(
            f"warm_start={run.path}: it acts on {theirs}, and the log has {space}. Remedy: a training on a "
            "log of the same machine."
        )
    found = CheckpointFolder(run.path / "checkpoints", digest).load_latest(workspace.progress.message)
    if found is None:
        raise ConfigError(f"warm_start={run.path}: its checkpoints are gone. Remedy: make it again.")
    unit = run.summary().get("reward_unit", 1.0)
    return WarmStart(run.path, digest, found[1]["learner"], float(unit))
