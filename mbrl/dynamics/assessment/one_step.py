"""Predictions of held-out steps beside their outcomes, and their errors one step ahead."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import measure_moments
from mbrl.dynamics.arrays import normalise, step_inputs, step_targets
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.channel_report import RewardOutliers, RewardReport
from mbrl.dynamics.fitted_model import FittedModel
from mbrl.dynamics.report import OneStepReport, to_floats

_BLOCK = 1_024  # rows of one forward pass: the activations of all members then stay in the cache


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutSteps:
    """Predictions and outcomes of held-out steps, normalised target units, float64; the reward comes last.

    Attributes:
        mean: `[e, n, k]`.
        std: `[e, n, k]`, before any temperature.
        target: `[n, k]`.
    """

    mean: Float[Tensor, "e n k"]
    std: Float[Tensor, "e n k"]
    target: Float[Tensor, "n k"]

    def scaled(self, temperature: Float[Tensor, "k"]) -> "HeldOutSteps":
        """With all deviations multiplied by `temperature`; the means and their disagreement stay."""
        return dataclasses.replace(self, std=self.std * temperature)

    def select(self, rows: Int[Tensor, "m"]) -> "HeldOutSteps":
        """Some of the rows."""
        return HeldOutSteps(self.mean[:, rows], self.std[:, rows], self.target[rows])

    def residual(self) -> Float[Tensor, "n k"]:
        """`mean_e mu_e - y`, the error of the members' average."""
        return self.mean.mean(0) - self.target


def predict_held_out(model: FittedModel, rows: Transitions) -> HeldOutSteps:
    """Predictions of `rows`, whose successors are known, without any temperature."""
    inputs = normalise(step_inputs(rows), model.inputs)
    parts = [model.forward(inputs[k : k + _BLOCK]) for k in range(0, len(inputs), _BLOCK)]
    mean, log_variance = (torch.cat(column, 1).double() for column in zip(*parts, strict=True))
    target = normalise(step_targets(rows, frame_dim=model.frame_dim), model.targets).double()
    return HeldOutSteps(mean, torch.exp(0.5 * log_variance), target)


def measure_one_step(
    model: FittedModel,
    linear: LinearModel,
    steps: HeldOutSteps,
    *,
    rows: Transitions,
    train: Transitions,
) -> OneStepReport:
    """Errors of the newest frame one step ahead, beside those of "nothing changes" and of the linear model.

    Args:
        model: predicted `steps`; the deviations of its targets are the unit of an error.
        linear: fitted on `train`.
        steps: predictions of `rows`.
        rows: held out.
        train: training rows; the deviations of their observations are the unit of `nrmse`.
    """
    scale = model.targets.std.double().numpy()
    frame = slice(model.frame_dim)
    after = rows.next_observation[:, frame].astype(np.float64)
    delta = after - rows.observation[:, frame]
    residual = (steps.residual().numpy() * scale)[:, :-1]
    linear_residual = linear.predict(rows.observation, rows.action)[:, frame] - after
    # The error of "nothing changes" is the change itself.
    rmse, persistence, by_line = (
        np.sqrt(np.square(error).mean(0)) for error in (residual, delta, linear_residual)
    )
    obs = measure_moments(train.observation[:, frame])
    nrmse, nrmse_persistence, nrmse_linear = (
        np.where(obs.is_constant, 0.0, error / obs.scale) for error in (rmse, persistence, by_line)
    )
    varies = ~obs.is_constant if not obs.is_constant.all() else np.ones_like(obs.is_constant)
    member = (steps.mean - steps.target).square().mean((0, 1)).numpy()
    return OneStepReport(
        rows=len(rows),
        rmse=to_floats(rmse),
        rmse_normalised=to_floats(rmse / scale[:-1]),
        persistence_normalised=to_floats(persistence / scale[:-1]),
        linear_normalised=to_floats(by_line / scale[:-1]),
        nrmse=float(nrmse[varies].mean()),
        nrmse_persistence=float(nrmse_persistence[varies].mean()),
        nrmse_linear=float(nrmse_linear[varies].mean()),
        mse_raw=float((member * scale**2).mean()),
        nrmse_by_dimension=to_floats(nrmse),
    )


def measure_reward(
    model: FittedModel, steps: HeldOutSteps, rows: Transitions, *, outliers: RewardOutliers | None = None
) -> RewardReport:
    """Errors of the learned reward on held-out rows.

    Args:
        model: predicted `steps`.
        steps: predictions of `rows`.
        rows: held out.
        outliers: absurd rewards in the whole log.
    """
    rmse = float(steps.residual()[:, -1].square().mean().sqrt())
    return RewardReport(
        rmse=rmse * float(model.targets.std[-1]),
        rmse_normalised=rmse,
        mean=float(rows.reward.mean(dtype=np.float64)),
        share_zero=float((rows.reward == 0).mean()),
        outliers=outliers,
    )
