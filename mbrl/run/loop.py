"""The one training loop, for every algorithm."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from mbrl.algorithms.batch_faults import find_batch_fault
from mbrl.core.device import CPU, on_device
from mbrl.core.errors import DivergenceError, NonFiniteError
from mbrl.core.progress import Progress, SilentProgress
from mbrl.core.protocols import Training, ValueRefresh
from mbrl.core.rng import RngStreams
from mbrl.core.types import Metrics, StateDict
from mbrl.learners.capture import make_update
from mbrl.run.checkpoint import CheckpointFolder, non_finite_names
from mbrl.run.diagnostics import Look, ShiftMonitor
from mbrl.run.metrics import (
    METRICS_FILE,
    DivergenceAlarm,
    MetricFile,
    MetricSums,
    refuse_non_finite,
    sound_length,
)

_PROGRESS_INTERVAL = 50


@dataclasses.dataclass(frozen=True, slots=True)
class LoopSettings:
    """How far the loop runs and how often it looks up.

    Attributes:
        updates: learner updates in all.
        log_interval: updates between two rows of metrics.
        checkpoint_interval: updates between two checkpoints; the last update is always followed by one.
        on_divergence: whether the divergence alarm only warns, or stops the run.
        config_hash: of the run; checkpoints carry it.
        capture: on a card, replay updates as CUDA graphs instead of launching their kernels one by one.
    """

    updates: int
    log_interval: int = 500
    checkpoint_interval: int = 5000
    on_divergence: Literal["warn", "stop"] = "warn"
    config_hash: str = ""
    capture: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class LoopOutcome:
    """What a finished loop leaves besides its files.

    Attributes:
        state: of the learner, after the last update.
        excursions: where the divergence alarm rang.
        seconds: of this process; a resumed run's earlier seconds are in its checkpoints.
        start: update at which this process began.
    """

    state: Any
    excursions: list[dict[str, Any]]
    seconds: float
    start: int


def train(
    training: Training,
    *,
    folder: Path,
    rng: RngStreams,
    settings: LoopSettings,
    progress: Progress | None = None,
    diagnostics: ShiftMonitor | None = None,
    on_start: Callable[[Any], None] | None = None,
    on_checkpoint: Callable[[int, Any, float], None] | None = None,
    on_update: Callable[[int, Any], None] | None = None,
) -> LoopOutcome:
    """Runs `training` to its last update, continuing from the newest checkpoint in `folder`.

    For every update: refresh the source if it is due, draw a batch, update the learner; all draws come from
    `rng.at(stream, step)`, so a resumed run repeats an uninterrupted one bit for bit.

    Args:
        training: learner and source.
        folder: of the run; holds `metrics.jsonl`, `tensorboard/` and `checkpoints/` afterwards.
        rng: streams of the run; its device is that of the state, and `training` lies there already.
        settings: length and intervals.
        progress: told of updates and alarms.
        diagnostics: looks at the policy before each checkpoint, with draws from `rng.at("shift", step)`; the
            bits of the training are the same without.
        on_start: called with the learner's fresh state, which it may change, before a checkpoint is loaded.
        on_checkpoint: called after each checkpoint with the updates done, the learner's state and the seconds
            since the start of this call.
        on_update: called after each update, before its checkpoint, with the updates done and the learner's
            state, which it must leave as it is.

    Raises:
        NonFiniteError: a metric or a parameter is NaN or infinite; the last good checkpoint stays.
        DivergenceError: values left what the rewards permit, and `on_divergence` is `stop`.
    """
    begin = time.perf_counter()
    state = training.learner.init(rng.at("init"))
    if on_start is not None:
        on_start(state)
    monitor = _Monitor(training, state, folder, settings, progress or SilentProgress())
    monitor.looks_through(diagnostics, rng)
    start = monitor.restore()
    # After a checkpoint is loaded: graphs hold on to the tensors that there are.
    update = make_update(training.learner, state, rng.device if settings.capture else CPU)
    try:
        if monitor.is_pending and monitor.end_update(start) and on_checkpoint is not None:
            on_checkpoint(start, state, time.perf_counter() - begin)
        for step in range(start, settings.updates):
            if training.refresh is not None and step % training.refresh_interval == 0:
                monitor.sums.add(renew(training, state, step, rng.at("rollout", step)))
            batch = training.source.sample(training.batch_size, rng.at("batch", step))
            monitor.sums.add(update(batch, rng.at("update", step)))
            if on_update is not None:
                on_update(step + 1, state)
            if monitor.end_update(step + 1) and on_checkpoint is not None:
                on_checkpoint(step + 1, state, time.perf_counter() - begin)
    finally:
        monitor.close()
    seconds = time.perf_counter() - begin
    return LoopOutcome(state, monitor.alarm.excursions, seconds, start)


def renew(training: Training, state: Any, step: int, generator: torch.Generator) -> Metrics:
    """Refreshes the source with the present policy, and with the present values where they are wanted."""
    learner, refresh = training.learner, training.refresh
    if refresh is None:
        return {}
    if isinstance(refresh, ValueRefresh):
        return refresh.refresh_with_value(learner.policy(state), learner.value(state), step, generator)
    return refresh(learner.policy(state), step, generator)


def lengthened(content: StateDict) -> StateDict:
    """The content of a training's last checkpoint as one from which a longer training goes on.

    The end of a training is logged and looked at, due or not. That is undone, and done as it is due in the
    longer one when that begins, so that its rows are those of a training that was told its length at once.

    Raises:
        KeyError: an entry is missing.
        ValueError: it is of another form.
    """
    before = content.get("before_end")
    monitor = content["monitor"] if before is None else before
    position = monitor["position"]
    if type(position) is not int or position < 0:
        raise ValueError(f"the metrics end at byte {position!r}")
    rest = {name: content[name] for name in ("learner", "source")}
    return {**rest, "monitor": monitor, "is_pending": before is not None}


class _Monitor:
    """All that happens around the updates: logging, guarding, checkpoints."""

    def __init__(
        self, training: Training, state: Any, folder: Path, settings: LoopSettings, progress: Progress
    ) -> None:
        self._training, self._state = training, state
        self._folder, self._settings, self._progress = folder, settings, progress
        self._checkpoints = CheckpointFolder(folder / "checkpoints", settings.config_hash)
        self.sums = MetricSums()
        self.alarm = DivergenceAlarm(training.value_bounds)
        self._row_start = 0
        self._before_end: StateDict | None = None
        self.is_pending = False
        """The checkpoint is one that `lengthened` made: what its update brings is still to be written."""

    def looks_through(self, diagnostics: ShiftMonitor | None, rng: RngStreams) -> None:
        """Looks at the policy before each checkpoint, unless None."""
        self._diagnostics, self._rng = diagnostics, rng

    def restore(self) -> int:
        """Loads the newest checkpoint; returns the number of updates that are done."""
        found = self._checkpoints.load_latest(self._progress.message, accept=self._try)
        start, position = 0, 0
        if found is not None:
            start, content = found
            position = content["monitor"]["position"]
            self.is_pending = content.get("is_pending") is True and start < self._settings.updates
        sound = sound_length(self._folder, position)
        if sound < position:
            self._progress.message(
                f"{self._folder / METRICS_FILE} has lost rows of the first {start:,} updates. The policy is "
                "the same without."
            )
        self._file = MetricFile(self._folder, position=sound, step=start)
        self._progress.start("train", self._settings.updates)
        self._progress.advance(start)
        self._mark = (start, time.perf_counter())
        return start

    def end_update(self, done: int) -> bool:
        """Logs and saves what is due after `done` updates; True if a checkpoint was written."""
        settings = self._settings
        is_last = done == settings.updates
        is_due = done % settings.checkpoint_interval == 0 and done % settings.log_interval == 0
        # What is done below for the sake of the end, a longer training does not do here.
        self._before_end = self._monitor_state(self._file.sync()) if is_last and not is_due else None
        is_saved = is_last or done % settings.checkpoint_interval == 0
        if is_saved:
            self._guard(self.sums.averages(), done)
        look = self._look(done) if is_saved else Look({}, [])
        if is_last or done % settings.log_interval == 0:
            self._log(done, look)
        elif look.metrics:
            self._file.write(done, look.metrics)
        elif done % _PROGRESS_INTERVAL == 0:
            self._progress.advance(done)
        for text in look.alarms:
            self._tell(done, "shift", text, shown=f"After update {done:,}: {text}")
        if is_saved:
            # On the host, from where a machine without a card can go on as well.
            self._checkpoints.save(done, on_device(self._content(done), CPU))
        return is_saved

    def close(self) -> None:
        """Ends the files and the progress."""
        self._file.close()
        self._progress.finish()

    def _look(self, done: int) -> Look:
        """Holds the policy against its log; the time that this takes is not that of the updates."""
        if self._diagnostics is None:
            return Look({}, [])
        begin = time.perf_counter()
        learner = self._training.learner
        # Logs and models that a policy is held against stay on the host.
        policy, value = on_device((learner.policy(self._state), learner.value(self._state)), CPU)
        look = self._diagnostics.look(done, policy, value, generator=self._rng.host.at("shift", done))
        seconds = time.perf_counter() - begin
        self._mark = (self._mark[0], self._mark[1] + seconds)
        return Look({**look.metrics, "time/shift_seconds": round(seconds, 3)}, look.alarms)

    def _tell(self, done: int, event: str, text: str, *, shown: str) -> None:
        self._file.write(done, {"event": event, "text": text})
        self._progress.message(shown)

    def _log(self, done: int, look: Look) -> None:
        averages = self.sums.averages()
        self._guard(averages, done)
        now = time.perf_counter()
        speed = (done - self._mark[0]) / max(now - self._mark[1], 1e-9)
        self._mark = (done, now)
        self._file.write(done, {**averages, **look.metrics, "time/updates_per_second": round(speed, 2)})
        self.sums.clear()
        self._row_start = done
        self._progress.advance(done, **averages)
        message = self.alarm.check(done, averages)
        if message is not None:
            self._tell(done, "divergence", message, shown=message)
            if self._settings.on_divergence == "stop":
                raise DivergenceError(f"{message} {self._kept()}")

    def _guard(self, averages: dict[str, float], done: int) -> None:
        refuse_non_finite(
            averages,
            first=self._row_start + 1,
            last=done,
            kept=self._kept(),
            find_cause=functools.partial(self._find_cause, done),
        )

    def _find_cause(self, done: int) -> str | None:
        """What was wrong with the batches since the last row of metrics but one."""
        first = min(self._row_start, max(0, done - self._settings.log_interval)) + 1
        return find_batch_fault(self._training, self._rng, first=first, last=done)

    def _kept(self) -> str:
        files = self._checkpoints.files()
        return f"The last good checkpoint stays: {files[-1]}." if files else "There is no checkpoint yet."

    def _content(self, done: int) -> StateDict:
        learner = self._state.state_dict()
        bad = list(non_finite_names(learner))
        if bad:
            likely = (
                "Likely cause: a gradient overflowed. Remedy: lower the learning rates; run mbrl inspect."
            )
            raise NonFiniteError(
                f"The learner's state is not finite after update {done}: {', '.join(bad[:5])}. "
                f"{self._find_cause(done) or likely} {self._kept()}"
            )
        monitor = self._monitor_state(self._file.sync())
        return {
            "learner": learner,
            "source": self._training.source.state_dict(),
            "monitor": monitor,
            "before_end": self._before_end,
        }

    def _monitor_state(self, position: int) -> StateDict:
        return {
            "sums": self.sums.state_dict(),
            "alarm": self.alarm.state_dict(),
            "row_start": self._row_start,
            "position": position,
            "shift": None if self._diagnostics is None else self._diagnostics.state_dict(),
        }

    def _try(self, content: StateDict) -> None:
        """Loads a checkpoint, or leaves everything as it was and raises what was wrong with it."""
        before = {
            "learner": self._state.state_dict(),
            "source": self._training.source.state_dict(),
            "monitor": self._monitor_state(0),
        }
        try:
            self._load(content)
        except Exception:
            self._load(before)
            raise

    def _load(self, content: StateDict) -> None:
        self._state.load_state_dict(content["learner"])
        self._training.source.load_state_dict(content["source"])
        monitor = content["monitor"]
        for name in ("row_start", "position"):
            if type(monitor[name]) is not int or monitor[name] < 0:
                raise ValueError(f"{name} is {monitor[name]!r}")
        self.sums.load_state_dict(monitor["sums"])
        self.alarm.load_state_dict(monitor["alarm"])
        self._row_start = monitor["row_start"]
        seen = monitor.get("shift")  # None where the run began without looking
        if self._diagnostics is not None and seen is not None:
            self._diagnostics.load_state_dict(seen)
