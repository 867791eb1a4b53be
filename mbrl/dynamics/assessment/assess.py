"""Judges a recalibrated model on held-out episodes: errors, thresholds of its uncertainty, warnings."""

import dataclasses

import numpy as np
import torch

from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import measure_moments
from mbrl.data.splits import Split
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.behaviour import LinearBehaviour
from mbrl.dynamics.assessment.channels import measure_channels
from mbrl.dynamics.assessment.forecasts import fit_forecast, judge_forecasts, plain_forecast
from mbrl.dynamics.assessment.gaps import find_gaps
from mbrl.dynamics.assessment.measures import MeasuredRows, MeasureFactory, evaluate_measures
from mbrl.dynamics.assessment.model_warnings import find_warnings
from mbrl.dynamics.assessment.one_step import HeldOutSteps, measure_one_step, measure_reward, predict_held_out
from mbrl.dynamics.assessment.open_loop import draw_segments, run_open_loop
from mbrl.dynamics.assessment.ranking import distance_to_training, rank_errors
from mbrl.dynamics.assessment.termination import measure_termination
from mbrl.dynamics.assessment.thresholds import Thresholds, fit_thresholds
from mbrl.dynamics.assessment.trust import RewardMoments, judge_open_loop
from mbrl.dynamics.channel_report import RewardOutliers
from mbrl.dynamics.config import AssessmentConfig
from mbrl.dynamics.fitted_model import FittedModel
from mbrl.dynamics.forecast import Forecast
from mbrl.dynamics.report import (
    CalibrationReport,
    DynamicsReport,
    OpenLoopReport,
    RankCorrelation,
    TrainingReport,
    to_floats,
)

_CLOSED_PARTICLES = 25  # with the law in the loop: its mean and interval, at a quarter of the cost


@dataclasses.dataclass(frozen=True, slots=True)
class Assessment:
    """What judging a model yields.

    Attributes:
        thresholds: quantiles of each measure by probability.
        forecast: corrections of predictions of several steps.
        report: all figures, and the warnings that follow from them.
    """

    thresholds: Thresholds
    forecast: Forecast
    report: DynamicsReport


@torch.no_grad()
def assess(
    model: FittedModel,
    termination: TerminationFn,
    split: Split,
    *,
    training: TrainingReport,
    calibration: CalibrationReport,
    outliers: RewardOutliers | None,
    config: AssessmentConfig,
    measures: MeasureFactory,
    rng: RngStreams,
    has_rewards: bool = True,
) -> Assessment:
    """Judges `model` on the whole holdout; nothing that it is given changes.

    Args:
        model: the elites, with their temperature.
        termination: the head.
        split: what both were fitted on, and what they were not.
        training: figures of the fit.
        calibration: figures of the temperature.
        outliers: absurd rewards in the whole log.
        config: sizes and tolerances of the report.
        measures: makes the uncertainty measures to be judged.
        rng: streams of the report.
        has_rewards: False where the rewards of `split` stand for none.
    """
    train, holdout = (part.transitions().successors_known() for part in (split.train, split.holdout))
    rows = thin(holdout, config.max_rows)
    steps, linear = predict_held_out(model, rows), LinearModel.fit(train)
    held_out, fitted = _measure(model, measures, rows, train, config, rng)
    correlations = _rank(model, rows, train, steps, held_out, config, rng)
    forecast, open_loop = _judge_open_loop(model, termination, linear, split, config, rng)
    report = DynamicsReport(
        training=training,
        one_step=measure_one_step(model, linear, steps, rows=rows, train=train),
        calibration=calibration,
        open_loop=open_loop,
        correlations=correlations,
        reward=measure_reward(model, steps, rows, outliers=outliers) if has_rewards else None,
        termination=measure_termination(termination, split),
        warnings=(),
        channels=measure_channels(
            train, split.train.info.obs_names, frame_dim=model.frame_dim, choices=split.train.spec.choices
        ),
        gaps=find_gaps(
            (rows, held_out),
            (thin(train, config.max_rows), fitted),
            steps.scaled(model.temperature.double()),
            correlations=correlations,
            split=split,
        ),
    )
    warnings = tuple(warning.text for warning in find_warnings(report))
    return Assessment(
        thresholds=fit_thresholds(held_out, fitted, quantiles=config.truncation_quantiles),
        forecast=forecast,
        report=report.model_copy(update={"warnings": warnings}),
    )


def _measure(
    model: FittedModel,
    factory: MeasureFactory,
    rows: Transitions,
    train: Transitions,
    config: AssessmentConfig,
    rng: RngStreams,
) -> tuple[MeasuredRows, MeasuredRows]:
    """Every measure at held-out rows, and at some training rows."""
    measures = factory(
        torch.tensor(train.observation),
        torch.tensor(train.action),
        torch.tensor(train.episode),
        rng.at("measures"),
    )
    few = thin(train, config.max_rows)
    return (
        evaluate_measures(model, measures, rows, rng.at("outcome")),
        evaluate_measures(model, measures, few, rng.at("train_outcome"), is_training=True),
    )


def _rank(
    model: FittedModel,
    rows: Transitions,
    train: Transitions,
    steps: HeldOutSteps,
    held_out: MeasuredRows,
    config: AssessmentConfig,
    rng: RngStreams,
) -> dict[str, RankCorrelation]:
    return rank_errors(
        held_out,
        steps,
        distance=distance_to_training(model, rows, train),
        episode=rows.unit,
        draws=config.bootstrap_draws,
        rng=rng,
    )


def _judge_open_loop(
    model: FittedModel,
    termination: TerminationFn,
    linear: LinearModel,
    split: Split,
    config: AssessmentConfig,
    rng: RngStreams,
) -> tuple[Forecast, OpenLoopReport]:
    """Corrections that all segments give, and figures: of forecasts, by corrections of the other half."""
    segments = draw_segments(
        split.holdout, count=config.segments, horizon=config.horizon, generator=rng.at("segments")
    )
    obs = measure_moments(split.train.transitions().observation)
    plain = plain_forecast(split.train.transitions().successors_known())
    # Older frames are copies: an error of the newest one would count as often as it is held.
    counts = ~obs.is_constant & (np.arange(len(obs.mean)) < model.frame_dim)
    result = run_open_loop(
        model,
        termination,
        linear,
        segments,
        particles=config.particles,
        obs_std=obs.scale,
        generator=rng.at("particles"),
        varies=counts,
        forecast=plain,
    )
    reward = RewardMoments(float(model.targets.mean[-1]), float(model.targets.std[-1]))
    report = judge_open_loop(result, segments, reward=reward, config=config, rng=rng)
    law = LinearBehaviour.fit(
        split.train.transitions(), split.train.spec, held_out=split.holdout.transitions()
    )
    closed = run_open_loop(
        model,
        termination,
        linear,
        segments,
        particles=min(config.particles, _CLOSED_PARTICLES),
        obs_std=obs.scale,
        generator=rng.at("closed_particles"),
        varies=counts,
        forecast=plain,
        act=law.act,
    )
    figures = judge_forecasts(plain, result, segments, obs_std=obs.scale, varies=counts)
    reached = len(report.steps)
    judged = {
        "forecast_nrmse": to_floats(figures.nrmse[:reached]),
        "forecast_coverage": to_floats(figures.coverage[:reached]),
        "closed_nrmse": to_floats(closed.nrmse[0, :reached]),
        "closed_coverage": to_floats(closed.coverage[:reached]),
        "behaviour_error": law.error,
    }
    return fit_forecast(plain, result, segments), report.model_copy(update=judged)
