"""What speaks against methods that learn from a model, on one dataset: the fits' own checks, and the data.

- A model that is trusted for no step, whose errors no uncertainty measure ranks, or that misses most
  terminations rules its methods out: their scores cannot be owed to it, and another seed may find the holes.
- Intervals that miss their level only caution. Penalties and cuts of rollouts ask which of two inputs is the
  less certain, and take their unit from quantiles on the data: they need the order alone.
- Data of a kind on which models usually lose only caution too: measured scores are better evidence.

A check counts when half of the fits or more fail it (`mbrl.dynamics.assessment.model_warnings`).
"""

import dataclasses
from collections import Counter
from typing import Final

import numpy as np

from mbrl.dynamics.assessment.model_warnings import (
    ModelWarning,
    WarningKind,
    find_warnings,
    is_disqualifying,
)
from mbrl.dynamics.report import DynamicsReport
from mbrl.report.kit.message import Message
from mbrl.report.kit.wording import format_count
from mbrl.report.study.facts import StudyDataset

NEAR_EXPERT: Final = 80.0
"""Normalised score that the median episode of near-expert data reaches."""

NARROW: Final = 60.0
"""Normalised score that nine of ten episodes of narrow near-expert data reach: they hold no failures."""

SPARSE: Final = 0.95
"""Share of rows with reward exactly 0 from which a reward counts as sparse."""

LONG: Final = 100
"""Steps of a mean episode from which a horizon counts as long."""

_RULES: Final[dict[WarningKind, str]] = {
    "horizon": "the model is trusted for no step",
    "calibration": "its intervals miss their level by more than 0.1 even after recalibration",
    "correlation": "no uncertainty measure ranks its errors, so that penalties would be noise",
    "termination": "its termination head finds fewer than half of the held-out terminations",
    "reward": "its reward is trusted for fewer steps than its states",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ModelTrust:
    """Reasons against a model on one dataset, in words.

    Attributes:
        ruled_out: failed checks that forbid model-based methods.
        cautions: failed checks that do not.
        unsuited: kinds of data, present here, on which models lose in published comparisons.
    """

    ruled_out: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    unsuited: tuple[str, ...] = ()

    @property
    def against(self) -> tuple[str, ...]:
        """All of them, the gravest first."""
        return (*self.ruled_out, *self.cautions, *self.unsuited)


def judge_models(data: StudyDataset) -> ModelTrust:
    """Counts the checks that the fits of a dataset fail, and looks at what kind of data it is.

    Args:
        data: the dataset with its fits, one for each seed.
    """
    fits = len(data.dynamics)
    counts = Counter(warning.kind for report in data.dynamics.values() for warning in _warnings(report))
    failed: dict[WarningKind, str] = {
        rule: f"{text} ({counts[rule]} of {format_count(fits, 'fit')})"
        for rule, text in _RULES.items()
        if 0 < fits <= 2 * counts[rule]
    }
    return ModelTrust(
        ruled_out=tuple(text for rule, text in failed.items() if is_disqualifying(rule)),
        cautions=tuple(text for rule, text in failed.items() if not is_disqualifying(rule)),
        unsuited=_unsuited(data),
    )


def about_models(data: StudyDataset, trust: ModelTrust) -> list[Message]:
    """What a reader must know of the models of a dataset.

    Args:
        data: the dataset with its fits.
        trust: what `judge_models` found.
    """
    messages: list[Message] = []
    if not data.dynamics:
        text = "No fit of a model is at hand: whether model-based methods may be trusted here is not known."
        messages.append(Message(text, "caution"))
    if trust.ruled_out:
        text = f"{data.label}: do not use a model-based method: {'; '.join(trust.ruled_out)}."
        messages.append(Message(text, "bad"))
    if trust.cautions:
        text = (
            f"Take no interval of the model at its word: {'; '.join(trust.cautions)}. Penalties need its "
            "errors ranked, not covered, so that this rules no method out."
        )
        messages.append(Message(text, "caution"))
    if trust.unsuited:
        kinds = "; ".join(trust.unsuited)
        text = f"Model-based methods usually lose to simpler ones on data like these: {kinds}."
        messages.append(Message(text, "caution"))
    if data.dynamics and not trust.against:
        horizons = sorted(report.trusted_horizon for report in data.dynamics.values())
        text = (
            "Nothing speaks against a model here: its fits pass their checks, and it is trusted for "
            f"{format_count(horizons[len(horizons) // 2], 'step')} in the middle one of "
            f"{format_count(len(horizons), 'fit')}."
        )
        messages.append(Message(text))
    return messages


def _warnings(report: DynamicsReport) -> tuple[ModelWarning, ...]:
    return find_warnings(report)


def _unsuited(data: StudyDataset) -> tuple[str, ...]:
    found: list[str] = []
    if data.scores:
        median, tenth = np.quantile(np.asarray(data.scores, dtype=np.float64), [0.5, 0.1])
        if median >= NEAR_EXPERT and tenth >= NARROW:
            found.append(
                f"narrow and near-expert (the median episode scores {median:.0f}, nine of ten at least "
                f"{tenth:.0f})"
            )
    zeros = [report.reward.share_zero for report in data.dynamics.values() if report.reward is not None]
    stats = data.report.stats
    if zeros and stats is not None and stats.lengths.mean >= LONG and min(zeros) >= SPARSE:
        found.append(f"a sparse reward over long episodes ({100 * min(zeros):.0f} % of rewards are 0)")
    return tuple(found)
