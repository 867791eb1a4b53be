"""The graph of every kind of policy does what torch does, one row or many, with and without history."""

from typing import Any

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.deploy.networks import write_policy
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.bundle.parity import run_graph
from tests.deploy.bundles import make_actor, make_bcq

pytest.importorskip("onnxruntime")

KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "deterministic"},
    {"kind": "deterministic", "layer_norm": True, "activation": "silu"},
    {"kind": "deterministic", "activation": "tanh"},
    {"kind": "tanh_gaussian"},
    {"kind": "clipped_gaussian"},
    {"kind": "mixture", "components": 3},
)


def rows(policy: PolicyNetwork, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3.0 * torch.randn(count, policy.spec.space.obs_dim, generator=generator)


def difference(policy: PolicyNetwork, obs: torch.Tensor, *, history: int = 1, draws: bool = False) -> float:
    content = write_policy(policy, history=history, stochastic=draws).to_bytes({"a": "b"})
    feed = {"frames": obs.numpy().reshape(len(obs), history, -1)}
    noise = None
    if draws:
        noise = torch.randn(len(obs), policy.act_dim, generator=torch.Generator().manual_seed(2))
        feed["noise"] = noise.numpy()
    found = run_graph(content, feed)["action"]
    assert found.shape == (len(obs), policy.act_dim)
    return float(np.abs(found - policy.act(obs, noise).numpy()).max())


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: "-".join(map(str, spec.values())))
@pytest.mark.parametrize("count", [1, 300])
def test_the_evaluation_action_is_that_of_torch(spec: dict[str, Any], count: int) -> None:
    policy = make_actor(**spec)
    obs = rows(policy, count)
    assert policy.act(obs).std() > 0.05 or count == 1  # a constant would hide every mistake
    assert difference(policy, obs) < 1e-5


@pytest.mark.parametrize("kind", ["tanh_gaussian", "clipped_gaussian"])
def test_draws_are_those_of_torch_for_the_same_noise(kind: Any) -> None:
    policy = make_actor(kind)
    assert difference(policy, rows(policy, 200), draws=True) < 1e-5


def test_bcq_takes_the_same_candidate() -> None:
    policy = make_bcq()
    assert difference(policy, rows(policy, 50)) < 1e-5


def test_frames_are_stacked_inside_the_graph_the_latest_first() -> None:
    policy = make_actor(obs_dim=6)
    assert difference(policy, rows(policy, 20), history=3) < 1e-5


@pytest.mark.parametrize("policy", [make_actor(), make_actor("mixture", components=2), make_bcq()])
def test_what_has_no_draws_says_so(policy: PolicyNetwork) -> None:
    with pytest.raises(ConfigError, match="without"):
        write_policy(policy, history=1, stochastic=True)


def test_equal_policies_are_equal_files() -> None:
    first, second = (write_policy(make_actor(), history=1, stochastic=False) for _ in range(2))
    assert first.to_bytes({}) == second.to_bytes({})
