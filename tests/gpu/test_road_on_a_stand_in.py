"""The road from a log to a plan on a stand-in for a card: what stays on the host is handed copies."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import mbrl
from mbrl.testing.card import CARD, StandIn

pytestmark = pytest.mark.slow

TINY = {"max_updates": 20, "members": 2, "elites": 1, "hidden": [8]}
JUDGES = {"count": 1, "max_updates": 20, "horizon": 5, "draws": "mean", "starts": 4}
SMALL = {"hidden": [8, 8], "batch_size": 16}
ROLLOUT = {"starts": 20, "horizon": 2, "respect_trusted_horizon": False}


def find_device(name: str) -> torch.device:
    return CARD if name == "cuda" else torch.device(name)


def walk(store: Path, device: str) -> dict[str, Any]:
    """What each step on the road says."""
    log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
    how: dict[str, Any] = {"device": device, "store": store, "progress": False}
    changes: dict[str, Any] = {
        "learner": SMALL,
        "rollout": ROLLOUT,
        "judges": JUDGES,
        "checkpoint_interval": 10,
    }
    run = mbrl.train(log, "mopo", dynamics=TINY, updates=20, log_interval=10, **how, **changes)
    cheap = {"sims": 4, "certificate_states": 5, "gate": {"by": "none"}}
    planned = mbrl.plan(run, "mppi", episodes=1, **how, **cheap)
    # Finds what the training has made.
    again = mbrl.fit(log, TINY, **how)
    return {
        "actions": run.policy.act([1.0, 0.0, 0.0]).tolist(),
        "selection": run.selection["chosen"] if run.selection else None,
        "returns": planned.summary["episode_returns"],
        "horizon": again.trusted_horizon,
        "manifest": json.loads((run.path / "manifest.json").read_text())["device"],
    }


def test_the_road_is_the_same_on_a_card(tmp_path: Path) -> None:
    expected = walk(tmp_path / "cpu", "cpu")
    with (
        mock.patch("mbrl.run.stage.find_device", find_device),
        mock.patch("mbrl.api.session.find_device", find_device),
        StandIn(),
    ):
        found = walk(tmp_path / "card", "cuda")
    assert (expected.pop("manifest"), found.pop("manifest")) == ("cpu", "meta")
    assert found == expected
