"""A policy as one file."""

import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter

from mbrl.core.errors import ConfigError
from mbrl.core.history import History, resting_action
from mbrl.core.protocols import Policy
from mbrl.core.types import SpaceSpec
from mbrl.envs.history import HistoryPolicy
from mbrl.nets.actors import ActorSpec, actor_class
from mbrl.nets.best_of import DRAWING, BestOfPolicy, BestOfSpec
from mbrl.nets.categorical import CategoricalSpec, categorical_class
from mbrl.nets.generative.bcq import BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.files import is_folder
from mbrl.run.store import find_run

FORMAT_VERSION: Final = 1
POLICY_FILE: Final = "policy.safetensors"
"""Name of a training's result in its folder."""

LAST_POLICY_FILE: Final = "policy-last.safetensors"
"""Name of its last policy, where another one was selected from those along its way."""


_Text: TypeAlias = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A name that may stand in a table and in the name of a folder."""

Which: TypeAlias = Literal["selected", "last"]

_Number: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


_HISTORY: Final = TypeAdapter[History | None](History | None)


AnySpec: TypeAlias = ActorSpec | BCQSpec | BestOfSpec | CategoricalSpec


class _AnySpec(RootModel[Annotated[AnySpec, Field(discriminator="kind")]]):
    """The description of a network, of the class that its kind names."""


class PolicyFacts(BaseModel):
    """What a policy's file says of where it comes from; entries of others are kept as they are.

    Attributes:
        algorithm: that made it.
        recipe: of that algorithm.
        learner: of that algorithm.
        online: whether it was trained in a simulator.
        dataset: that it learned from.
        task: that it was trained for, by name.
        task_hash: of that task, if it is not one of the shipped.
        seed: of its training.
        updates: of its learner.
        run: digest of its training.
        history: past frames and actions that its observations hold; None for single frames.
        version: of this package.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    algorithm: _Text | None = None
    recipe: _Text | None = None
    learner: _Text | None = None
    online: bool | None = None
    dataset: _Text | None = None
    task: _Text | None = None
    task_hash: _Text | None = None
    seed: _Number = 0
    updates: _Number | None = None
    run: _Text | None = None
    history: History | None = None
    version: _Text | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy with what is known of it: read from a file, or handed over in memory.

    Attributes:
        policy: acts; a network is rebuilt without gradients.
        facts: what was said when it was saved: task, algorithm, seed, dataset, version.
        content: identity of what it does: hash of the file, or a token of its own for one without a file,
            which no later process finds again.
        path: the file, or None.
        training: folder of the training whose result it is, or None.
    """

    policy: Policy
    facts: Mapping[str, Any]
    content: str
    path: Path | None = None
    training: Path | None = None

    @classmethod
    def in_memory(cls, policy: Policy, *, name: str) -> "StoredPolicy":
        """A policy that no file holds, such as a function of the user's.

        Args:
            policy: acts.
            name: for folders and tables.
        """
        return cls(policy, {"algorithm": name}, f"memory:{uuid.uuid4().hex}")

    @property
    def network(self) -> PolicyNetwork:
        """The policy as the network that a file holds.

        Raises:
            ConfigError: no file holds it.
        """
        if not isinstance(self.policy, PolicyNetwork):
            raise ConfigError(
                f"{self.source} is no policy network. Remedy: name a training or a policy file."
            )
        return self.policy

    @property
    def history(self) -> History | None:
        """Past frames and actions that its observations hold; None for single frames."""
        return _HISTORY.validate_python(self.facts.get("history"))

    def on_frames(self, space: SpaceSpec) -> Policy:
        """The policy as it acts on a machine or in a simulator, where one frame comes at a time.

        Args:
            space: of single frames.

        Raises:
            ConfigError: its observations are not made of such frames.
        """
        history = self.history
        if history is None:
            return self.policy
        size = history.obs_dim(space.obs_dim, space.act_dim)
        if isinstance(self.policy, PolicyNetwork) and self.policy.spec.space.obs_dim != size:
            raise ConfigError(
                f"The policy {self.source} reads {self.policy.spec.space.obs_dim} numbers; {history.frames} "
                f"frames of {space.obs_dim} with {history.actions} actions of {space.act_dim} are {size}. "
                "Remedy: name the task that it was made for."
            )
        return HistoryPolicy(self.policy, history, resting_action(space))

    @property
    def label(self) -> str:
        """What made it, for people: the algorithm, else the file's name."""
        return str(self.facts.get("algorithm") or (self.path.stem if self.path is not None else "policy"))

    @property
    def seed(self) -> int:
        """Of its training; 0 where none is known."""
        return int(self.facts.get("seed", 0))

    @property
    def title(self) -> str:
        """The label with the seed of its training, which tells trainings of one algorithm apart."""
        return f"{self.label}-s{self.seed}" if self.path is not None else self.label

    @property
    def source(self) -> str:
        """Where it comes from, for messages and manifests."""
        return self.label if self.path is None else str(self.path)


def save_policy(path: Path, policy: Policy, facts: Mapping[str, Any]) -> Path:
    """Writes `policy` and `facts`; the file appears whole or not at all.

    Args:
        path: ends in `.safetensors`.
        policy: a policy network.
        facts: plain values.

    Raises:
        ConfigError: the policy is not a network of this package.
    """
    if not isinstance(policy, PolicyNetwork):
        raise ConfigError(f"A {type(policy).__name__} cannot be saved: only policy networks can.")
    header = {"actor": policy.spec.to_json(), "facts": dict(facts)}
    return save_artifact(path, policy.state_dict(), header, version=FORMAT_VERSION)


def load_policy(path: Path) -> StoredPolicy:
    """Reads a policy file.

    Raises:
        FileError: there is no such file, or it is no policy of this package.
    """
    artifact = load_artifact(path, version=FORMAT_VERSION, what="policy")
    spec = artifact.entry("actor", _AnySpec).root
    if isinstance(spec, BestOfSpec) and (
        spec.behaviour.kind not in DRAWING or spec.behaviour.space != spec.space
    ):
        raise artifact.error("the behaviour draws nothing, or acts in another space", field="actor.behaviour")
    shapes = _network_class(spec).tensor_shapes(spec)
    artifact.check_shapes(shapes)
    artifact.check_positive(name for name in shapes if name.endswith(("normaliser.std", "rank_scale")))
    artifact.entry("facts", PolicyFacts)
    policy = _rebuild(spec)
    policy.load_state_dict(dict(artifact.tensors))
    return StoredPolicy(
        policy.requires_grad_(requires_grad=False), artifact.header["facts"], artifact.content, path
    )


def open_policy(path: Path, which: Which = "selected") -> StoredPolicy:
    """The policy of a finished training's folder, or of a policy file.

    Args:
        path: folder or file.
        which: of a training: its result, or the policy of its last update. They are one where nothing was
            selected.

    Raises:
        ConfigError: there is none.
    """
    if not is_folder(path):
        return load_policy(path)
    training = find_run(path, stage="train_policy").path
    last = training / LAST_POLICY_FILE
    file = last if which == "last" and last.is_file() else training / POLICY_FILE
    return dataclasses.replace(load_policy(file), training=training)


def _network_class(spec: AnySpec) -> Any:
    if isinstance(spec, BCQSpec):
        return BCQPolicy
    if isinstance(spec, BestOfSpec):
        return BestOfPolicy
    return categorical_class(spec.kind) if isinstance(spec, CategoricalSpec) else actor_class(spec.kind)


def _rebuild(spec: AnySpec) -> PolicyNetwork:
    """A network of the described form; its weights and statistics are the file's to replace."""
    normaliser = Normaliser.identity(spec.space.obs_dim)
    return _network_class(spec)(spec, normaliser, torch.Generator().manual_seed(0))
