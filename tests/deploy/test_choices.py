"""Policies over choices without torch: graphs, masks, ids, draws."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.api.policy import Policy
from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.deploy.choices import MASK, PROBABILITIES, choices_difference, sample_masks
from mbrl.deploy.networks import ACTION, FRAMES, write_policy
from mbrl.nets.categorical import CategoricalKind, CategoricalPolicy, CategoricalSpec, categorical_class
from mbrl.nets.normaliser import Normaliser
from mbrl.run.bundle.open import check_bundle
from mbrl.run.bundle.parity import run_graph
from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle
from mbrl.run.policies import StoredPolicy
from mbrl.testing.samples import CHOICES, make_dataset
from tests.deploy.bundles import SMALL_GUARD, stored

pytest.importorskip("onnxruntime")
from mbrl.deploy.runtime import Controller

ORDINARY = np.array([0.1, -0.2, 0.15], np.float32)


def make_policy(kind: CategoricalKind = "softmax", *, epsilon: float = 0.0, **spec) -> CategoricalPolicy:
    """Random weights that are far enough from 0 for choices to differ."""
    generator = torch.Generator().manual_seed(3)
    normaliser = Normaliser(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0]))
    described = CategoricalSpec(kind, CHOICES, **{"hidden": (16, 8), **spec})
    policy = categorical_class(kind)(described, normaliser, generator)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        if epsilon:
            policy.epsilon.fill_(epsilon)
    return policy.requires_grad_(requires_grad=False)


KINDS = [
    ("softmax", {}),
    ("softmax", {"layer_norm": True}),
    ("greedy", {"members": 3}),
    ("greedy", {"epsilon": 0.2, "dueling": True}),
    ("greedy", {"quantiles": 5, "dueling": True, "members": 2}),
    ("filtered_greedy", {"threshold": 0.4, "epsilon": 0.1}),
]


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_a_graph_chooses_as_torch_does_with_masks_and_without(kind: CategoricalKind, how: dict) -> None:
    policy, obs = make_policy(kind, **how), rows(300)
    content = write_policy(policy, history=1, stochastic=False).to_bytes({})
    mask = sample_masks(len(obs), 3)
    found = run_graph(content, {FRAMES: obs[:, None], MASK: mask})
    assert choices_difference(policy, obs, mask, found) < 1e-5
    states, allowed = torch.from_numpy(obs), torch.from_numpy(mask > 0.5)
    assert np.array_equal(found[ACTION], policy.act(states, None, allowed).numpy())
    assert np.abs(found[PROBABILITIES] - policy.probs(states, allowed).numpy()).max() < 1e-5
    assert (found[PROBABILITIES][mask == 0] == 0).all()
    assert len(set(found[ACTION].argmax(1))) == 3


def test_another_choice_is_an_infinite_difference() -> None:
    policy, obs = make_policy("greedy"), rows(20)
    mask = np.ones((20, 3), np.float32)
    content = write_policy(policy, history=1, stochastic=False).to_bytes({})
    found = run_graph(content, {FRAMES: obs[:, None], MASK: mask})
    found[ACTION] = np.roll(found[ACTION], 1, axis=1)
    assert choices_difference(policy, obs, mask, found) == float("inf")


def make_bundle(folder: Path, policy: CategoricalPolicy, log: Dataset | None = None, **config):
    data = make_dataset(space=CHOICES) if log is None else log
    settings = BundleConfig.model_validate({"guard": SMALL_GUARD, **config})
    return write_bundle(BundleParts(stored(policy), data), folder, settings)


def test_a_bundle_gives_ids_and_takes_masks(tmp_path: Path) -> None:
    policy = make_policy()
    contract = make_bundle(tmp_path / "bundle", policy)
    assert contract.action.choices == ("down", "stay", "up")
    assert contract.parity.policy < 1e-5
    obs = rows(50) * 0.3
    best = policy.best(torch.from_numpy(obs)).numpy()
    with Controller(tmp_path / "bundle", guard=False) as controller:
        assert [controller.act(row) for row in obs] == best.tolist()
        others = [controller.act(row, mask=np.arange(3) != own) for row, own in zip(obs, best, strict=True)]
        assert all(other != own for other, own in zip(others, best, strict=True))
        with pytest.raises(ValueError, match="one of 3 choices at least"):
            controller.act(obs[0], mask=[0, 0, 0])
        with pytest.raises(ValueError, match="one of 3 choices at least"):
            controller.act(obs[0], mask=[1, 1])


def test_a_hold_never_takes_what_is_forbidden(tmp_path: Path) -> None:
    contract = make_bundle(tmp_path / "bundle", make_policy(), coast_steps=0, hold_steps=1, rest=(2,))
    assert contract.runtime.rest == (0.0, 0.0, 1.0)
    lost = np.full(3, np.nan)
    controller = Controller(tmp_path / "bundle")
    held = controller.act(ORDINARY)
    assert controller.act(lost) == held
    assert controller.act(lost) == 2  # the hold has ended
    assert controller.act(lost, mask=[0, 1, 0]) == 1


def test_draws_follow_the_probabilities_of_the_allowed(tmp_path: Path) -> None:
    policy = make_policy()
    make_bundle(tmp_path / "bundle", policy, stochastic=True, frozen_after=None)
    controller = Controller(tmp_path / "bundle", guard=False)
    mask = np.array([1, 0, 1])
    drawn = [controller.act(ORDINARY, mask=mask) for _ in range(600)]
    expected = policy.probs(torch.from_numpy(ORDINARY)[None], torch.from_numpy(mask > 0)[None])[0].numpy()
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert np.abs(shares - expected).max() < 5 * 0.5 / np.sqrt(600)
    assert shares[1] == 0


def test_a_replay_passes_ids_back_to_the_log(tmp_path: Path) -> None:
    log = make_dataset(space=CHOICES)
    make_bundle(tmp_path / "bundle", make_policy(), log)
    checked = check_bundle(tmp_path / "bundle", log, max_rows=60)
    assert set(np.unique(checked.replay.action)) == {0.0, 1.0}
    assert (checked.replay.action.sum(1) == 1).all()


def test_settings_that_mean_nothing_for_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_change limits numbers"):
        make_bundle(tmp_path / "a", make_policy(), max_change=0.1)
    with pytest.raises(ConfigError, match=r"id of a choice \(0, 1, 2\)"):
        make_bundle(tmp_path / "b", make_policy(), rest=(3,))
    renamed = dataclasses.replace(make_dataset(space=CHOICES), spec=SpaceSpec.discrete(3, 3))
    with pytest.raises(ConfigError, match="choices of a policy are"):
        make_bundle(tmp_path / "c", make_policy(), renamed)


def test_ids_are_those_of_the_log_where_names_are_integers(tmp_path: Path) -> None:
    space = SpaceSpec.discrete(3, ("0", "1", "3"))
    policy = make_policy()
    spec = dataclasses.replace(policy.spec, space=space)
    other = categorical_class("softmax")(spec, policy.normaliser, torch.Generator().manual_seed(0))
    other.load_state_dict(policy.state_dict())
    log = dataclasses.replace(make_dataset(space=CHOICES), spec=space)
    contract = make_bundle(tmp_path / "bundle", other.requires_grad_(requires_grad=False), log, rest=(3,))
    assert (contract.action.ids, contract.runtime.rest) == ((0, 1, 3), (0.0, 0.0, 1.0))
    controller = Controller(tmp_path / "bundle", guard=False)
    assert controller.act(ORDINARY, mask=[0, 0, 1]) == 3
    controller.executed(3)
    assert Policy(StoredPolicy.in_memory(other, name="other")).predict(ORDINARY, mask=[0, 0, 1]) == 3


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["mbrl"] = None
sys.path.insert(0, {folder!r})
from runtime import Controller
import numpy as np
with Controller({folder!r}, guard=False) as controller:
    print([controller.act(np.full(3, 0.1 * k)) for k in range(5)], controller.act([0, 0, 0], mask=[0, 0, 1]))
"""


def test_it_runs_without_torch(tmp_path: Path) -> None:
    policy = make_policy()
    make_bundle(tmp_path / "bundle", policy)
    code = WITHOUT_TORCH.format(folder=str(tmp_path / "bundle"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    states = torch.stack([torch.full((3,), 0.1 * k) for k in range(5)])
    assert done.stdout.strip() == f"{policy.best(states).tolist()} 2"
    assert json.loads((tmp_path / "bundle" / "contract.json").read_text())["action"]["choices"] == [
        "down",
        "stay",
        "up",
    ]
