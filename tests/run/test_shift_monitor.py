import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.protocols import Policy, Training, ValueFn
from mbrl.core.rng import RngStreams
from mbrl.data.sources import DatasetSource
from mbrl.run.diagnostics import ShiftMonitor
from mbrl.run.loop import LoopSettings, train
from mbrl.run.metrics import read_metrics
from mbrl.shift.probe import ShiftProbe
from mbrl.shift.report import ShiftReport
from tests.run.test_loop import Messages, Recorder
from tests.run.toy import transitions

QUIET, LOUD = 0.01, 0.9


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scripted(ShiftProbe):
    """Reports a drawn number, what it was told, and outside shares from a script."""

    script: Mapping[int, float] = dataclasses.field(default_factory=dict[int, float])

    def look(
        self,
        policy: Policy,
        value: ValueFn | None,
        *,
        step: int,
        past: Mapping[int, float],
        generator: torch.Generator,
    ) -> ShiftReport:
        return ShiftReport(
            step=step,
            updates=self.updates,
            knn_share=self.script.get(step, QUIET),
            mean_value=float(torch.rand((), generator=generator)),
            value_drift=0.01 * math.fsum(past.values()),
        )


def monitor(script: Mapping[int, float] | None = None) -> ShiftMonitor:
    return ShiftMonitor(lambda: Scripted(states=torch.zeros(1, 3), updates=12, script=script or {}))


def run(folder: Path, shift: ShiftMonitor | None, **changes: Any) -> Any:
    learner = changes.pop("learner", Recorder())
    progress = changes.pop("progress", None)
    values = {"updates": 12, "log_interval": 4, "checkpoint_interval": 3, **changes}
    training = Training(learner, DatasetSource(transitions()), batch_size=8)
    return train(
        training,
        folder=folder,
        rng=RngStreams(0),
        settings=LoopSettings(**values),
        progress=progress,
        diagnostics=shift,
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def test_looks_come_at_checkpoints_and_join_the_row_of_their_step(tmp_path: Path) -> None:
    run(tmp_path, monitor())
    found = {row["step"]: row for row in rows(tmp_path)}
    assert [step for step, row in found.items() if "shift/knn_share" in row] == [3, 6, 9, 12]
    assert [step for step, row in found.items() if "policy/loss" in row] == [4, 8, 12]
    drawn = [float(torch.rand((), generator=RngStreams(0).at("shift", step))) for step in (3, 6, 9, 12)]
    assert [found[step]["shift/mean_value"] for step in (3, 6, 9, 12)] == drawn
    assert found[12]["shift/value_drift"] == pytest.approx(0.01 * sum(drawn[:3]))


def test_an_alarm_is_told_once_for_each_excursion(tmp_path: Path) -> None:
    progress = Messages()
    shift = monitor({6: LOUD, 9: LOUD})
    run(tmp_path, shift, updates=21, progress=progress, checkpoint_interval=3)
    events = [row for row in rows(tmp_path) if row.get("event") == "shift"]
    assert [row["step"] for row in events] == [6]
    assert progress.texts == [f"After update 6: {events[0]['text']}"]
    again = monitor({3: LOUD, 9: LOUD})
    (tmp_path / "b").mkdir()
    run(tmp_path / "b", again)
    assert [row["step"] for row in rows(tmp_path / "b") if "event" in row] == [3, 9]


def test_the_training_has_the_same_bits_without(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    one = run(tmp_path / "a", monitor({6: LOUD}))
    other = run(tmp_path / "b", None)
    assert torch.equal(one.state.weight, other.state.weight)
    kept = [{k: v for k, v in row.items() if not k.startswith("shift/")} for row in rows(tmp_path / "a")]
    assert [row for row in kept if len(row) > 1 and "event" not in row] == rows(tmp_path / "b")


class Dies(Recorder):
    """Stops in the middle of an update."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def update(self, state: Any, batch: Any, generator: torch.Generator) -> Any:
        if state.count == self.at:
            raise KeyboardInterrupt
        return super().update(state, batch, generator)


@pytest.mark.parametrize("cut", [2, 7, 10])
def test_a_resumed_run_remembers_what_it_saw(tmp_path: Path, cut: int) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    script = {6: LOUD, 9: LOUD}
    whole, first, second = monitor(script), monitor(script), monitor(script)
    run(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", first, learner=Dies(cut))
    run(tmp_path / "parts", second)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert second.state_dict() == whole.state_dict()
    finished = ShiftMonitor(lambda: pytest.fail("a training that is over needs no probe"))
    run(tmp_path / "parts", finished)
    assert finished.report == whole.report


def test_looking_may_begin_in_the_middle(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, None, learner=Dies(7))
    shift = monitor()
    run(tmp_path, shift)
    assert [row["step"] for row in rows(tmp_path) if "shift/knn_share" in row] == [9, 12]
