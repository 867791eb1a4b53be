"""How a success classifier tells episodes that it did not learn from, and what speaks against its labels."""

from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from mbrl.data.dataset import Dataset
from mbrl.ops.preferences import logistic_loss
from mbrl.ops.shares import wilson_interval
from mbrl.preferences.calibration import (
    ReliabilityBin,
    calibration_error,
    chance_error,
    reliability_bins,
    sure_and_correct,
)
from mbrl.preferences.reward_model import RewardEnsemble
from mbrl.preferences.success.steps import LabelledSteps

_LEAK_AREA: Final = 0.999
"""Area under the curve of one channel from which on it tells the label by itself."""

_Share = Annotated[float, Field(ge=0, le=1)]


class ClassReport(BaseModel):
    """How steps of one class are told.

    Attributes:
        steps: that judged.
        episodes: that hold them.
        recall: share of them that is given this class.
        low: lower end of its 95 % interval (Wilson), which counts an episode once.
        high: upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    episodes: int
    recall: _Share
    low: _Share
    high: _Share


class StepReport(BaseModel):
    """How a success classifier tells steps of episodes that it was not fitted to.

    Attributes:
        steps: labelled ones that judged it.
        episodes: that hold them.
        successes: how those that succeeded are told.
        failures: how those that failed are told.
        area: under the receiver's curve: probability that a success is given more than a failure.
        log_loss: mean cross-entropy, nats.
        log_loss_of_share: that of a model that knows nothing but the share of successes among what was
            learned from.
        calibration_error: see `PairReport`.
        calibration_chance: likewise, for episodes whose steps come true together.
        disagreement: mean deviation of the members' probabilities.
        bins: the reliability diagram, least sure first; intervals count an episode once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    episodes: int
    successes: ClassReport
    failures: ClassReport
    area: _Share
    log_loss: Annotated[float, Field(ge=0)]
    log_loss_of_share: Annotated[float, Field(ge=0)]
    calibration_error: _Share
    calibration_chance: _Share
    disagreement: _Share
    bins: tuple[ReliabilityBin, ...]


def judge_steps(model: RewardEnsemble, held_out: LabelledSteps, *, share: float, seed: int = 0) -> StepReport:
    """Holds a classifier against labelled steps that it was not fitted to, of both classes.

    Args:
        model: the ensemble; its probability is the mean of its members'.
        held_out: the steps.
        share: of successes among the steps that were learned from.
        seed: of the draws behind `calibration_chance`.
    """
    by_member = model.log_odds(*held_out.inputs()).double().sigmoid()
    probability, target = by_member.mean(0), held_out.target.double()
    logit = probability.clamp(1e-12, 1 - 1e-12).logit()
    base = np.full(len(held_out), np.clip(share, 1e-12, 1 - 1e-12))
    episode = np.unique(held_out.episode.numpy(), return_inverse=True)[1].astype(np.int64)
    found, told = probability.numpy(), target.numpy()
    sure, correct = sure_and_correct(found, told)
    return StepReport(
        steps=len(held_out),
        episodes=int(episode.max()) + 1,
        successes=_class_report(found > 0.5, told > 0.5, episode),
        failures=_class_report(found <= 0.5, told < 0.5, episode),
        area=rank_area(found, told),
        log_loss=float(logistic_loss(logit, target).mean()),
        log_loss_of_share=float(-(told * np.log(base) + (1 - told) * np.log1p(-base)).mean()),
        calibration_error=calibration_error(sure, correct),
        calibration_chance=chance_error(sure, seed=seed, groups=episode),
        disagreement=float(by_member.std(0, correction=0).mean()),
        bins=reliability_bins(sure, correct, groups=episode),
    )


def rank_area(score: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """`P(x+ > x-) + P(x+ = x-) / 2`: Mann & Whitney's statistic, the area under the receiver's curve.

    Args:
        score: `[n]`, x.
        target: `[n]`, above one half for successes, below for failures; others are left out. Both are there.
    """
    success, failure = target > 0.5, target < 0.5
    ranks = stats.rankdata(np.concatenate([score[success], score[failure]]))
    n, m = int(success.sum()), int(failure.sum())
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def find_leaks(dataset: Dataset, steps: LabelledSteps, *, reads_actions: bool) -> list[str]:
    """Names of channels each of which tells all labels by itself, by a threshold.

    Args:
        dataset: the log, for the names.
        steps: all labelled ones, of both classes.
        reads_actions: whether the classifier reads actions.
    """
    observation, action = (values.double().numpy() for values in steps.inputs())
    names = list(dataset.obs_names)
    values = observation
    if reads_actions:
        names, values = [*names, *dataset.act_names], np.concatenate([observation, action], 1)
    areas = [rank_area(column, steps.target.numpy()) for column in values.T]
    return [name for name, area in zip(names, areas, strict=True) if max(area, 1 - area) >= _LEAK_AREA]


def _class_report(
    is_given: NDArray[np.bool_], is_class: NDArray[np.bool_], episode: NDArray[np.int64]
) -> ClassReport:
    recall, episodes = float(is_given[is_class].mean()), len(np.unique(episode[is_class]))
    low, high = wilson_interval(recall, float(episodes))
    return ClassReport(steps=int(is_class.sum()), episodes=episodes, recall=recall, low=low, high=high)
