"""A training that goes on with the whole learner of another: networks, optimisers, unit of rewards.

`warm_start` takes what learners have in common, and begins the rest anew; this takes everything, of the same
learner, as a training on the next version of its log needs it.
"""

import dataclasses
from pathlib import Path
from typing import Any

from mbrl.core.errors import ConfigError
from mbrl.core.progress import Progress
from mbrl.data.dataset import Dataset
from mbrl.run.checkpoint import UNUSABLE, CheckpointFolder
from mbrl.run.config import RunConfig, resolve
from mbrl.run.policies import open_policy
from mbrl.run.store import RunFolder, find_run


@dataclasses.dataclass(frozen=True, slots=True)
class Continued:
    """A finished training whose learner goes on.

    Attributes:
        run: its folder.
        digest: of its identity.
        known_reward_unit: what its learner divided rewards by, reward units: its values are in that unit, so
            it stays, whatever the new log would say.
    """

    run: RunFolder
    digest: str
    known_reward_unit: float

    @property
    def identity(self) -> dict[str, str]:
        """What it does, wherever it lies."""
        return {"continued": self.digest}

    def fill(self, state: Any, config: RunConfig, *, reward_unit: float, progress: Progress) -> None:
        """Puts everything that the learner had after its last update into a fresh state.

        Args:
            state: of the same learner.
            config: of the training that begins.
            reward_unit: in which its learner sees rewards; that of the other training.
            progress: told what was taken over.

        Raises:
            ConfigError: the networks are of other sizes, or the checkpoints are gone.
        """
        del config
        assert reward_unit == self.known_reward_unit
        found = CheckpointFolder(self.run.path / "checkpoints", self.digest).load_latest(progress.message)
        if found is None:
            raise ConfigError(
                f"continue_from={self.run.path}: its checkpoints are gone. Remedy: make it again."
            )
        try:
            state.load_state_dict(found[1]["learner"])
        except UNUSABLE as error:
            raise ConfigError(
                f"continue_from={self.run.path}: its networks do not fit this training "
                f"({str(error)[:200]}). Remedy: the same learner with the same networks; take the config of "
                "that run."
            ) from error
        progress.message(f"Goes on from {self.run.path}: networks and optimisers.")


def open_continued(config: RunConfig, dataset: Dataset, path: Path) -> Continued:
    """The training that goes on.

    Args:
        config: of the training that begins.
        dataset: its log.
        path: folder of the other one.

    Raises:
        ConfigError: there is no such training, it had another learner or other spaces, or updates depend on
            the length of the training, so that there is no way to go on.
    """
    run = find_run(path, stage="train_policy")
    before = resolve(run.path / "config.yaml").run
    ours, theirs = config.algorithm.learner.name, before.algorithm.learner.name
    if ours != theirs:
        raise ConfigError(
            f"continue_from={path}: it trained {theirs!r}, and this is {ours!r}. Remedy: the same learner, "
            "or warm_start, which takes over what learners have in common."
        )
    if config.algorithm.depends_on_length:
        raise ConfigError(
            f"continue_from={path}: updates depend on the length of the training (a schedule of the "
            "learning rate, say), and that training is over. Remedy: --set "
            "algorithm.learner.actor_schedule=constant, or what else the learner calls its schedule."
        )
    stored = open_policy(run.path, "last")
    space = stored.network.spec.space
    if space != dataset.spec or stored.history != dataset.info.history:
        raise ConfigError(
            f"continue_from={path}: it acts on {space}, and the log has {dataset.spec}. Remedy: a log of the "
            "same machine, with the same history."
        )
    return Continued(run, str(run.manifest()["hash"]), float(run.summary().get("reward_unit", 1.0)))
