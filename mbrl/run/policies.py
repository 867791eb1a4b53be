"""A policy as one file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.bcq import BCQ_KIND, BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.store import find_run

FORMAT_VERSION: Final = 1
POLICY_FILE: Final = "policy.safetensors"
"""Name of a training's result in its folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy read from a file.

    Attributes:
        policy: rebuilt, without gradients.
        facts: what was said when it was saved: task, algorithm, seed, dataset, version.
        path: the file.
    """

    policy: PolicyNetwork
    facts: Mapping[str, Any]
    path: Path


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
        ConfigError: there is no such file, or it is no policy of this package.
    """
    header, tensors = load_artifact(path, version=FORMAT_VERSION, what="policy")
    if "actor" not in header:
        raise ConfigError(f"{path} holds no policy; its header has the entries {', '.join(header)}.")
    policy = _rebuild(header["actor"])
    policy.load_state_dict(tensors)
    return StoredPolicy(policy.requires_grad_(requires_grad=False), header["facts"], path)


def open_policy(path: Path) -> StoredPolicy:
    """The policy of a finished training's folder, or of a policy file.

    Raises:
        ConfigError: there is none.
    """
    if path.is_dir():
        path = find_run(path, stage="train_policy").path / POLICY_FILE
    return load_policy(path)


def _rebuild(fields: dict[str, Any]) -> PolicyNetwork:
    """A network of the described form; its weights and statistics are the file's to replace."""
    normaliser = Normaliser.identity(fields["space"]["obs_dim"])
    generator = torch.Generator().manual_seed(0)
    if fields["kind"] == BCQ_KIND:
        return BCQPolicy(BCQSpec.from_json(fields), normaliser, generator)
    return build_actor(ActorSpec.from_json(fields), normaliser, generator)
