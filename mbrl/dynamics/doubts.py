"""Reasons to mistrust a model, from what its report says, and which of them forbid to roll it out."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from mbrl.dynamics.report import CalibrationReport, OpenLoopReport, RankCorrelation, TerminationReport

Rule: TypeAlias = Literal["horizon", "calibration", "correlation", "termination"]

MAX_ECE: Final = 0.1
"""Calibration error after recalibration, mean over dimensions, beyond which intervals are not believed."""

MIN_RECALL: Final = 0.5
"""Share of held-out terminations that a termination head must find."""


_CAUTIONS: Final[frozenset[Rule]] = frozenset({"calibration"})


@dataclasses.dataclass(frozen=True, slots=True)
class Doubt:
    """One broken rule, and what was found, in words."""

    rule: Rule
    text: str


def is_disqualifying(rule: Rule) -> bool:
    """Whether a model that breaks the rule should not be rolled out.

    All do but calibration: penalties need the order of the errors, which the rule of correlation asks for,
    and not the width of intervals.
    """
    return rule not in _CAUTIONS


def doubts(
    calibration: CalibrationReport,
    open_loop: OpenLoopReport,
    correlations: Mapping[str, RankCorrelation],
    head: TerminationReport,
) -> tuple[Doubt, ...]:
    """The rules that a fit breaks.

    The horizon is 0 also where few states lie in the 90 % intervals of rollouts: an ensemble that is sure and
    wrong where it matters for rollouts breaks that rule, besides or instead of the one of calibration.

    Args:
        calibration: coverage of intervals.
        open_loop: errors against the horizon.
        correlations: for each uncertainty measure, whether it ranks errors.
        head: the learned termination head.
    """
    found: list[Doubt] = []
    if open_loop.trusted_horizon == 0:
        text = "The trusted horizon is 0: do not roll out; use a model-free learner."
        found.append(Doubt("horizon", text))
    worst = math.fsum(calibration.ece) / len(calibration.ece)
    if worst > MAX_ECE:
        text = f"Intervals miss their level by {worst:.2f} on average, even after recalibration."
        found.append(Doubt("calibration", text))
    if not any(correlation.low > 0 for correlation in correlations.values()):
        text = "No uncertainty measure ranks the one-step errors: penalties would be noise."
        found.append(Doubt("correlation", text))
    if head.is_learned and head.recall is not None and head.recall < MIN_RECALL:
        text = f"The termination head finds only {100 * head.recall:.0f} % of the held-out terminations."
        found.append(Doubt("termination", text))
    return tuple(found)
