"""Looks at the distributional shift of a policy during its training; changes nothing of the training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mbrl.core.protocols import Policy, ValueFn
from mbrl.core.types import StateDict
from mbrl.shift.probe import ShiftProbe
from mbrl.shift.report import alarms_by_kind


class Look(NamedTuple):
    """What one look found.

    Attributes:
        metrics: `shift/...`, finite.
        alarms: those that began to ring.
    """

    metrics: dict[str, float]
    alarms: list[str]


class ShiftMonitor:
    """Looks now and then, remembers mean values, and tells once for each excursion that an alarm rings.

    Args:
        make_probe: makes what is looked through, at the first look: a training that is over needs none.
    """

    def __init__(self, make_probe: Callable[[], ShiftProbe]) -> None:
        self._make_probe: Callable[[], ShiftProbe] | None = make_probe
        self._probe: ShiftProbe | None = None
        self._mean_values: dict[int, float] = {}
        self._ringing: list[str] = []
        self.report: dict[str, Any] | None = None

    def look(self, step: int, policy: Policy, value: ValueFn | None, *, generator: torch.Generator) -> Look:
        """Holds the policy after `step` updates against its log.

        Args:
            step: updates done.
            policy: of the learner.
            value: of the learner, or None.
            generator: of all draws.
        """
        if self._make_probe is not None:
            self._probe = self._make_probe()
            self._make_probe = None  # lets go of the dataset
        assert self._probe is not None
        report = self._probe.look(policy, value, step=step, past=self._mean_values, generator=generator)
        if report.mean_value is not None:
            self._mean_values[step] = report.mean_value
        alarms = alarms_by_kind(report)
        new = [text for kind, text in alarms.items() if kind not in self._ringing]
        self._ringing = list(alarms)
        self.report = report.to_json()
        return Look(report.metrics(), new)

    def state_dict(self) -> StateDict:
        """Mean values, alarms that ring, and the last report."""
        return {
            "mean_values": dict(self._mean_values),
            "ringing": list(self._ringing),
            "report": None if self.report is None else dict(self.report),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._mean_values = dict(state["mean_values"])
        self._ringing = list(state["ringing"])
        self.report = None if state["report"] is None else dict(state["report"])
