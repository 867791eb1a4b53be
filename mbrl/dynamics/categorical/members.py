"""Members over discrete states, as the fit needs them: made, trained, recalibrated; and what is refused."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.choices.states import StateIndex, are_one_hot
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.splits import Split
from mbrl.dynamics.arrays import fit_step_normaliser, fit_target_normaliser, step_arrays, thin
from mbrl.dynamics.assessment.calibration import calibrate
from mbrl.dynamics.categorical.base import States
from mbrl.dynamics.categorical.model import CategoricalDynamics
from mbrl.dynamics.categorical.moves import find_moves
from mbrl.dynamics.categorical.objective import CategoricalObjective
from mbrl.dynamics.categorical.stored import build_categorical_net
from mbrl.dynamics.categorical.temperature import fit_logit_temperature, report_successors
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.objectives import decay_ramp, training_schedule
from mbrl.dynamics.report import CalibrationReport
from mbrl.dynamics.training import MemberTrainer, TrainingArrays

MAX_ENTRIES: Final = 200_000_000
"""Most numbers of the last layers of all members: 800 MB, and three times as much in the optimiser."""

MOST_HOLDOUT: Final = 5_000
"""Held-out rows that early stopping looks at; logits of each are as many as there are states."""

_FEATURE_SCALE: Final = 0.1  # of features that no step has taught yet: members differ by them, but not much


class CategoricalMembers:
    """The members of a `CategoricalDynamics` in training.

    Args:
        dataset: the whole log; its distinct observations are the states, held-out ones too.
        split: what members learn from, and what stops them.
        config: network and training.
        rng: streams of the fit, on whose device they are trained.

    Raises:
        DataError: actions are no choices, observations do not repeat, or there are too many of them.
    """

    def __init__(self, dataset: Dataset, split: Split, config: DynamicsConfig, *, rng: RngStreams) -> None:
        self._split, self._config = split, config
        index = _indexed(dataset)
        rows = split.train.transitions().successors_known()
        every = dataset.transitions().successors_known()
        entered = np.unique(index.find(every.next_observation))
        _check_size(len(entered), len(index), config)
        model = _fresh(index, entered, rows, config, rng.host)
        holdout = thin(split.holdout.transitions().successors_known(), MOST_HOLDOUT)
        arrays = _arrays(model, index, entered, (rows, holdout))
        self.ensemble, arrays = on_device((model, arrays), rng.device)
        decay = config.weight_decay or decay_ramp(len(config.hidden) + 1)
        objective = CategoricalObjective(self.ensemble, weight_decay=decay)
        updates = config.ensemble_updates(len(rows))
        schedule = training_schedule(config, len(rows), updates, config.learning_rate)
        self.trainer = MemberTrainer(objective, arrays, schedule, rng.child("ensemble"))

    def horizon_trainer(self) -> None:
        """None: members follow draws, through which no gradient flows."""

    def chosen(self, members: Tensor, rng: RngStreams) -> tuple[CategoricalDynamics, CalibrationReport]:
        """Some members on the host, with one temperature of all logits, and coverage by their moments.

        Args:
            members: `[m]` int64, those to keep.
            rng: streams of the assessment.
        """
        model, config = on_device(self.ensemble, CPU).select(members), self._config
        if config.recalibration != "none":
            model = model.with_temperature(fit_logit_temperature(model, self._split, rng))
        # Deviations of moments are not stretched on top of that.
        judged = calibrate(model, self._split, config=config.assessment, kind="none", rng=rng)
        successors = report_successors(model, self._split, rng)
        return model, judged.report.model_copy(update={"successors": successors})


def _indexed(dataset: Dataset) -> StateIndex:
    """The states of a log that this kind of model can be fitted to."""
    if not are_one_hot(dataset):
        raise DataError(
            "a categorical model reads choices, and these actions are continuous.",
            field="actions",
            remedy="Fit networks of changes: dynamics.kind=gaussian.",
        )
    index, rows = StateIndex.of(dataset), dataset.num_transitions
    if 2 * len(index) > rows + 2 * len(dataset):
        raise DataError(
            f"{len(index):,} distinct observations in {rows:,} steps: states that do not repeat cannot be "
            "learned as a list",
            field="observations",
            remedy="Fit networks of changes (dynamics.kind=gaussian), or log ids, bins or clusters instead.",
        )
    return index


def _check_size(entered: int, states: int, config: DynamicsConfig) -> None:
    width = config.hidden[-1] + config.categorical.features + 2
    if config.members * (entered * width + states * config.categorical.features) > MAX_ENTRIES:
        raise DataError(
            f"{states:,} states are too many for {config.members} members of {config.hidden[-1]} units",
            field="observations",
            remedy="Lower dynamics.members or the last of dynamics.hidden, or log coarser states.",
        )


def _fresh(
    index: StateIndex, entered: NDArray[np.int64], rows: Transitions, config: DynamicsConfig, rng: RngStreams
) -> CategoricalDynamics:
    """The ensemble before its training: states, what steps do to them, and fresh networks."""
    count = np.bincount(np.searchsorted(entered, index.find(rows.next_observation)), minlength=len(entered))
    share = (count + 1.0) / (count.sum() + len(entered))
    targets = fit_target_normaliser(rows)
    follows, log_moves = find_moves(index, entered, rows, targets.std.double().numpy()[:-1])
    states = States(
        codes=torch.from_numpy(index.codes),
        entered=torch.from_numpy(entered),
        log_share=torch.from_numpy(np.log(share).astype(np.float32)),
        follows=torch.from_numpy(follows),
        log_moves=torch.from_numpy(log_moves),
    )
    members, width = config.members, config.categorical.features
    features = torch.randn(members, len(index), width, generator=rng.at("features"))
    # A reward starts as b(s, a) alone: the features of successors begin small and their own part at 0.
    rewards = torch.randn(members, len(entered), width + 1, generator=rng.at("rewards"))
    rewards[..., -1] = 0.0
    sizes = (members, rows.observation.shape[1], rows.action.shape[1], len(entered), len(log_moves))
    return CategoricalDynamics(
        build_categorical_net(config, sizes, rng.at("init")),
        states,
        features=_FEATURE_SCALE * features,
        rewards=_FEATURE_SCALE * rewards,
        inputs=fit_step_normaliser(rows, None),
        targets=targets,
        reward_bounds=(config.log_variance_low, config.log_variance_high),
    )


def _arrays(
    model: CategoricalDynamics,
    index: StateIndex,
    entered: NDArray[np.int64],
    parts: tuple[Transitions, Transitions],
) -> TrainingArrays:
    """Rows as `CategoricalObjective` reads them, absurd rewards on a fence as for Gaussian members."""
    plain = step_arrays(*parts, inputs=model.inputs, targets=model.targets)

    def with_states(inputs: Tensor, rows: Transitions) -> Tensor:
        return torch.cat((inputs, _column(index.find(rows.observation))), 1)

    def successors(targets: Tensor, rows: Transitions) -> Tensor:
        place = np.searchsorted(entered, index.find(rows.next_observation))
        return torch.cat((_column(place), targets[:, -1:]), 1)

    train, holdout = parts
    return TrainingArrays(
        inputs=with_states(plain.inputs, train),
        targets=successors(plain.targets, train),
        holdout_inputs=with_states(plain.holdout_inputs, holdout),
        holdout_targets=successors(plain.holdout_targets, holdout),
    )


def _column(values: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None]
