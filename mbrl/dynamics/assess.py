"""Judges a fitted model on held-out episodes: recalibrates it, sets thresholds, writes the report."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import DynamicsPosterior
from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.data.splits import Split, halves
from mbrl.dynamics.arrays import normalise, step_inputs, step_targets, thin
from mbrl.dynamics.baselines import LinearModel
from mbrl.dynamics.calibration import (
    LEVELS,
    Calibration,
    HeldOutSteps,
    Recalibration,
    fit_temperature,
    judge,
)
from mbrl.dynamics.config import AssessmentConfig
from mbrl.dynamics.doubts import doubts
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.openloop import draw_segments, error_curve, run_open_loop, trusted_horizon
from mbrl.dynamics.report import (
    CalibrationReport,
    Floats,
    OneStepReport,
    OpenLoopReport,
    RankCorrelation,
    RewardReport,
    TerminationReport,
)
from mbrl.dynamics.resampling import episode_weights, rank_correlation
from mbrl.dynamics.termination import TerminationHead
from mbrl.ops.neighbours import neighbour_distance
from mbrl.ops.shares import wilson_interval

RowMeasure: TypeAlias = Callable[[DynamicsPosterior, Tensor, Tensor, Tensor], Tensor]
"""`(posterior, obs, action, sampled outcome) -> [b]`."""

MeasureFactory: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], Mapping[str, RowMeasure]]
"""`(training observations, training actions, generator) -> measures by name`."""

UNIT_QUANTILE = 0.95
FLAGGED_ECE = 0.05
_FEW_ROWS = 2_000  # below this number of held-out rows, quantiles are those of all rows
_NEAR_ROWS = 10_000  # training rows that distances are measured to
_BLOCK = 1_024


@dataclasses.dataclass(frozen=True, slots=True)
class Assessment:
    """What judging a model yields, before it is put together with the training's figures.

    Attributes:
        thresholds: quantiles of each measure by probability.
        one_step: errors one step ahead.
        calibration: coverage of intervals.
        open_loop: errors against the horizon.
        correlations: by measure.
        reward: the learned reward.
        termination: the learned head.
        warnings: reasons to mistrust the model.
    """

    thresholds: Mapping[str, Mapping[float, float]]
    one_step: OneStepReport
    calibration: CalibrationReport
    open_loop: OpenLoopReport
    correlations: dict[str, RankCorrelation]
    reward: RewardReport
    termination: TerminationReport
    warnings: tuple[str, ...]


@torch.no_grad()
def assess(
    model: DynamicsEnsemble,
    termination: TerminationFn,
    split: Split,
    *,
    config: AssessmentConfig,
    recalibration: Recalibration,
    measures: MeasureFactory,
    rng: RngStreams,
) -> Assessment:
    """Judges `model`, and sets its temperature.

    Temperatures are fitted on one half of the held-out episodes, and coverage is reported on the other half.
    All other figures are those of the whole holdout.

    Args:
        model: the elites; its temperature is set in place.
        termination: its head.
        split: what it was fitted on, and what it was not.
        config: sizes of the report.
        recalibration: how temperatures are chosen.
        measures: makes the uncertainty measures to be judged.
        rng: streams of the report.
    """
    calibration = _calibrate(model, split, config, recalibration, rng)
    train, holdout = (part.transitions().successors_known() for part in (split.train, split.holdout))
    rows = thin(holdout, config.max_rows)
    linear = LinearModel.fit(train)
    open_loop = _open_loop(model, termination, linear, split, config, rng)
    made = measures(torch.tensor(train.observation), torch.tensor(train.action), rng.at("measures"))
    uncertainty = _measure(model, made, rows, rng.at("outcome"))
    correlations = _correlate(model, uncertainty, rows, train, config, rng)
    head = _judge_termination(termination, split)
    return Assessment(
        thresholds=_thresholds(model, made, uncertainty, train, config, rng),
        one_step=_one_step(model, linear, rows, train),
        calibration=calibration,
        open_loop=open_loop,
        correlations=correlations,
        reward=_judge_reward(model, rows),
        termination=head,
        warnings=tuple(doubt.text for doubt in doubts(calibration, open_loop, correlations, head)),
    )


def held_out_steps(model: DynamicsEnsemble, rows: Transitions) -> HeldOutSteps:
    """Predictions without temperature and outcomes, normalised target units, float64."""
    inputs = normalise(step_inputs(rows), model.inputs)
    parts = [model.forward(inputs[k : k + _BLOCK]) for k in range(0, len(inputs), _BLOCK)]
    mean, log_variance = (torch.cat(column, 1).double() for column in zip(*parts, strict=True))
    target = normalise(step_targets(rows), model.targets).double()
    return HeldOutSteps(mean, torch.exp(0.5 * log_variance), target)


def _calibrate(
    model: DynamicsEnsemble,
    split: Split,
    config: AssessmentConfig,
    recalibration: Recalibration,
    rng: RngStreams,
) -> CalibrationReport:
    first, second = halves(split.holdout, rng.at("halves"))
    fit_rows = thin(first.transitions().successors_known(), config.max_rows)
    rows = thin(second.transitions().successors_known(), config.max_rows)
    temperature = fit_temperature(held_out_steps(model, fit_rows), recalibration)
    model.temperature.copy_(temperature)
    steps = held_out_steps(model, rows)
    before, after = judge(steps), judge(steps.scaled(temperature))
    return _calibration_report(model, before, after, (len(rows), len(second), len(fit_rows)))


def _calibration_report(
    model: DynamicsEnsemble, before: Calibration, after: Calibration, sizes: tuple[int, int, int]
) -> CalibrationReport:
    return CalibrationReport(
        rows=sizes[0],
        episodes=sizes[1],
        fit_rows=sizes[2],
        temperature=_floats(model.temperature.numpy()),
        levels=LEVELS,
        coverage_before=_floats(before.coverage.mean(1)),
        coverage_after=_floats(after.coverage.mean(1)),
        coverage_by_dimension=tuple(_floats(row) for row in after.coverage),
        pit_before=_integers(before.histogram.sum(1)),
        pit_after=_integers(after.histogram.sum(1)),
        pit_by_dimension=tuple(_integers(column) for column in after.histogram.T),
        ks=_floats(after.ks),
        ece_before=_floats(before.ece),
        ece=_floats(after.ece),
        flagged=_integers(np.flatnonzero(after.ece > FLAGGED_ECE)),
        nll_before=_floats(before.nll),
        nll=_floats(after.nll),
        nll_raw=float(after.nll.mean() + np.log(model.targets.std.double().numpy()).mean()),
    )


def _open_loop(
    model: DynamicsEnsemble,
    termination: TerminationFn,
    linear: LinearModel,
    split: Split,
    config: AssessmentConfig,
    rng: RngStreams,
) -> OpenLoopReport:
    segments = draw_segments(
        split.holdout, count=config.segments, horizon=config.horizon, generator=rng.at("segments")
    )
    result = run_open_loop(
        model,
        termination,
        linear,
        segments,
        particles=config.particles,
        obs_std=fit_moments(split.train.transitions().observation)[1],
        generator=rng.at("particles"),
    )
    reached = int(result.alive.any(0).sum())
    curves = [
        error_curve(
            error[:, :reached],
            result.alive,
            result.episode,
            draws=config.bootstrap_draws,
            generator=rng.at("resample_segments"),
        )
        for error in (result.error, result.persistence, result.linear)
    ]
    curve, persistence, linear_curve = curves
    trusted = trusted_horizon(
        curve,
        persistence.median,
        result.coverage[:reached],
        tolerance=config.trust_error,
        least_coverage=config.trust_coverage,
    )
    return OpenLoopReport(
        segments=_integers(result.alive[:, :reached].sum(0)),
        steps=tuple(range(1, reached + 1)),
        error=_floats(curve.median),
        low=_floats(curve.low),
        high=_floats(curve.high),
        persistence=_floats(persistence.median),
        linear=_floats(linear_curve.median),
        nrmse=_floats(result.nrmse[0, :reached]),
        nrmse_persistence=_floats(result.nrmse[1, :reached]),
        nrmse_linear=_floats(result.nrmse[2, :reached]),
        coverage=_floats(result.coverage[:reached]),
        ended_early=_floats(result.ended_early[:reached]),
        tolerance=config.trust_error,
        least_coverage=config.trust_coverage,
        trusted_horizon=trusted,
    )


def _one_step(
    model: DynamicsEnsemble, linear: LinearModel, rows: Transitions, train: Transitions
) -> OneStepReport:
    steps = held_out_steps(model, rows)
    scale = model.targets.std.double().numpy()
    delta = rows.next_observation.astype(np.float64) - rows.observation
    residual = ((steps.mean.mean(0) - steps.target).numpy() * scale)[:, :-1]
    linear_residual = linear.predict(rows.observation, rows.action) - rows.next_observation
    rmse, persistence, by_line = (
        np.sqrt(np.square(error).mean(0)) for error in (residual, delta, linear_residual)
    )
    obs_std = fit_moments(train.observation)[1]
    member = (steps.mean - steps.target).square().mean((0, 1)).numpy()
    return OneStepReport(
        rows=len(rows),
        rmse=_floats(rmse),
        rmse_normalised=_floats(rmse / scale[:-1]),
        persistence_normalised=_floats(persistence / scale[:-1]),
        linear_normalised=_floats(by_line / scale[:-1]),
        nrmse=float((rmse / obs_std).mean()),
        nrmse_persistence=float((persistence / obs_std).mean()),
        nrmse_linear=float((by_line / obs_std).mean()),
        mse_raw=float((member * scale**2).mean()),
    )


def _measure(
    model: DynamicsEnsemble,
    measures: Mapping[str, RowMeasure],
    rows: Transitions,
    generator: torch.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Each measure at each row; outcomes are sampled from a random member."""
    parts: dict[str, list[Tensor]] = {name: [] for name in measures}
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        obs, action = torch.tensor(rows.observation[part]), torch.tensor(rows.action[part])
        posterior = model.predict(obs, action)
        member = torch.randint(model.ensemble_size, (len(obs),), generator=generator)
        index = torch.arange(len(obs))
        noise = torch.randn(obs.shape, generator=generator)
        outcome = posterior.mean[member, index] + posterior.variance[member, index].sqrt() * noise
        for name, measure in measures.items():
            parts[name].append(measure(posterior, obs, action, outcome))
    return {name: torch.cat(values).double().numpy() for name, values in parts.items()}


def _thresholds(
    model: DynamicsEnsemble,
    measures: Mapping[str, RowMeasure],
    held_out: Mapping[str, NDArray[np.float64]],
    train: Transitions,
    config: AssessmentConfig,
    rng: RngStreams,
) -> dict[str, dict[float, float]]:
    """Quantiles over held-out rows; over training rows too where these are few, or where q exceeds 0.99."""
    fitted = _measure(model, measures, thin(train, config.max_rows), rng.at("train_outcome"))
    probabilities = sorted({UNIT_QUANTILE, *config.truncation_quantiles})
    thresholds: dict[str, dict[float, float]] = {}
    for name, values in held_out.items():
        everything = np.concatenate((values, fitted[name]))
        base = values if len(values) >= _FEW_ROWS else everything
        thresholds[name] = {
            q: float(np.quantile(base if q <= 0.99 else everything, q)) for q in probabilities
        }
    return thresholds


def _correlate(
    model: DynamicsEnsemble,
    uncertainty: Mapping[str, NDArray[np.float64]],
    rows: Transitions,
    train: Transitions,
    config: AssessmentConfig,
    rng: RngStreams,
) -> dict[str, RankCorrelation]:
    steps = held_out_steps(model, rows)
    error = (steps.mean.mean(0) - steps.target)[:, :-1].square().mean(1).sqrt().numpy()
    inputs = normalise(step_inputs(rows), model.inputs)
    near = normalise(step_inputs(thin(train, _NEAR_ROWS)), model.inputs)
    distance = neighbour_distance(inputs, near, count=5).double().numpy()
    far = distance >= np.quantile(distance, 0.9)
    draws = config.bootstrap_draws
    weights, column = episode_weights(rows.unit, draws, rng.at("resample_rows"))
    far_weights, far_column = episode_weights(rows.unit[far], draws, rng.at("resample_far_rows"))
    correlations: dict[str, RankCorrelation] = {}
    for name, values in uncertainty.items():
        value, low, high = rank_correlation(values, error, weights=weights, column=column)
        far_value, far_low, far_high = rank_correlation(
            values[far], error[far], weights=far_weights, column=far_column
        )
        correlations[name] = RankCorrelation(
            value=value, low=low, high=high, far_value=far_value, far_low=far_low, far_high=far_high
        )
    return correlations


def _judge_reward(model: DynamicsEnsemble, rows: Transitions) -> RewardReport:
    steps = held_out_steps(model, rows)
    rmse = float((steps.mean.mean(0) - steps.target)[:, -1].square().mean().sqrt())
    return RewardReport(
        rmse=rmse * float(model.targets.std[-1]),
        rmse_normalised=rmse,
        mean=float(rows.reward.mean(dtype=np.float64)),
        share_zero=float((rows.reward == 0).mean()),
    )


def _judge_termination(termination: TerminationFn, split: Split) -> TerminationReport:
    reads_all = isinstance(termination, TerminationHead) and not termination.reads_successor
    train, rows = (
        part.transitions() if reads_all else part.transitions().successors_known()
        for part in (split.train, split.holdout)
    )
    obs, action, next_obs = (
        torch.tensor(array) for array in (rows.observation, rows.action, rows.next_observation)
    )
    blocks = [slice(k, k + _BLOCK) for k in range(0, len(rows), _BLOCK)]
    probability = torch.cat([termination(obs[k], action[k], next_obs[k]) for k in blocks]).double().numpy()
    scores = score_termination(probability, rows.terminated)
    terminated = int(train.terminated.sum()) + int(rows.terminated.sum())
    count = len(train) + len(rows)
    return TerminationReport(
        is_learned=isinstance(termination, TerminationHead),
        train_terminated=int(train.terminated.sum()),
        rows=len(rows),
        terminated=int(rows.terminated.sum()),
        logged_rate=terminated / count,
        logged_rate_high=wilson_interval(terminated / count, float(count))[1],
        **scores,
    )


def score_termination(probability: NDArray[np.float64], terminated: NDArray[np.bool_]) -> dict[str, Any]:
    """Precision and recall of a threshold at 1/2, Brier scores, and the mean probability."""
    fires = probability >= 0.5
    hits = int((fires & terminated).sum())
    rate = float(terminated.mean())
    return {
        "predicted_rate": float(probability.mean()),
        "precision": hits / int(fires.sum()) if fires.any() else None,
        "recall": hits / int(terminated.sum()) if terminated.any() else None,
        "brier": float(np.square(probability - terminated).mean()),
        "brier_constant": rate * (1.0 - rate),
    }


def _floats(values: NDArray[Any]) -> Floats:
    return tuple(cast(list[float], values.astype(np.float64).tolist()))


def _integers(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(cast(list[int], values.tolist()))
