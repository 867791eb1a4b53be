"""Small policies, logs and bundles."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.deploy.contract import Contract
from mbrl.nets.actors import ActorKind, ActorSpec, build_actor
from mbrl.nets.generative.bcq import BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork
from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle
from mbrl.run.policies import StoredPolicy
from mbrl.testing.samples import SPACE, make_dataset

SMALL_GUARD = {"prototypes": 150, "features": 16}


def make_actor(
    kind: ActorKind = "deterministic", *, seed: int = 0, obs_dim: int = SPACE.obs_dim, **spec: Any
) -> PolicyNetwork:
    """A network of random weights and statistics that are not those of the identity."""
    generator = torch.Generator().manual_seed(seed)
    space = dataclasses.replace(SPACE, obs_dim=obs_dim)
    normaliser = Normaliser(torch.arange(1.0, obs_dim + 1) / 10, torch.arange(1.0, obs_dim + 1))
    made = build_actor(
        ActorSpec(kind=kind, space=space, **{"hidden": (16, 8), **spec}), normaliser, generator
    )
    with torch.no_grad():
        for parameter in made.parameters():  # actions far from 0, biases and gains that matter
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.requires_grad_(requires_grad=False)


def make_bcq() -> BCQPolicy:
    """A policy of BCQ of random weights."""
    spec = BCQSpec(
        kind="bcq", space=SPACE, hidden=(8,), vae_hidden=(8,), latent_dim=3, perturbation=0.1, candidates=5
    )
    normaliser = Normaliser(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0]))
    return BCQPolicy(spec, normaliser, torch.Generator().manual_seed(0)).requires_grad_(requires_grad=False)


def stored(policy: PolicyNetwork) -> StoredPolicy:
    """As if it were read from a file."""
    return StoredPolicy(policy, {"algorithm": "toy", "seed": 0}, "a" * 32)


def make_bundle(
    folder: Path, *, log: Dataset | None = None, fallback: PolicyNetwork | None = None, **config: Any
) -> tuple[Contract, PolicyNetwork]:
    """Writes a bundle of a small network; returns its contract and the network."""
    policy = make_actor()
    data = make_dataset() if log is None else log
    parts = BundleParts(stored(policy), data, None if fallback is None else stored(fallback))
    settings = BundleConfig.model_validate({"guard": SMALL_GUARD, **config})
    return write_bundle(parts, folder, settings), policy


def timed(log: Dataset, rate: float) -> Dataset:
    """The same log with a time between its steps."""
    return dataclasses.replace(log, info=dataclasses.replace(log.info, time_step=1.0 / rate))


def stacked_episode(frames: np.ndarray, actions: np.ndarray, history: int) -> Episode:
    """An episode whose observations are the latest `history` frames."""
    count = len(frames) - history + 1
    obs = np.concatenate([frames[history - 1 - k : history - 1 - k + count] for k in range(history)], 1)
    kept = actions[history - 1 :]
    return Episode(obs, kept, np.zeros(len(kept), np.float32), terminated=False, truncated=True)
