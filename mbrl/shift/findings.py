"""What a look at a policy finds, while it is being made."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from mbrl.core.errors import NonFiniteError
from mbrl.rollouts.generate import Rollouts
from mbrl.shift.report import ShiftReport


@dataclasses.dataclass(slots=True)
class ShiftFindings:
    """Fills a report: a value that is missing or not finite gets its reason.

    Attributes:
        reasons: why a part of a probe is missing, by its name.
        values: what was measured.
        rows: how many rows a statistic rests on.
        why_not: reasons by the name of a statistic.
    """

    reasons: dict[str, str]
    values: dict[str, float | int | None] = dataclasses.field(default_factory=dict[str, float | int | None])
    rows: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    why_not: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    def put(self, name: str, value: float | None, *, why_not: str = "it is not finite") -> None:
        """Files a value; None stands for one that `why_not` says is missing."""
        # A report is JSON, which has no NaN, and an alarm that compares with one is silent.
        if value is None or not math.isfinite(value):
            self.why_not[name] = why_not if value is None else "it is not finite"
            return
        self.values[name] = value

    def skip(self, reason: str, *names: str) -> None:
        """Files a reason in the place of values."""
        self.why_not |= dict.fromkeys(names, reason)

    def lack(self, part: str, *names: str) -> None:
        """The same where a part of the probe is missing."""
        self.skip(self.reasons.get(part, f"there is no {part}"), *names)

    def imagine(self, run: Callable[[], Rollouts], names: tuple[str, ...]) -> Rollouts | None:
        """Rollouts with at least one valid step, or None with the reason."""
        try:
            rollouts = run()
        # A finding, not a failure: a diagnosis must not stop the training that it looks at.
        except NonFiniteError:
            self.skip("the model blows up along the policy's rollouts", *names)
            return None
        if not bool(rollouts.valid.any()):
            self.skip("no imagined step was kept", *names)
            return None
        return rollouts

    def report(self, step: int, updates: int) -> ShiftReport:
        """The report of a look after `step` of `updates`."""
        fields: dict[str, Any] = {**self.values, "rows": self.rows, "why_not": self.why_not}
        return ShiftReport(step=step, updates=updates, **fields)
