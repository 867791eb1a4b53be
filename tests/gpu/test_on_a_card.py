"""On a real card: captured against eager updates, repetition, checkpoints that move, the road from a log.

Skipped without one. `scripts/gpu_check.sh` runs them.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import mbrl
from mbrl.core.device import CPU, find_device, on_device
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.learners.base import LEARNERS
from mbrl.learners.capture import CapturedUpdates, make_update
from mbrl.run.loop import LoopSettings, train
from mbrl.testing.algorithms import AlgorithmCase
from mbrl.testing.checks import find_difference
from mbrl.testing.learners import LearnerCase, small_settings
from mbrl.testing.samples import make_transitions
from tests.conformance.small import small_algorithm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card here"),
]
UPDATES = 12


def case_of(name: str) -> LearnerCase:
    entry = LEARNERS.get(name)
    return LearnerCase(entry, entry.Config.model_validate(small_settings(entry.Config)))


def states(name: str, *, capture: bool) -> tuple[dict[str, Any], Any]:
    device = find_device("cuda")
    learner, batch = on_device((case_of(name).build(), make_transitions()), device)
    rng = RngStreams(0, device)
    state = learner.init(rng.at("init"))
    update = make_update(learner, state, device if capture else CPU)
    for step in range(UPDATES):
        update(batch, rng.at("update", step))
    return on_device(state.state_dict(), CPU), update


@pytest.mark.parametrize("name", LEARNERS.names())
def test_captured_updates_are_the_eager_ones(name: str) -> None:
    eager, _ = states(name, capture=False)
    found, update = states(name, capture=True)
    assert isinstance(update, CapturedUpdates)
    assert update.graphs > 0
    difference = find_difference(found, eager)
    assert difference is None, difference


@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_run_repeats_its_bits(name: str) -> None:
    assert find_difference(states(name, capture=True)[0], states(name, capture=True)[0]) is None


@pytest.mark.parametrize("name", ["td3_bc", "mopo", "mobile", "combo", "reanalyse"])
def test_a_training_runs_and_its_checkpoint_goes_on_on_the_cpu(name: str, tmp_path: Path) -> None:
    values = {"updates": UPDATES, "learner.hidden": [8, 8], "learner.batch_size": 16, "rollout.starts": 12}
    more = {"rollout.horizon": 2, "rollout.respect_trusted_horizon": False, "states": 12, "search_from": 5}
    case = AlgorithmCase(*small_algorithm(name, {**values, **more, "sims": 8, "refresh_interval": 5}))

    def run(device: torch.device, updates: int) -> Any:
        training: Training = on_device(case.build(), device)
        settings = LoopSettings(updates=updates, log_interval=5, checkpoint_interval=5)
        return train(training, folder=tmp_path, rng=RngStreams(0, device), settings=settings)

    run(find_device("cuda"), 10)
    assert run(CPU, UPDATES).start == 10


def test_the_road_from_a_log_to_a_judged_policy(tmp_path: Path) -> None:
    log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
    tiny = {"max_updates": 40, "members": 2, "elites": 1, "hidden": [16]}
    run = mbrl.train(log, "td3_bc", dynamics=tiny, updates=60, device="cuda", store=tmp_path, progress=False)
    assert "cuda:0" in (run.path / "manifest.json").read_text()
    fitted = mbrl.fit(log, tiny, device="cuda", store=tmp_path, progress=False)
    assert fitted.trusted_horizon >= 0
    found = mbrl.ope(run, log, judges=0, updates=50, device="cuda", store=tmp_path, progress=False)
    assert found.verdict
    cheap = {"sims": 8, "certificate_states": 10, "gate": {"by": "none"}}
    planned = mbrl.plan(run, "mppi", episodes=1, device="cuda", progress=False, **cheap)
    assert planned.summary["planner"] == "mppi"
