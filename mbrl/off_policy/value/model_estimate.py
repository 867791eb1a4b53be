"""What roll-outs of a dynamics ensemble found, and the estimate that they give."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.ensembles import ensemble_estimate

MAX_DISAGREEMENT_SHARE: Final = 0.1
"""Share of live steps beyond the threshold (1 % is nominal) that means another world than the log's."""

_ALARM_ERRORS: Final = 2.0
"""Standard errors by which a model may exceed the fitted value before that looks like exploitation."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModelEstimate:
    """What the roll-outs of one policy found; shares are those of the live roll-outs of a step.

    Attributes:
        values: `[m, n]` float64, each member's value of each first state, plain sum.
        tails: `[m, n]`, the part of it that a fitted value stands for.
        terminated: `[m, n]`, share of the roll-outs that ended the task.
        disagreement: `[H]`, mean over live roll-outs; NaN where none lives.
        clip_rate: `[H]`, share whose s' or reward left the data and was clipped; NaN likewise.
        stopped: `[H]` int64, roll-outs that ended because the members disagreed beyond the limit.
        alive_share: `[H]`, share of all roll-outs that live.
        disagreement_share: share of all live steps with a disagreement beyond the threshold.
        rollouts: of all members.
        tail_bound: most that the steps beyond the roll-outs can be worth where no value stands for them.
        estimand: what was estimated.
        starts: `[n]`, which of the first states these are, where only a part of them was used.
    """

    values: Array
    tails: Array
    terminated: Array
    disagreement: Array
    clip_rate: Array
    stopped: NDArray[np.int64]
    alive_share: Array
    disagreement_share: float
    rollouts: int
    tail_bound: float
    estimand: Estimand
    starts: NDArray[np.int64] | None = None

    @property
    def tail_share(self) -> float:
        """`|mean of the tails| / |mean value|`; inf where only the latter is 0."""
        tail, point = abs(float(self.tails.mean())), abs(float(self.values.mean()))
        return tail / point if point > 0 else (0.0 if tail == 0.0 else math.inf)

    def estimate(self, reference: Estimate | None = None) -> Estimate:
        """The ensemble's estimate; hybrid where fitted values stand for a part of it.

        Args:
            reference: a valid estimate by fitted values, to notice a policy that exploits the model.
        """
        estimate = ensemble_estimate("model_value", "model", self.values, self.estimand)
        details = {**estimate.details, **self._findings()}
        if not math.isfinite(estimate.point):
            return dataclasses.replace(estimate, details={**details, "exploitation_alarm": True})
        alarm = self._is_exploited(estimate, reference)
        estimate = dataclasses.replace(
            estimate,
            family="hybrid" if self.tail_share > 0 else "model",
            details={**details, "exploitation_alarm": alarm},
        )
        if alarm:
            estimate = estimate.flagged(Flag.EXPLOITATION_ALARM)
        if self.tail_bound > 0:
            estimate = estimate.flagged(Flag.TAIL_LEFT_OUT)
        if self.disagreement_share >= MAX_DISAGREEMENT_SHARE:
            reason = f"{self.disagreement_share:.0%} of the imagined steps lie beyond what the data can tell"
            estimate = estimate.invalidated(reason, Flag.LEAVES_THE_DATA)
        return estimate

    def _is_exploited(self, estimate: Estimate, reference: Estimate | None) -> bool:
        if self.disagreement_share > MAX_DISAGREEMENT_SHARE:
            return True
        if reference is None or not (math.isfinite(reference.point) and math.isfinite(reference.se)):
            return False
        # J_model > J_value + 2 sqrt(se_model^2 + se_value^2).
        spread = math.hypot(estimate.se if math.isfinite(estimate.se) else 0.0, reference.se)
        return estimate.point > reference.point + _ALARM_ERRORS * spread

    def _findings(self) -> dict[str, Any]:
        names = ("disagreement", "clip_rate", "stopped", "alive_share", "disagreement_share", "rollouts")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        scale = self.estimand.scale
        if self.starts is not None:
            found["starts"] = self.starts
        found |= {"tail_share": self.tail_share, "tail_bound": scale * self.tail_bound}
        if self.rollouts == self.values.size:  # a mean over several roll-outs has another distribution
            found |= {"rollout_returns": scale * self.values, "rollout_terminated": self.terminated}
        return found


def model_diagnostics(estimate: Estimate) -> dict[str, Any]:
    """What a report says of the roll-outs, as plain values; empty for an estimate without roll-outs.

    `stopped` counts roll-outs out of `model_rollouts`, `clip_rate` holds shares of the live ones.
    """
    details: Mapping[str, Any] = estimate.details
    if "disagreement_share" not in details:
        return {}
    return {
        "model_disagreement_share": float(details["disagreement_share"]),
        "model_rollouts": int(details["rollouts"]),
        "stopped": [int(count) for count in details["stopped"]],
        "clip_rate": [float(rate) if math.isfinite(rate) else None for rate in details["clip_rate"]],
        "exploitation_alarm": bool(details["exploitation_alarm"]),
    }
