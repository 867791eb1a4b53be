import dataclasses
from pathlib import Path

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.nets.actors import Actor, ActorKind, ActorSpec, build_actor
from mbrl.nets.generative.bcq import BCQKind, BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.random_policy import RandomPolicy
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.policies import load_policy, save_policy
from tests.run.toy import SPACE


def make_bcq() -> BCQPolicy:
    sizes = {"hidden": (8, 4), "vae_hidden": (8,), "latent_dim": 3}
    spec = BCQSpec("bcq", SPACE, **sizes, perturbation=0.1, candidates=9)  # pyright: ignore[reportArgumentType]
    return BCQPolicy(spec, make_actor("deterministic").normaliser, torch.Generator().manual_seed(3))


def make_actor(kind: ActorKind) -> Actor:
    normaliser = Normaliser(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 2.0, 1.5]))
    spec = ActorSpec(kind, SPACE, (8, 4), activation="tanh", layer_norm=True, components=3)
    return build_actor(spec, normaliser, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["deterministic", "tanh_gaussian", "mixture", "bcq"])
def test_a_stored_policy_acts_bit_for_bit_as_before(kind: ActorKind | BCQKind, tmp_path: Path) -> None:
    actor = make_bcq() if kind == "bcq" else make_actor(kind)
    path = save_policy(tmp_path / "deep" / "p.safetensors", actor, {"task": "x", "seed": 3})
    stored = load_policy(path)
    generator = torch.Generator().manual_seed(0)
    obs, noise = torch.randn(16, 3, generator=generator), torch.randn(16, 2, generator=generator)
    assert torch.equal(stored.policy.act(obs), actor.act(obs))
    assert torch.equal(stored.policy.act(obs, noise), actor.act(obs, noise))
    assert stored.policy.spec == actor.spec
    assert stored.facts == {"task": "x", "seed": 3}
    assert not any(parameter.requires_grad for parameter in stored.policy.parameters())


def test_a_random_policy_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RandomPolicy cannot be saved"):
        save_policy(tmp_path / "p.safetensors", RandomPolicy(SPACE), {})


def test_what_is_not_a_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_policy(tmp_path / "absent.safetensors")
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"hello, world")
    with pytest.raises(ConfigError, match="not a policy file of mbrl, or it is damaged"):
        load_policy(path)
    save_policy(path, make_actor("deterministic"), {})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ConfigError, match="damaged"):
        load_policy(path)
    save_artifact(path, {"x": torch.ones(1)}, {"y": 1}, version=1)
    with pytest.raises(ConfigError, match="holds no policy"):
        load_policy(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = save_artifact(tmp_path / "a.safetensors", {"x": torch.ones(1)}, {"y": [1]}, version=2)
    assert load_artifact(path, version=2, what="toy").header == {"y": [1]}
    with pytest.raises(ConfigError, match="format version 2; this version of mbrl reads version 1"):
        load_artifact(path, version=1, what="toy")


def test_a_spec_survives_json() -> None:
    spec = make_actor("mixture").spec
    assert ActorSpec.from_json(spec.to_json()) == spec
    assert dataclasses.replace(spec, hidden=(1,)) != spec
