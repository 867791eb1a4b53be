"""Warnings about a fitted model, from what its report says, and which of them forbid to roll it out."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from mbrl.dynamics.report import CalibrationReport, OpenLoopReport, RankCorrelation, TerminationReport

WarningKind: TypeAlias = Literal["horizon", "calibration", "correlation", "termination"]

MAX_ECE: Final = 0.1
"""Calibration error after recalibration, mean over dimensions, beyond which intervals are not believed."""

MIN_RECALL: Final = 0.5
"""Share of held-out terminations that a termination head must find."""

_ADVISORY: Final[frozenset[WarningKind]] = frozenset({"calibration"})


@dataclasses.dataclass(frozen=True, slots=True)
class ModelWarning:
    """One check that a model fails.

    Attributes:
        kind: which check.
        text: what was found, in words.
    """

    kind: WarningKind
    text: str


def is_disqualifying(kind: WarningKind) -> bool:
    """Whether a model with this warning should not be rolled out.

    All are but calibration: penalties need the order of the errors, which the check of correlation asks for,
    and not the width of intervals.
    """
    return kind not in _ADVISORY


def find_warnings(
    calibration: CalibrationReport,
    open_loop: OpenLoopReport,
    correlations: Mapping[str, RankCorrelation],
    head: TerminationReport,
) -> tuple[ModelWarning, ...]:
    """The checks that a fit fails.

    The horizon is 0 also where few states lie in the 90 % intervals of rollouts: an ensemble that is sure and
    wrong where it matters for rollouts fails that check, besides or instead of the one of calibration.

    Args:
        calibration: coverage of intervals.
        open_loop: errors against the horizon.
        correlations: for each uncertainty measure, whether it ranks errors.
        head: the learned termination head.
    """
    warnings: list[ModelWarning] = []
    if open_loop.trusted_horizon == 0:
        text = "The trusted horizon is 0: do not roll out; use a model-free learner."
        warnings.append(ModelWarning("horizon", text))
    error = math.fsum(calibration.ece) / len(calibration.ece)
    if error > MAX_ECE:
        text = f"Intervals miss their level by {error:.2f} on average, even after recalibration."
        warnings.append(ModelWarning("calibration", text))
    if not any(correlation.low > 0 for correlation in correlations.values()):
        text = "No uncertainty measure ranks the one-step errors: penalties would be noise."
        warnings.append(ModelWarning("correlation", text))
    if head.is_learned and head.recall is not None and head.recall < MIN_RECALL:
        text = f"The termination head finds only {100 * head.recall:.0f} % of the held-out terminations."
        warnings.append(ModelWarning("termination", text))
    return tuple(warnings)
