"""Fits the ensemble and its termination head: resumable at every epoch, bit for bit."""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.core.rng import RngStreams
from mbrl.core.types import StateDict
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.splits import Split, check_fit_parts, split_episodes
from mbrl.data.stacking.history import check_history
from mbrl.dynamics.arrays import fit_head_normaliser, termination_arrays, termination_edges
from mbrl.dynamics.artifact import AnyDynamics, FittedDynamics, build_head_net
from mbrl.dynamics.assessment.assess import assess
from mbrl.dynamics.assessment.channels import find_reward_outliers
from mbrl.dynamics.assessment.measures import MeasureFactory
from mbrl.dynamics.categorical.members import CategoricalMembers
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.gaussian import GaussianMembers
from mbrl.dynamics.objectives import TerminationObjective, training_schedule
from mbrl.dynamics.report import CalibrationReport, TrainingReport
from mbrl.dynamics.tabular.fit import fit_tabular
from mbrl.dynamics.termination import NeverTerminates, TerminationHead
from mbrl.dynamics.training import MemberTrainer, as_floats
from mbrl.nets.encoding import PiecewiseLinearEncoding
from mbrl.ops.spread import robust_scale

Stage = Literal["ensemble", "horizon", "termination", "done"]


@dataclasses.dataclass(frozen=True, slots=True)
class FitProgress:
    """Where a fit stands after an epoch.

    Attributes:
        stage: what is being trained.
        updates: gradient steps of this stage so far.
        max_updates: most that this stage will make.
        holdout_error: least holdout error of each member so far.
        train_loss: mean training loss of each member in the epoch.
    """

    stage: Stage
    updates: int
    max_updates: int
    holdout_error: tuple[float, ...]
    train_loss: tuple[float, ...]


@runtime_checkable
class Members(Protocol):
    """Members of one kind in training.

    Attributes:
        trainer: of the one-step fit.
    """

    trainer: MemberTrainer

    @property
    def ensemble(self) -> AnyDynamics:
        """All members; trained in place."""
        ...

    def horizon_trainer(self) -> MemberTrainer | None:
        """Of the training through several steps, from the best one-step members; None for none."""
        ...

    def chosen(self, members: Tensor, rng: RngStreams) -> tuple[AnyDynamics, CalibrationReport]:
        """Some members on the host, recalibrated on held-out episodes by streams of the assessment."""
        ...


class DynamicsFit:
    """A fit that can stop after any epoch and go on to the same bits.

    Args:
        dataset: what to learn from; it is split by episode.
        config: network and training.
        rng: streams of this fit, on whose device members are trained; all else is done on the host.

    Raises:
        DataError: the dataset is too small to be split, no row has a known successor, or observations do not
            hold the history that the dataset says.
    """

    def __init__(self, dataset: Dataset, config: DynamicsConfig, rng: RngStreams) -> None:
        self.config, self._rng = config, rng
        self._dataset_hash, self._has_rewards = dataset.content_hash, dataset.has_rewards
        dataset = dataset if self._has_rewards else with_zero_rewards(dataset)
        check_history(dataset)
        self._history = dataset.info.history
        self._outliers = find_reward_outliers(dataset.transitions())
        self.split: Split = split_for(config, dataset, rng.host)
        check_fit_parts(self.split)
        self.stage: Stage = "ensemble"
        self._members = _members_of(dataset, self.split, config, rng)
        self._trainer = self._members.trainer
        self._horizon_trainer: MemberTrainer | None = None
        self._head: TerminationHead | None = None
        self._head_trainer: MemberTrainer | None = None

    @property
    def ensemble(self) -> AnyDynamics:
        """All members, as far as they are trained."""
        return self._members.ensemble

    @property
    def progress(self) -> FitProgress:
        """Where the fit stands."""
        trainer = self._head_trainer or self._horizon_trainer or self._trainer
        return FitProgress(
            stage=self.stage,
            updates=trainer.updates,
            max_updates=trainer.max_updates,
            holdout_error=tuple(as_floats(trainer.best)),
            train_loss=tuple(trainer.history[-1].train_loss) if trainer.history else (),
        )

    def run_epoch(self) -> None:
        """Trains the current stage for an epoch, and enters the next stage when it is done.

        Raises:
            NonFiniteError: a loss is NaN or infinite.
        """
        if self.stage == "ensemble":
            self._trainer.run_epoch()
            if self._trainer.is_done:
                self._enter_horizon()
        elif self._horizon_trainer is not None and self.stage == "horizon":
            self._horizon_trainer.run_epoch()
            if self._horizon_trainer.is_done:
                self._enter_termination()
        elif self._head_trainer is not None and self.stage == "termination":
            self._head_trainer.run_epoch()
            if self._head_trainer.is_done:
                self.stage = "done"

    def state_dict(self) -> StateDict:
        """Everything that the epochs to come depend on, besides the constructor's arguments."""
        return {
            "stage": self.stage,
            "ensemble": self._trainer.state_dict(),
            "horizon": None if self._horizon_trainer is None else self._horizon_trainer.state_dict(),
            "termination": None if self._head_trainer is None else self._head_trainer.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`, on a fit of the same dataset, config and streams."""
        self._trainer.load_state_dict(state["ensemble"])
        if state["stage"] != "ensemble":
            self._enter_horizon()
        if self._horizon_trainer is not None:
            self._horizon_trainer.load_state_dict(state["horizon"])
            if state["stage"] != "horizon":
                self._enter_termination()
        if self._head_trainer is not None and state["termination"] is not None:
            self._head_trainer.load_state_dict(state["termination"])
        self.stage = state["stage"]

    def finish(self, measures: MeasureFactory) -> FittedDynamics:
        """Restores snapshots, keeps the elites, recalibrates and reports.

        Args:
            measures: makes the uncertainty measures to be judged: `held_out_measures` of `mbrl.uncertainty`.
        """
        # 1. Every member goes back to its best epoch; the members with the least held-out error stay.
        trainer = self._horizon_trainer or self._trainer
        trainer.restore_best()
        elites = trainer.ranking()[: self.config.elites]
        head: TerminationHead | NeverTerminates = NeverTerminates()
        if self._head is not None and self._head_trainer is not None:
            self._head_trainer.restore_best()
            head = on_device(self._head, CPU).select(self._head_trainer.ranking()[: self.config.elites])
        # 2. What predictions are off by, fitted on half of the held-out episodes.
        rng = self._rng.host.child("assessment")
        model, calibration = self._members.chosen(elites, rng)
        # 3. Figures, thresholds and warnings of what will be used: the elites with their temperature.
        assessment = assess(
            model,
            head,
            self.split,
            training=self._training_report(elites),
            calibration=calibration,
            outliers=self._outliers,
            has_rewards=self._has_rewards,
            config=self.config.assessment,
            measures=measures,
            rng=rng,
        )
        return FittedDynamics(
            model=model,
            termination=head,
            forecast=assessment.forecast,
            config=self.config,
            dataset_hash=self._dataset_hash,
            reward_scale=_reward_scale(self.split.train.transitions()),
            thresholds=assessment.thresholds,
            report=assessment.report,
        )

    def _training_report(self, elites: Tensor) -> TrainingReport:
        trainer, split = self._trainer, self.split
        by_epoch = [record.holdout_error for record in trainer.history]
        return TrainingReport(
            train_rows=split.train.num_transitions,
            holdout_rows=split.holdout.num_transitions,
            train_episodes=len(split.train),
            holdout_episodes=len(split.holdout),
            is_split_by_block=split.is_by_block,
            updates=tuple(record.updates for record in trainer.history),
            member_errors=tuple(tuple(errors) for errors in zip(*by_epoch, strict=True)),
            member_best=tuple(as_floats(trainer.best)),
            elites=tuple(int(member) for member in elites),
            max_updates=self.config.ensemble_updates(len(_known(split.train))),
        )

    def _enter_horizon(self) -> None:
        """Goes on from the best one-step members, where this is asked for and can be done."""
        self._horizon_trainer = self._members.horizon_trainer()
        if self._horizon_trainer is None:
            self._enter_termination()
            return
        self.stage = "horizon"

    def _enter_termination(self) -> None:
        """Builds the head and its data; skips the stage where no training row terminated."""
        train, holdout = self.split.train.transitions(), self.split.holdout.transitions()
        if not bool(train.terminated.any()):
            self.stage = "done"
            return
        reads_successor = bool((train.terminated & train.is_successor_known).any())
        if reads_successor:
            train, holdout = train.successors_known(), holdout.successors_known()
        config = self.config
        inputs = fit_head_normaliser(train, self._history, reads_successor=reads_successor)
        arrays = termination_arrays(train, holdout, inputs=inputs, reads_successor=reads_successor)
        edges = termination_edges(
            arrays.inputs,
            train.terminated,
            obs_dim=train.observation.shape[1],
            bins=config.termination.bins,
        )
        encoding = PiecewiseLinearEncoding(edges)
        # Terminated rows are rare: weighted by negatives / positives both classes would count alike, but a
        # large weight makes few rows loud; the cap stops before that.
        # Where most rows end, or all (episodes of one step), the other class is the rare one.
        positives, cap = int(train.terminated.sum()), config.termination.max_positive_weight
        sizes = (config.members, arrays.inputs.shape[1] + encoding.added_size)
        head = TerminationHead(
            build_head_net(config, sizes, self._rng.host.at("head_init")),
            inputs=inputs,
            encoding=encoding,
            positive_weight=min(max((len(train) - positives) / positives, 1.0 / cap), cap),
            reads_successor=reads_successor,
        )
        self._head, arrays = on_device((head, arrays), self._rng.device)
        updates = config.termination_updates(len(train))
        schedule = training_schedule(config, len(train), updates, config.termination.learning_rate)
        objective = TerminationObjective(self._head)
        self._head_trainer = MemberTrainer(objective, arrays, schedule, self._rng.child("termination"))
        self.stage = "termination"


def _members_of(dataset: Dataset, split: Split, config: DynamicsConfig, rng: RngStreams) -> Members:
    if config.kind == "categorical":
        return CategoricalMembers(dataset, split, config, rng=rng)
    return GaussianMembers(split, config, history=dataset.info.history, rng=rng)


def with_zero_rewards(dataset: Dataset) -> Dataset:
    """The same steps with rewards of 0, which stand for none while a model is fitted."""
    episodes = tuple(
        dataclasses.replace(episode, rewards=np.zeros(len(episode), np.float32), has_rewards=True)
        for episode in dataset.episodes
    )
    return dataclasses.replace(dataset, episodes=episodes)


def split_for(config: DynamicsConfig, dataset: Dataset, rng: RngStreams) -> Split:
    """The split of a fit with these streams; learners on the same data keep to it as well."""
    return split_episodes(
        dataset, fraction=config.holdout_fraction, generator=rng.at("split"), gap=config.split_gap
    )


def fit_dynamics(
    dataset: Dataset,
    config: DynamicsConfig,
    rng: RngStreams,
    *,
    measures: MeasureFactory,
    restore: Callable[[DynamicsFit], bool] | None = None,
    on_epoch: Callable[[DynamicsFit], None] | None = None,
) -> FittedDynamics:
    """Fits an ensemble to `dataset`.

    Args:
        dataset: what to learn from.
        config: network and training.
        rng: streams of this fit.
        measures: makes the uncertainty measures to be judged: `held_out_measures` of `mbrl.uncertainty`.
        restore: loads the state of an interrupted fit with the same arguments into a fresh one; False where
            there is none that fits, and whatever it did to the fit is then undone.
        on_epoch: called after each epoch, for progress and checkpoints.
    """
    if config.kind == "tabular":
        return _fit_table(dataset, config, rng, measures)
    fit = DynamicsFit(dataset, config, rng)
    if restore is not None and not restore(fit):
        fit = DynamicsFit(dataset, config, rng)
    while fit.stage != "done":
        fit.run_epoch()
        if on_epoch is not None:
            on_epoch(fit)
    return fit.finish(measures)


def _fit_table(
    dataset: Dataset, config: DynamicsConfig, rng: RngStreams, measures: MeasureFactory
) -> FittedDynamics:
    """One pass over the log; there is nothing to resume."""
    has_rewards, content = dataset.has_rewards, dataset.content_hash
    dataset = dataset if has_rewards else with_zero_rewards(dataset)
    split = split_for(config, dataset, rng)
    check_fit_parts(split)
    model, termination, assessment = fit_tabular(
        dataset, split, config, rng, measures=measures, has_rewards=has_rewards
    )
    return FittedDynamics(
        model=model,
        termination=termination,
        forecast=assessment.forecast,
        config=config,
        dataset_hash=content,
        reward_scale=_reward_scale(split.train.transitions()),
        thresholds=assessment.thresholds,
        report=assessment.report,
    )


def _known(dataset: Dataset) -> Transitions:
    return dataset.transitions().successors_known()


def _reward_scale(rows: Transitions) -> float:
    return robust_scale(torch.from_numpy(rows.reward.astype(np.float64)))
