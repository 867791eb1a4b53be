import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.errors import DivergenceError, NonFiniteError
from mbrl.core.progress import SilentProgress
from mbrl.core.protocols import Policy, Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.data.sources import DatasetSource
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.loop import LoopOutcome, LoopSettings, train
from mbrl.run.metrics import read_metrics
from tests.run.sac_run import UPDATES, run_sac
from tests.run.toy import assert_same, transitions


class Counter:
    """A state that counts and keeps what it saw."""

    def __init__(self) -> None:
        self.count = 0
        self.weight = torch.zeros(1)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "weight": self.weight.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.weight = state["count"], state["weight"].clone()


class Recorder:
    """A learner that records its calls, and reports metrics from a script."""

    def __init__(self, script: dict[int, dict[str, float]] | None = None) -> None:
        self.script = script or {}
        self.calls: list[tuple[str, int]] = []

    def init(self, generator: torch.Generator) -> Counter:
        return Counter()

    def update(self, state: Counter, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        self.calls.append(("update", state.count))
        state.weight += torch.rand(1, generator=generator) + batch.reward.mean()
        metrics = {"policy/loss": 1.0, **self.script.get(state.count, {})}
        state.count += 1
        return {name: torch.tensor(value) for name, value in metrics.items()}

    def policy(self, state: Counter) -> Policy:
        class Still:
            act_dim = 2

            def act(self, obs: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
                return obs.new_zeros(obs.shape[0], 2)

        return Still()

    def value(self, state: Counter) -> None:
        return None


class Messages(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def run(
    folder: Path,
    learner: Recorder,
    *,
    progress: SilentProgress | None = None,
    bounds: tuple[float, float] | None = None,
    refreshes: list[int] | None = None,
    **settings: Any,
) -> LoopOutcome:
    def refresh(policy: Policy, step: int, generator: torch.Generator) -> Metrics:
        if refreshes is not None:
            refreshes.append(step)
        return {"rollout/draw": torch.rand((), generator=generator)}

    training = Training(learner, DatasetSource(transitions()), refresh, 4, 8, bounds)
    values = {"updates": 10, "log_interval": 3, "checkpoint_interval": 5, **settings}
    return train(
        training, folder=folder, rng=RngStreams(0), settings=LoopSettings(**values), progress=progress
    )


def test_refreshes_come_before_the_update_of_their_step(tmp_path: Path) -> None:
    refreshes: list[int] = []
    learner = Recorder()
    run(tmp_path, learner, refreshes=refreshes)
    assert refreshes == [0, 4, 8]
    assert learner.calls == [("update", step) for step in range(10)]


def test_rows_are_written_at_log_intervals_and_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, Recorder({4: {"policy/loss": 4.0}}))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 10]
    assert [row["policy/loss"] for row in rows] == [1.0, 2.0, 1.0, 1.0]
    assert ["rollout/draw" in row for row in rows] == [True, True, True, False]


def test_intervals_do_not_change_the_bits(tmp_path: Path) -> None:
    outcomes = [
        run(tmp_path / str(log), Recorder(), log_interval=log, checkpoint_interval=save)
        for log, save in ((1, 1), (10, 3), (100, 100))
        if (tmp_path / str(log)).mkdir() is None
    ]
    for outcome in outcomes[1:]:
        assert_same(outcome.state.state_dict(), outcomes[0].state.state_dict())


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    first = run(tmp_path, Recorder())
    learner = Recorder()
    again = run(tmp_path, learner)
    assert learner.calls == []
    assert again.start == 10
    assert_same(again.state.state_dict(), first.state.state_dict())


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match=r"between update 7 and 9: critic/loss \(nan\).*step-000000000005"
    ):
        run(tmp_path, Recorder({7: {"critic/loss": float("nan")}}))
    found = CheckpointFolder(tmp_path / "checkpoints", "").load_latest(pytest.fail)
    assert found is not None
    assert found[0] == 5


def test_a_stopped_run_names_the_batch_that_no_learner_could_have_learned_from(tmp_path: Path) -> None:
    """Not the critics: row 7 of the log holds 3e38."""
    rewards = transitions().reward.clone()
    rewards[7] = 3e38
    data = dataclasses.replace(transitions(), reward=rewards)
    script = {step: {"critic/loss": float("inf")} for step in range(60)}
    training = Training(Recorder(script), DatasetSource(data), batch_size=64, reward_unit=2.0)
    with pytest.raises(
        NonFiniteError,
        match=r"Cause: the batch of update \d+ held a reward of 3e\+38, 1\.5e\+38 times the unit, in a log",
    ):
        train(training, folder=tmp_path, rng=RngStreams(0), settings=LoopSettings(60, log_interval=60))


def test_a_nan_before_a_checkpoint_prevents_it(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"between update 1 and 5.*no checkpoint"):
        run(tmp_path, Recorder({2: {"x": float("inf")}}), log_interval=1000)
    assert not (tmp_path / "checkpoints").exists()


def test_a_nan_in_the_state_prevents_a_checkpoint(tmp_path: Path) -> None:
    class Poison(Recorder):
        def update(self, state: Counter, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
            if state.count == 7:
                state.weight += float("nan")
            return super().update(state, batch, generator)

    with pytest.raises(NonFiniteError, match=r"state is not finite after update 10: weight"):
        run(tmp_path, Poison())


def test_divergence_is_told_with_its_step_and_stops_on_request(tmp_path: Path) -> None:
    script = {5: {"critic/value": 500.0}, 8: {"critic/value": 1.0}}
    messages = Messages()
    (tmp_path / "a").mkdir()
    outcome = run(tmp_path / "a", Recorder(script), progress=messages, bounds=(0.0, 100.0))
    assert outcome.excursions == [{"step": 6, "critic/value": 500.0}]
    assert len(messages.texts) == 1
    assert "at update 6" in messages.texts[0]
    assert [row["step"] for row in read_metrics(tmp_path / "a") if "event" in row] == [6]
    (tmp_path / "b").mkdir()
    with pytest.raises(DivergenceError, match=r"at update 6.*step-000000000005"):
        run(tmp_path / "b", Recorder(script), bounds=(0.0, 100.0), on_divergence="stop")


def test_alarms_survive_a_resume(tmp_path: Path) -> None:
    script: dict[int, dict[str, float]] = {k: {"critic/value": 500.0} for k in range(10)}

    class Dying(Recorder):
        def update(self, state: Counter, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
            if state.count == 7:
                raise KeyboardInterrupt
            return super().update(state, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Dying(script), bounds=(0.0, 100.0))
    outcome = run(tmp_path, Recorder(script), bounds=(0.0, 100.0))
    assert [entry["step"] for entry in outcome.excursions] == [3]
    assert [row["step"] for row in read_metrics(tmp_path) if "event" in row] == [3]


def test_a_damaged_newest_checkpoint_costs_only_the_way_from_the_one_before(tmp_path: Path) -> None:
    whole = run(tmp_path, Recorder(), updates=10, checkpoint_interval=4)
    whole_rows = copy.deepcopy(read_metrics(tmp_path))
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    messages = Messages()
    again = run(tmp_path, Recorder(), progress=messages, updates=10, checkpoint_interval=4)
    assert again.start == 8
    assert "damaged" in messages.texts[0]
    assert_same(again.state.state_dict(), whole.state.state_dict())

    def drop_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert drop_time(read_metrics(tmp_path)) == drop_time(whole_rows)


def start_sac(folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.run.sac_run", str(folder)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_killed_at_any_moment_it_continues_to_the_same_bits(tmp_path: Path) -> None:
    run_sac(tmp_path / "whole")
    for checkpoints in (1, 3):
        process = start_sac(tmp_path / "killed")
        seen: set[str] = set()
        while len(seen) < checkpoints and process.poll() is None:
            seen |= {path.name for path in (tmp_path / "killed").glob("checkpoints/step-*")}
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    run_sac(tmp_path / "killed")
    first, second = (
        CheckpointFolder(tmp_path / name / "checkpoints", "").load_latest(pytest.fail)
        for name in ("whole", "killed")
    )
    assert first is not None
    assert second is not None
    assert first[0] == second[0] == UPDATES
    assert_same(second[1]["learner"], first[1]["learner"])
    rows = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]]
    assert [row["critic/loss"] for row in rows[1]] == [row["critic/loss"] for row in rows[0]]
