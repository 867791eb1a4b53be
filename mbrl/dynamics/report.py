"""Everything that a fit says about itself, as numbers; figures are drawn from it elsewhere.

Normalised units are standard deviations of the training targets `(s' - s, r)`, the reward last. Intervals are
90 % bootstrap intervals over episodes.
"""

from typing import Annotated, Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from mbrl.dynamics.channel_report import ChannelReport, ReportPart, RewardReport, SuccessorReport
from mbrl.dynamics.config import default_updates
from mbrl.dynamics.gap_report import GapReport

Floats = tuple[float, ...]

LATE_SHARE: Final = 0.8
"""Share of the updates after which an error should have settled."""

SETTLED_GAIN: Final = 0.05
"""Share by which a settled error may still fall over the rest."""

ANNEALED_GAIN: Final = 0.25
"""Likewise in a fit of the default length or longer, which gains as its step size falls to zero."""

NEGLIGIBLE_ERROR: Final = 1e-4
"""Squared error, normalised, below which no more is to be gained: a hundredth of a deviation."""


def to_floats(values: NDArray[Any]) -> Floats:
    """A 1-d array as Python numbers."""
    return tuple(cast(list[float], values.astype(np.float64).tolist()))


def to_integers(values: NDArray[Any]) -> tuple[int, ...]:
    """A 1-d array of integers as Python numbers."""
    return tuple(cast(list[int], values.tolist()))


def _check_lengths(part: BaseModel, *names: str) -> None:
    """Refuses curves that do not belong together.

    Raises:
        ValueError: the fields have different lengths.
    """
    lengths = {name: len(getattr(part, name)) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {lengths}")


class TrainingReport(ReportPart):
    """How the ensemble was fitted.

    Attributes:
        train_rows: rows that it was fitted on.
        holdout_rows: rows that it is judged on.
        train_episodes: episodes that it was fitted on.
        holdout_episodes: episodes that it is judged on.
        is_split_by_block: episodes were too few, and were cut into blocks of time.
        updates: gradient steps so far, by epoch.
        member_errors: for each member its holdout error by epoch: mean squared error of the mean, normalised.
        member_best: least holdout error of each member; its weights of that epoch were kept.
        elites: the members that were kept, those with the least error.
        max_updates: at which the fit would have been stopped; 0 in reports of earlier versions.
    """

    train_rows: int
    holdout_rows: int
    train_episodes: int
    holdout_episodes: int
    is_split_by_block: bool
    updates: tuple[int, ...]
    member_errors: tuple[Floats, ...]
    member_best: Floats
    elites: tuple[int, ...]
    max_updates: Annotated[int, Field(ge=0)] = 0

    @property
    def late_gain(self) -> float:
        """Share by which the elites' error fell over the last fifth of the updates; 0 without epochs."""
        if not self.updates or not self.elites:
            return 0.0
        errors = np.array([self.member_errors[elite] for elite in self.elites])
        early = errors[:, np.array(self.updates) <= LATE_SHARE * self.updates[-1]]
        if early.shape[1] == 0:
            return 1.0
        before, after = early.min(1).mean(), errors.min(1).mean()
        return float(1.0 - after / before) if before > 0 else 0.0

    @property
    def settled(self) -> bool:
        """Whether the held-out error had settled when the fit ended.

        It had if no member improved any more (patience ended the fit), or if the last fifth of the updates
        that it was permitted lowered the error by less than 5 %; by less than 25 % if the fit had the default
        length at least. An error of a hundredth of a deviation has settled for every purpose.
        """
        if not self.updates:
            return False
        if max((self.member_best[elite] for elite in self.elites), default=np.inf) < NEGLIGIBLE_ERROR:
            return True
        is_long = self.updates[-1] >= default_updates(self.train_rows)
        ended_by_itself = self.updates[-1] < self.max_updates
        return ended_by_itself or self.late_gain < (ANNEALED_GAIN if is_long else SETTLED_GAIN)

    @property
    def settled_words(self) -> str:
        """The same for people, with a remedy where it had not."""
        if not self.updates:
            return "no epoch was made"
        if self.settled:
            return "yes"
        return (
            f"no: over the last fifth of {self.updates[-1]:,} updates it fell by {self.late_gain:.0%}; raise "
            "max_updates"
        )

    @model_validator(mode="after")
    def _lengths_agree(self) -> "TrainingReport":
        _check_lengths(self, "member_errors", "member_best")
        if any(len(errors) != len(self.updates) for errors in self.member_errors):
            raise ValueError(f"there are {len(self.updates)} epochs, and other numbers of errors")
        if not all(0 <= elite < len(self.member_best) for elite in self.elites):
            raise ValueError(f"the elites are {self.elites} of {len(self.member_best)} members")
        return self


class OneStepReport(ReportPart):
    """Errors one step ahead on held-out rows; `d` observation dimensions.

    Attributes:
        rows: how many.
        rmse: `d` root mean square errors of the elites' average, raw units.
        rmse_normalised: the same in standard deviations of the one-step change.
        persistence_normalised: likewise for "nothing changes".
        linear_normalised: likewise for ridge regression.
        nrmse: errors over standard deviations of the observation, mean over dimensions that vary.
        nrmse_persistence: likewise for "nothing changes".
        nrmse_linear: likewise for ridge regression.
        mse_raw: mean squared error of a member's mean over `(s' - s, r)` in raw units, mean over elites.
        nrmse_by_dimension: `d` errors of which `nrmse` is the mean; 0 for dimensions that count as constant.
    """

    rows: int
    rmse: Floats
    rmse_normalised: Floats
    persistence_normalised: Floats
    linear_normalised: Floats
    nrmse: float
    nrmse_persistence: float
    nrmse_linear: float
    mse_raw: float
    nrmse_by_dimension: Floats = ()

    @model_validator(mode="after")
    def _lengths_agree(self) -> "OneStepReport":
        _check_lengths(self, "rmse", "rmse_normalised", "persistence_normalised", "linear_normalised")
        return self


class CalibrationReport(ReportPart):
    """Whether intervals cover what they claim; fitted on half of the held-out episodes, judged on the rest.

    Attributes:
        rows: held-out rows of the judging half.
        episodes: its episodes.
        fit_rows: rows that the temperatures were fitted on.
        temperature: factor on the predicted deviation of each target dimension.
        levels: nominal levels.
        coverage_before: observed coverage at each level as fitted, mean over dimensions.
        coverage_after: likewise after recalibration.
        coverage_by_dimension: for each level, the coverage of each dimension after recalibration.
        pit_before: counts of the probability integral transform in equal bins, all dimensions, as fitted.
        pit_after: likewise after recalibration.
        pit_by_dimension: for each dimension its counts after recalibration.
        ks: distance of each dimension's transform from uniform after recalibration.
        ece_before: mean distance of coverage from its level, by dimension, as fitted.
        ece: likewise after recalibration.
        flagged: dimensions whose `ece` exceeds 0.05 and that do not count as constant.
        nll_before: nats by dimension, normalised units, as fitted.
        nll: likewise after recalibration.
        nll_raw: mean of `nll` in raw units.
        successors: of networks over states; None for other models.
    """

    rows: int
    episodes: int
    fit_rows: int
    temperature: Floats
    levels: Floats
    coverage_before: Floats
    coverage_after: Floats
    coverage_by_dimension: tuple[Floats, ...]
    pit_before: tuple[int, ...]
    pit_after: tuple[int, ...]
    pit_by_dimension: tuple[tuple[int, ...], ...]
    ks: Floats
    ece_before: Floats
    ece: Floats
    flagged: tuple[int, ...]
    nll_before: Floats
    nll: Floats
    nll_raw: float
    successors: SuccessorReport | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> "CalibrationReport":
        if 0.9 not in self.levels:
            raise ValueError("the level 0.9 is missing")
        _check_lengths(self, "levels", "coverage_before", "coverage_after")
        _check_lengths(self, "pit_before", "pit_after")
        _check_lengths(self, "temperature", "ks", "ece_before", "ece", "nll_before", "nll")
        for name, rows in (("coverage_by_dimension", "levels"), ("pit_by_dimension", "temperature")):
            if getattr(self, name):  # details that a summary may leave out
                _check_lengths(self, name, rows)
        return self

    def coverage(self, level: float) -> float:
        """Mean coverage after recalibration at one of `levels`."""
        return self.coverage_after[self.levels.index(level)]


class OpenLoopReport(ReportPart):
    """Errors against the horizon, open loop with the logged actions.

    Only horizons that a held-out segment reaches are listed. Errors are in deviations of the observation.

    Attributes:
        segments: how many reach each horizon.
        steps: horizons, from 1.
        error: median over segments of the ensemble's error (the mean of its particles).
        low: lower end of its interval.
        high: upper end.
        persistence: median error of "nothing changes".
        linear: median error of ridge regression.
        nrmse: root mean square error, mean over dimensions.
        nrmse_persistence: likewise for "nothing changes".
        nrmse_linear: likewise for ridge regression.
        coverage: coverage of the particles' 90 % interval.
        forecast_nrmse: `nrmse` of forecasts, which held-out episodes corrected (`mbrl.dynamics.forecast`);
            each was judged on episodes that did not correct it. Empty in reports of earlier versions.
        forecast_coverage: coverage of their 90 % interval, likewise.
        closed_nrmse: `nrmse` of particles that a linear law of who acted steers, instead of the logged
            actions (`mbrl.dynamics.assessment.behaviour`); empty in reports of earlier versions.
        closed_coverage: coverage of their 90 % interval, likewise.
        behaviour_error: of that law, over that of the mean action; 0 is exact, 1 knows nothing.
        ended_early: share of particles that the termination head has ended while the log went on.
        tolerance: error that a trusted step may have.
        least_coverage: coverage that a trusted step must have.
        trusted_horizon: steps that can be trusted; 0 says: do not roll out.
        reward_error: median error of the predicted reward, in deviations of the reward.
        reward_high: upper end of its interval.
        reward_constant: median error of always predicting the mean reward.
        observation_horizon: steps whose observations can be trusted; None in reports of earlier versions.
        reward_horizon: steps whose rewards can be trusted, likewise. The lesser is `trusted_horizon`.
    """

    segments: tuple[int, ...]
    steps: tuple[int, ...]
    error: Floats
    low: Floats
    high: Floats
    persistence: Floats
    linear: Floats
    nrmse: Floats
    nrmse_persistence: Floats
    nrmse_linear: Floats
    coverage: Floats
    ended_early: Floats
    tolerance: float
    least_coverage: float
    trusted_horizon: Annotated[int, Field(ge=0)]
    reward_error: Floats = ()
    reward_high: Floats = ()
    reward_constant: Floats = ()
    forecast_nrmse: Floats = ()
    forecast_coverage: Floats = ()
    closed_nrmse: Floats = ()
    closed_coverage: Floats = ()
    behaviour_error: float | None = None
    observation_horizon: int | None = None
    reward_horizon: int | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> "OpenLoopReport":
        curves = (
            name
            for name, field in type(self).model_fields.items()
            if field.annotation == Floats and getattr(self, name)  # a fit of before has no curves of rewards
        )
        _check_lengths(self, "segments", "steps", *curves)
        return self


class RankCorrelation(ReportPart):
    """Spearman correlation of an uncertainty measure with the true one-step error.

    Attributes:
        value: over all held-out rows.
        low: lower end of its interval.
        high: upper end.
        far_value: over the tenth of them that lies farthest from the training data.
        far_low: lower end of its interval.
        far_high: upper end.
    """

    value: float
    low: float
    high: float
    far_value: float
    far_low: float
    far_high: float


class TerminationReport(ReportPart):
    """The learned termination head on held-out rows.

    Attributes:
        is_learned: False where no training row terminated; the probability is then 0.
        train_terminated: terminated rows that it was trained on.
        rows: held-out rows.
        terminated: how many of them terminated.
        logged_rate: share of all logged steps that terminated.
        logged_rate_high: upper end of its 95 % interval (Wilson).
        predicted_rate: mean probability.
        precision: of a threshold at 1/2; None where it never fires.
        recall: of a threshold at 1/2; None where no row terminated.
        brier: mean squared error of the probability.
        brier_constant: that of always predicting the held-out rate.
    """

    is_learned: bool
    train_terminated: int
    rows: int
    terminated: int
    logged_rate: float
    logged_rate_high: float
    predicted_rate: float
    precision: float | None
    recall: float | None
    brier: float
    brier_constant: float

    def warn_of_imagined_rate(self, rate: float, *, mean_reward: float) -> str | None:
        """A warning if imagined episodes end too often where ending is good; None otherwise.

        Args:
            rate: imagined terminations per imagined step.
            mean_reward: mean logged reward: where it is negative, a false end is optimistic.
        """
        if rate <= self.logged_rate_high or mean_reward >= 0:
            return None
        return (
            f"Imagined episodes end at {rate:.2%} of their steps, logged ones at {self.logged_rate:.2%} "
            f"(at most {self.logged_rate_high:.2%}), and rewards are negative: a false end looks good."
        )


class DynamicsReport(ReportPart):
    """How a model was fitted and how far it can be trusted.

    Attributes:
        training: the fit.
        one_step: errors one step ahead.
        calibration: coverage of intervals.
        open_loop: errors against the horizon.
        correlations: for each uncertainty measure, whether it ranks errors.
        reward: the learned reward; None where the log has none.
        termination: the learned termination head.
        warnings: reasons to mistrust the model, in words.
        channels: constant and coarse dimensions of the observation.
        gaps: what the model does not know, and what to log next.
    """

    training: TrainingReport
    one_step: OneStepReport
    calibration: CalibrationReport
    open_loop: OpenLoopReport
    correlations: dict[str, RankCorrelation]
    reward: RewardReport | None
    termination: TerminationReport
    warnings: tuple[str, ...]
    channels: ChannelReport = ChannelReport()
    gaps: GapReport = GapReport()

    @property
    def trusted_horizon(self) -> int:
        """Steps that can be trusted; 0 says: do not roll out."""
        return self.open_loop.trusted_horizon
