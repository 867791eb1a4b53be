"""The loop on a stand-in for a card: the same checkpoint as on a CPU, which either device goes on from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.device import CPU, on_device
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.data.sources import DatasetSource
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.loop import LoopSettings, train
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import load_policy, save_policy
from mbrl.testing.card import StandIn
from mbrl.testing.checks import find_difference
from mbrl.testing.learners import small_settings
from mbrl.testing.samples import SPACE, make_normaliser, make_transitions

UPDATES = 10


def run(folder: Path, device: torch.device, updates: int = UPDATES) -> Any:
    entry = LEARNERS.get("iql")
    config = entry.Config.model_validate(small_settings(entry.Config))
    learner = entry(config, LearnerContext(SPACE, make_normaliser(), UPDATES))
    training = on_device(Training(learner, DatasetSource(make_transitions()), batch_size=16), device)
    folder.mkdir(exist_ok=True)
    settings = LoopSettings(updates=updates, log_interval=4, checkpoint_interval=5, config_hash="h")
    outcome = train(training, folder=folder, rng=RngStreams(0, device), settings=settings)
    save_policy(folder / "policy.safetensors", learner.policy(outcome.state), {})
    return CheckpointFolder(folder / "checkpoints", "h").load_latest(pytest.fail)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def test_a_training_on_a_card_leaves_the_files_of_a_cpu(tmp_path: Path) -> None:
    expected = run(tmp_path / "cpu", CPU)
    with StandIn() as card:
        found = run(tmp_path / "card", card.device)
    for part in ("learner", "source"):
        assert find_difference(found[1][part], expected[1][part]) is None
    assert rows(tmp_path / "card") == rows(tmp_path / "cpu")
    obs = make_transitions().observation[:5]
    acts = [load_policy(tmp_path / name / "policy.safetensors").policy.act(obs) for name in ("cpu", "card")]
    assert torch.equal(*acts)


@pytest.mark.parametrize("begins_on_card", [True, False])
def test_a_checkpoint_goes_on_elsewhere(tmp_path: Path, begins_on_card: bool) -> None:
    expected = run(tmp_path / "whole", CPU)
    # Ended early, as after a kill: the checkpoint after 5 updates is what is left.
    with StandIn() as card:
        first, then = (card.device, CPU) if begins_on_card else (CPU, card.device)
        run(tmp_path / "moved", first, updates=5)
        found = run(tmp_path / "moved", then)
    assert find_difference(found[1]["learner"], expected[1]["learner"]) is None
