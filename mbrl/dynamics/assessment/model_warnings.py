"""Warnings about a fitted model, from what its report says, and which of them forbid to roll it out."""

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import numpy as np

from mbrl.dynamics.channel_report import ChannelReport, RewardOutliers
from mbrl.dynamics.report import DynamicsReport
from mbrl.ops.spread import FENCE

WarningKind: TypeAlias = Literal[
    "horizon",
    "calibration",
    "correlation",
    "termination",
    "reward",
    "outliers",
    "constant",
    "coarse",
    "choices",
]

MAX_ECE: Final = 0.1
"""Calibration error after recalibration, mean over dimensions that vary, beyond which intervals are not
believed."""

MIN_RECALL: Final = 0.5
"""Share of held-out terminations that a termination head must find."""

_DISQUALIFYING: Final[frozenset[WarningKind]] = frozenset({"horizon", "correlation", "termination"})


@dataclasses.dataclass(frozen=True, slots=True)
class ModelWarning:
    """One check that a model, or the log that it was fitted to, fails.

    Attributes:
        kind: which check.
        text: what was found, in words.
    """

    kind: WarningKind
    text: str


def is_disqualifying(kind: WarningKind) -> bool:
    """Whether a model with this warning should not be rolled out.

    Calibration is no reason: penalties need the order of the errors, which the check of correlation asks for,
    and not the width of intervals. Rewards and columns of the log are none either: where they spoil
    predictions, the horizon is 0.
    """
    return kind in _DISQUALIFYING


def find_warnings(report: DynamicsReport) -> tuple[ModelWarning, ...]:
    """The checks that a fit fails.

    The horizon is 0 also where few states lie in the 90 % intervals of rollouts: an ensemble that is sure and
    wrong where it matters for rollouts fails that check, besides or instead of the one of calibration.

    Args:
        report: all figures of the fit; its own `warnings` do not count.
    """
    return (*_check_model(report), *_check_log(report))


def _check_model(report: DynamicsReport) -> Iterator[ModelWarning]:
    head = report.termination
    if report.trusted_horizon == 0:
        text = "The trusted horizon is 0: do not roll out; use a model-free learner."
        yield ModelWarning("horizon", text + explain_first_step(report))
    error = _mean_ece(report)
    if error > MAX_ECE:
        text = f"Intervals miss their level by {error:.2f} on average, even after recalibration."
        yield ModelWarning("calibration", text)
    if not any(correlation.low > 0 for correlation in report.correlations.values()):
        text = "No uncertainty measure ranks the one-step errors: penalties would be noise."
        yield ModelWarning("correlation", text)
    if head.is_learned and head.recall is not None and head.recall < MIN_RECALL:
        text = f"The termination head finds only {100 * head.recall:.0f} % of the held-out terminations."
        yield ModelWarning("termination", text)
    loop = report.open_loop
    observed, rewarded = loop.observation_horizon, loop.reward_horizon
    if observed is not None and rewarded is not None and rewarded < observed:
        text = (
            f"Observations are trusted for {observed} steps, the reward for {rewarded} only: its median "
            f"error is then {loop.reward_error[rewarded]:.2g} standard deviations, that of the mean reward "
            f"{loop.reward_constant[rewarded]:.2g}."
        )
        yield ModelWarning("reward", text)


def _check_log(report: DynamicsReport) -> Iterator[ModelWarning]:
    if report.reward is not None and report.reward.outliers is not None:
        yield ModelWarning("outliers", _describe_outliers(report.reward.outliers))
    channels = report.channels
    nearly = [channel for channel in channels.constant if channel.std > 0]
    if nearly:
        listed = ", ".join(f"{channels.label(c.dimension)} ({c.std:.1g} around {c.mean:.4g})" for c in nearly)
        text = (
            f"Observation dimensions that hardly vary count as constant: {listed}. If their changes matter, "
            "subtract an offset from them."
        )
        yield ModelWarning("constant", text)
    if channels.rare_choices:
        yield ModelWarning("choices", _describe_choices(channels))
    if channels.coarse:
        yield ModelWarning("coarse", _describe_coarse(channels))


def _mean_ece(report: DynamicsReport) -> float:
    """Over observation dimensions that vary, and the reward where there is one."""
    ece = np.asarray(report.calibration.ece, dtype=np.float64)
    left_out = [channel.dimension for channel in report.channels.constant]
    left_out += [len(ece) - 1] if report.reward is None else []
    kept = np.delete(ece, left_out)
    return float(kept.mean()) if len(kept) else 0.0


def explain_first_step(report: DynamicsReport) -> str:
    """Why not even one step is trusted: a space and a sentence, or nothing where the figures do not tell."""
    loop, by_dimension = report.open_loop, report.one_step.nrmse_by_dimension
    if not loop.steps:
        return ""
    reasons: list[str] = []
    if not loop.high[0] <= loop.tolerance:
        worst = int(np.argmax(by_dimension)) if by_dimension else None
        where = "" if worst is None else f", most of it in dimension {report.channels.label(worst)}"
        reasons.append(f"an error of up to {loop.high[0]:.2g} standard deviations{where}")
    if not loop.error[0] < loop.persistence[0]:
        reasons.append("no gain on predicting that nothing changes")
    if not loop.coverage[0] >= loop.least_coverage:
        reasons.append(f"{100 * loop.coverage[0]:.0f} % of states inside the 90 % interval")
    return f" One step ahead it has {'; '.join(reasons)}." if reasons else ""


def _describe_outliers(found: RewardOutliers) -> str:
    others = "" if found.count == 1 else f" and {found.count - 1} more like it"
    width = (found.largest - found.least) or abs(found.largest)
    beyond = max(found.least - found.value, found.value - found.largest) / width
    return (
        f"The reward {found.value:.4g} of episode {found.episode}, row {found.row}{others} lies {beyond:.1g} "
        f"times the range of all other rewards beyond them. The model was fitted as if it lay {FENCE:g} of "
        "these ranges beyond; correct the log, or log more of what it tells."
    )


def _describe_choices(channels: ChannelReport) -> str:
    never = [choice.name for choice in channels.rare_choices if choice.rows == 0]
    few = [f"{choice.name} ({choice.rows})" for choice in channels.rare_choices if choice.rows > 0]
    parts: list[str] = []
    if never:
        text = f"Choices that no training row took: {', '.join(never)}. What the model predicts for them "
        parts.append(text + "is invented.")
    if few:
        parts.append(f"Choices that few training rows took: {', '.join(few)}; their effect is hardly known.")
    return " ".join(parts)


def _describe_coarse(channels: ChannelReport) -> str:
    listed = ", ".join(
        f"{channels.label(c.dimension)} (changes of {c.change:.1g} around {c.size:.4g}, "
        f"float32 has steps of {c.resolution:.1g})"
        for c in channels.coarse
    )
    return (
        f"Float32 resolves these observation dimensions badly: {listed}. Subtract an offset from them before "
        "they are logged."
    )
