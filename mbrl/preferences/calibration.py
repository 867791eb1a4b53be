"""Whether the probabilities of a reward model are those of the answers: accuracy, reliability, disputes."""

import math
from typing import Annotated, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.ops.preferences import bradley_terry_loss, preference_probability
from mbrl.ops.shares import wilson_interval
from mbrl.preferences.fit import segment_sums
from mbrl.preferences.reward_model import RewardEnsemble
from mbrl.preferences.segments import SegmentPairs

BINS: Final = 5
"""Bins of equally many pairs."""

_DRAWS: Final = 1000
_LEVEL: Final = 0.95
_Share = Annotated[float, Field(ge=0, le=1)]


class ReliabilityBin(BaseModel):
    """Pairs, or steps of a success classifier, of which the model is about equally sure.

    Attributes:
        pairs: in the bin; or steps.
        confidence: mean probability of the side that the model prefers, 0.5 to 1.
        correct: share of answers for that side; an equal pair counts half.
        low: lower end of its 95 % interval (Wilson).
        high: upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    confidence: _Share
    correct: _Share
    low: _Share
    high: _Share


class PairReport(BaseModel):
    """How a reward model tells pairs that it was not fitted to.

    Attributes:
        pairs: that judged it.
        log_loss: mean cross-entropy, nats; that of a coin is 0.693.
        accuracy: share of pairs with a preferred side whose side the model gives more than one half; None
            without such pairs.
        accuracy_low: lower end of its 95 % interval (Wilson).
        accuracy_high: upper end.
        calibration_error: `sum_b n_b / n |confidence_b - correct_b|` over the bins, 0 to 0.5 or so.
        calibration_chance: what the error of a perfectly calibrated model stays below with a probability of
            95 %: so few pairs are never even, whatever the model (Broecker & Smith 2007).
        disagreement: mean deviation of the members' probabilities.
        bins: the reliability diagram, least sure first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    log_loss: Annotated[float, Field(ge=0)]
    accuracy: _Share | None
    accuracy_low: _Share | None
    accuracy_high: _Share | None
    calibration_error: _Share
    calibration_chance: _Share
    disagreement: _Share
    bins: tuple[ReliabilityBin, ...]


def member_probabilities(
    model: RewardEnsemble, pairs: SegmentPairs, *, lapse: float = 0.0
) -> Float[Tensor, "e n"]:
    """Each member's probability that left is preferred."""
    sums = segment_sums(model, pairs)
    return preference_probability(sums[..., 0], sums[..., 1], lapse=lapse)


def judge_pairs(
    model: RewardEnsemble, pairs: SegmentPairs, *, lapse: float = 0.0, seed: int = 0
) -> PairReport:
    """Holds a model against answered pairs that it was not fitted to.

    Args:
        model: the ensemble; its probability is the mean of its members'.
        pairs: at least one.
        lapse: that the model was fitted with.
        seed: of the draws behind `calibration_chance`.
    """
    by_member = member_probabilities(model, pairs, lapse=lapse).double()
    probability, target = by_member.mean(0), pairs.target.double()
    # The loss of the mean probability, through its logit.
    logit = torch.logit(probability.clamp(1e-12, 1 - 1e-12))
    loss = bradley_terry_loss(logit, torch.zeros_like(logit), target).mean()
    decided = target != 0.5
    total = int(decided.sum())
    right = int(((probability > 0.5) == (target > 0.5))[decided].sum())
    low, high = wilson_interval(right / total, float(total)) if total else (None, None)
    sure, correct = sure_and_correct(probability.numpy(), target.numpy())
    spread = by_member.std(0, correction=0).mean()
    return PairReport(
        pairs=len(pairs),
        log_loss=float(loss),
        accuracy=right / total if total else None,
        accuracy_low=low,
        accuracy_high=high,
        calibration_error=calibration_error(sure, correct),
        calibration_chance=chance_error(sure, seed=seed),
        disagreement=float(spread),
        bins=reliability_bins(sure, correct),
    )


def calibration_error(sure: NDArray[np.float64], correct: NDArray[np.float64], *, bins: int = BINS) -> float:
    """`sum_b n_b / n |mean sure - mean correct|` over bins of equally many cases (Naeini et al. 2015).

    Args:
        sure: probability of what is predicted.
        correct: 1 where it came true, 0 where not.
        bins: how many, at most one for each case.
    """
    parts = _parts(sure, bins)
    return float(sum(len(p) * abs(sure[p].mean() - correct[p].mean()) for p in parts) / len(sure))


def chance_error(
    sure: NDArray[np.float64],
    *,
    bins: int = BINS,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> float:
    """The 95 % quantile of `calibration_error` where every probability is right, by drawing answers.

    Args:
        sure: probability of what is predicted.
        bins: as in `calibration_error`.
        seed: of the draws.
        groups: `[n]`, of cases that come true together, such as the steps of an episode: one draw decides all
            of a group. None for independent cases.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.random((_DRAWS, len(sure) if groups is None else int(groups.max()) + 1))
    came = ((drawn if groups is None else drawn[:, groups]) < sure).astype(np.float64)
    gaps = [len(p) * np.abs(sure[p].mean() - came[:, p].mean(1)) for p in _parts(sure, bins)]
    return float(np.quantile(np.sum(gaps, axis=0) / len(sure), _LEVEL))


def sure_and_correct(
    probability: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the side that is predicted, 0.5 to 1, and how far that came true, 0 to 1."""
    prefers_left = probability >= 0.5
    return np.where(prefers_left, probability, 1 - probability), np.where(prefers_left, target, 1 - target)


def _parts(sure: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    order = np.argsort(sure, kind="stable")
    return [part for part in np.array_split(order, min(bins, len(order))) if len(part)]


def reliability_bins(
    sure: NDArray[np.float64],
    correct: NDArray[np.float64],
    *,
    groups: NDArray[np.int64] | None = None,
) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram, least sure first.

    Args:
        sure: see `sure_and_correct`.
        correct: likewise.
        groups: `[n]`, of cases that depend on each other: intervals count a group once.
    """
    found: list[ReliabilityBin] = []
    for part in _parts(sure, BINS):
        share = float(correct[part].mean())
        count = len(part) if groups is None else len(np.unique(groups[part]))
        low, high = wilson_interval(share, float(count), level=_LEVEL)
        found.append(
            ReliabilityBin(
                pairs=len(part),
                confidence=min(float(sure[part].mean()), 1.0),
                correct=share,
                low=low,
                high=high,
            )
        )
    return tuple(found)


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's; NaN where one of the two is constant."""
    if first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])
