"""Members that predict Gaussian changes, as the fit needs them: made, trained, recalibrated."""

import torch
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.core.history import History
from mbrl.core.rng import RngStreams
from mbrl.data.splits import Split
from mbrl.dynamics.arrays import fit_step_normaliser, fit_target_normaliser, step_arrays
from mbrl.dynamics.artifact import build_net
from mbrl.dynamics.assessment.calibration import calibrate
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.horizon import HorizonObjective, horizon_arrays
from mbrl.dynamics.linear_base import fit_linear_base
from mbrl.dynamics.objectives import StepObjective, decay_ramp, training_schedule
from mbrl.dynamics.report import CalibrationReport
from mbrl.dynamics.training import MemberTrainer, TrainingArrays


class GaussianMembers:
    """The members of a `DynamicsEnsemble` in training.

    Args:
        split: what they learn from, and what stops them.
        config: network and training.
        history: what an observation holds besides its newest frame.
        rng: streams of the fit, on whose device they are trained.
    """

    def __init__(
        self, split: Split, config: DynamicsConfig, *, history: History | None, rng: RngStreams
    ) -> None:
        self._split, self._config, self._rng = split, config, rng
        self.ensemble, arrays = self._fresh(history)
        objective = StepObjective(
            self.ensemble, bound_coef=config.bound_coef, weight_decay=self._decay, beta=config.beta_nll
        )
        rows = len(arrays.inputs)
        schedule = training_schedule(config, rows, config.ensemble_updates(rows), config.learning_rate)
        self.trainer = MemberTrainer(objective, arrays, schedule, rng.child("ensemble"))

    @property
    def _decay(self) -> tuple[float, ...]:
        return self._config.weight_decay or decay_ramp(len(self._config.hidden) + 1)

    def horizon_trainer(self) -> MemberTrainer | None:
        """Goes on from the best one-step members; None if it is not asked for or episodes are too short."""
        config, horizon = self._config, self._config.horizon
        if horizon.steps == 1:
            return None
        arrays = horizon_arrays(
            self._split.train, self._split.holdout, steps=horizon.steps, frame_dim=self.ensemble.frame_dim
        )
        if arrays is None:
            return None
        arrays = on_device(arrays, self._rng.device)
        self.trainer.restore_best()
        objective = HorizonObjective(
            self.ensemble,
            steps=horizon.steps,
            weight=horizon.weight,
            bound_coef=config.bound_coef,
            weight_decay=self._decay,
            arrays=arrays,
        )
        schedule = training_schedule(config, len(arrays.inputs), horizon.max_updates, horizon.learning_rate)
        trainer = MemberTrainer(objective, arrays, schedule, self._rng.child("horizon"))
        trainer.best = objective.holdout_error(arrays)  # a member that only gets worse stays as it is
        return trainer

    def chosen(self, members: Tensor, rng: RngStreams) -> tuple[DynamicsEnsemble, CalibrationReport]:
        """Some members on the host, with factors on their deviations from half of the held-out episodes.

        Args:
            members: `[m]` int64, those to keep.
            rng: streams of the assessment.
        """
        model = on_device(self.ensemble, CPU).select(members)
        config = self._config
        fitted = calibrate(model, self._split, config=config.assessment, kind=config.recalibration, rng=rng)
        return model.with_temperature(fitted.temperature), fitted.report

    def _fresh(self, history: History | None) -> tuple[DynamicsEnsemble, TrainingArrays]:
        """The ensemble before its training, and what its members are to learn."""
        config, rows = self._config, self._split.train.transitions().successors_known()
        frame_dim = (
            None if history is None else history.frame_dim(rows.observation.shape[1], rows.action.shape[1])
        )
        inputs = fit_step_normaliser(rows, history)
        targets = fit_target_normaliser(rows, frame_dim=frame_dim)
        holdout = self._split.holdout.transitions().successors_known()
        arrays = step_arrays(rows, holdout, inputs=inputs, targets=targets)
        base = fit_linear_base(arrays) if config.base == "linear" else None
        sizes = (config.members, inputs.mean.shape[0], 2 * targets.mean.shape[0])
        net = build_net(config, sizes, self._rng.host.at("init"))
        # Targets have deviation 1, so log-variances lie between noise of e^-5 deviations and no prediction.
        bounds = torch.tensor([config.log_variance_low, config.log_variance_high])
        bounds = bounds[None, :, None].expand(config.members, 2, targets.mean.shape[0])
        ensemble = DynamicsEnsemble(net, bounds, inputs=inputs, targets=targets, base=base, history=history)
        return on_device((ensemble, ensemble.base.residual(arrays)), self._rng.device)
