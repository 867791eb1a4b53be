"""Metrics: summed as tensors, turned into numbers at log intervals, guarded, and written to disk."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from mbrl.core.errors import FileError, NonFiniteError
from mbrl.core.types import Metrics, StateDict
from mbrl.run.files import MAKE_AGAIN, is_file, read_file, storing

METRICS_FILE: Final = "metrics.jsonl"

VALUE_NAMES: Final = ("critic/value", "critic/value_max", "critic/value_min")
"""Metrics that the divergence alarm watches."""

SLACK: Final = 0.05
"""How far beyond the permitted values, as a share of their range, the alarm still keeps quiet: noise of an
untrained critic around a bound is no divergence."""


class MetricSums:
    """Running sums (maxima of `*_max`, minima of `*_min`) since the last log row; no number leaves torch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Metrics) -> None:
        """Adds detached 0-d tensors."""
        for name, value in metrics.items():
            total = self._sums.get(name)
            if total is None:
                self._sums[name] = value.to(torch.float64, copy=True)
                self._counts[name] = 1
                continue
            self._counts[name] += 1
            if total.device != value.device:  # the sum came out of a checkpoint
                total = self._sums[name] = total.to(value.device)
            if name.endswith("_max"):
                torch.maximum(total, value.to(total.dtype), out=total)
            elif name.endswith("_min"):
                torch.minimum(total, value.to(total.dtype), out=total)
            else:
                total += value

    def averages(self) -> dict[str, float]:
        """Means (extremes of `*_max` and `*_min`) by name; one transfer for all."""
        if not self._sums:
            return {}
        sums = list(self._sums.values())
        # Counts that the host keeps join the others on their device.
        device = next((value.device for value in sums if value.device.type != "cpu"), sums[0].device)
        values = cast("list[float]", torch.stack([value.to(device) for value in sums]).tolist())
        return {
            name: value if name.endswith(("_max", "_min")) else value / self._counts[name]
            for name, value in zip(self._sums, values, strict=True)
        }

    def clear(self) -> None:
        """Forgets everything."""
        self._sums.clear()
        self._counts.clear()

    def state_dict(self) -> StateDict:
        """Sums and counts."""
        return {"sums": {k: v.clone() for k, v in self._sums.items()}, "counts": dict(self._counts)}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        sums: dict[str, Tensor] = {k: v.clone() for k, v in state["sums"].items()}
        counts: dict[str, int] = dict(state["counts"])
        if sums.keys() != counts.keys() or any(
            v.shape != () or v.dtype != torch.float64 or type(counts[k]) is not int for k, v in sums.items()
        ):
            raise ValueError("sums and counts of metrics do not belong together")
        self._sums, self._counts = sums, counts


def refuse_non_finite(
    averages: Mapping[str, float],
    *,
    first: int,
    last: int,
    kept: str,
    find_cause: Callable[[], str | None] = lambda: None,
) -> None:
    """Stops a run whose metrics are NaN or infinite.

    Args:
        averages: of the updates from `first` to `last`.
        first: first update that they cover.
        last: last update that they cover.
        kept: what remains of the run, for the message.
        find_cause: looks for a cause and its remedy; a likely one is told where it finds none.

    Raises:
        NonFiniteError: with the names, the updates, the likely cause and the remedy.
    """
    bad = {name: value for name, value in averages.items() if not math.isfinite(value)}
    if not bad:
        return
    named = ", ".join(f"{name} ({value})" for name, value in bad.items())
    raise NonFiniteError(
        f"Metrics that are not finite between update {first} and {last}: {named}. "
        f"{find_cause() or _likely_cause(bad)} {kept}"
    )


def _likely_cause(bad: Mapping[str, float]) -> str:
    if all(name.startswith("rollout/") for name in bad):
        return (
            "Likely cause: the dynamics model left the data. Remedy: shorter rollouts, or truncation at an "
            "uncertainty quantile."
        )
    if any(name.startswith("critic/") for name in bad):
        return (
            "Likely cause: the critics diverged. Remedy: more critics, LayerNorm in the critics, or a lower "
            "critic learning rate; check the reward scale with mbrl inspect."
        )
    return "Likely cause: the learning rate is too high for these data. Remedy: lower it; run mbrl inspect."


@dataclasses.dataclass(slots=True)
class DivergenceAlarm:
    """Tells once for each excursion that values left what the rewards permit.

    Attributes:
        bounds: least and largest permitted value, or None for no alarm.
        is_outside: an excursion goes on.
        excursions: what was reported so far.
    """

    bounds: tuple[float, float] | None
    is_outside: bool = False
    excursions: list[dict[str, Any]] = dataclasses.field(default_factory=list[dict[str, Any]])

    def check(self, step: int, averages: Mapping[str, float]) -> str | None:
        """A message if an excursion begins at `step`."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        slack = SLACK * (high - low)
        values = {name: averages[name] for name in VALUE_NAMES if name in averages}
        outside = {name: v for name, v in values.items() if not low - slack <= v <= high + slack}
        is_new = bool(outside) and not self.is_outside
        if values:
            self.is_outside = bool(outside)
        if not is_new:
            return None
        self.excursions.append({"step": step, **outside})
        named = ", ".join(f"{name} = {value:.5g}" for name, value in outside.items())
        return (
            f"Values diverge at update {step}: {named}, but the rewards permit only {low:.5g} to {high:.5g}. "
            "Remedy: more critics, LayerNorm in the critics, shorter rollouts or a larger penalty."
        )

    def state_dict(self) -> StateDict:
        """Whether an excursion goes on, and all so far."""
        return {"is_outside": self.is_outside, "excursions": [dict(e) for e in self.excursions]}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self.is_outside = bool(state["is_outside"])
        self.excursions = [dict(e) for e in state["excursions"]]


class MetricFile:
    """`metrics.jsonl` and TensorBoard events of one run, cut back to a checkpoint on resume.

    Args:
        folder: of the run.
        position: bytes of `metrics.jsonl` that are kept; the rest was written after the checkpoint.
        step: update of the checkpoint; events after it are hidden from TensorBoard.

    Raises:
        StorageError: the files cannot be written, here and in every method.
    """

    def __init__(self, folder: Path, *, position: int = 0, step: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # 0.3 s that only a training needs

        self._path, self._events_path = folder / METRICS_FILE, folder / "tensorboard"
        with storing(self._path):
            self._file = self._path.open("ab")
            self._file.truncate(position)
        purge = step + 1 if step > 0 or any(self._events_path.glob("*")) else None
        with storing(self._events_path):
            self._events = SummaryWriter(str(self._events_path), purge_step=purge)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one row; numbers also go to TensorBoard."""
        row = json.dumps({"step": step, **values}).encode() + b"\n"
        with storing(self._path, size=len(row)):
            self._file.write(row)
        with storing(self._events_path):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._events.add_scalar(name, value, step)

    def sync(self) -> int:
        """Everything written so far is on disk afterwards; returns its length in bytes."""
        with storing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        with storing(self._events_path):
            self._events.flush()
        return self._file.tell()

    def close(self) -> None:
        """Syncs and closes."""
        try:
            self.sync()
        finally:
            with storing(self._path):
                self._file.close()
            with storing(self._events_path):
                self._events.close()


def sound_length(folder: Path, position: int) -> int:
    """Length of the rows that can be read among the first `position` bytes of a run's metrics, bytes."""
    path = folder / METRICS_FILE
    if position == 0 or not is_file(path):
        return 0
    with path.open("rb") as file:
        content = file.read(position)
    length = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or isinstance(_parse_row(line), str):
            break
        length += len(line)
    return length


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's `metrics.jsonl`, in order; a last line that was cut by a crash is left out.

    Raises:
        FileError: the file is unreadable, or a line is no row of metrics.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = read_file(path, remedy=MAKE_AGAIN).split(b"\n")[:-1]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        row = _parse_row(line)
        if isinstance(row, str):
            raise FileError(path, row, field=f"line {number}", remedy=MAKE_AGAIN)
        rows.append(row)
    return rows


def _parse_row(line: bytes) -> dict[str, Any] | str:
    """A row: its step, and numbers, or an event with its text; or what is wrong with it."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({str(error)[:100]})"
    if not isinstance(row, dict):
        return "it is not a JSON object"
    values = cast("dict[str, Any]", row)
    step = values.get("step")
    if type(step) is not int or step < 0:
        return f"its step is {str(step)[:40]!r}"
    if "event" in values:
        is_sound = all(isinstance(values.get(name), str) for name in ("event", "text"))
        return values if is_sound else "it is an event without text"
    wrong = [name for name, value in values.items() if type(value) not in (int, float)]
    return f"{wrong[0][:40]!r} is no number" if wrong else values
