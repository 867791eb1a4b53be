"""Fits a table to a log, and judges it by the figures that every fit is judged by."""

import numpy as np

from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.splits import Split
from mbrl.dynamics.arrays import HOLDOUT_ROWS, thin
from mbrl.dynamics.assessment.assess import Assessment, assess
from mbrl.dynamics.assessment.calibration import calibrate
from mbrl.dynamics.assessment.channels import find_reward_outliers
from mbrl.dynamics.assessment.measures import MeasureFactory
from mbrl.dynamics.assessment.one_step import predict_held_out
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.report import TrainingReport
from mbrl.dynamics.tabular.counts import fit_table
from mbrl.dynamics.tabular.model import TabularDynamics, TabularTermination


def fit_tabular(
    dataset: Dataset,
    split: Split,
    config: DynamicsConfig,
    rng: RngStreams,
    *,
    measures: MeasureFactory,
    has_rewards: bool,
) -> tuple[TabularDynamics, TabularTermination, Assessment]:
    """The table, its end of the task, and what held-out episodes say of both.

    Chances are not recalibrated: their spread is that of a posterior, and no deviation of a Gaussian.

    Args:
        dataset: the log, with rewards.
        split: what is counted, and what it is judged by.
        config: members, prior and figures.
        rng: streams of the fit.
        measures: makes the uncertainty measures to be judged.
        has_rewards: False where the rewards stand for none.

    Raises:
        DataError: the log is none of few states and few choices.
    """
    model = fit_table(
        dataset, split.train, members=config.members, prior=config.prior, rng=rng.child("table")
    )
    termination = TabularTermination(model)
    rng = rng.child("assessment")
    fitted = calibrate(model, split, config=config.assessment, kind="none", rng=rng)
    assessment = assess(
        model,
        termination,
        split,
        training=_training_report(model, split),
        calibration=fitted.report,
        outliers=find_reward_outliers(dataset.transitions()),
        config=config.assessment,
        measures=measures,
        rng=rng,
        has_rewards=has_rewards,
    )
    return model, termination, assessment


def _training_report(model: TabularDynamics, split: Split) -> TrainingReport:
    """One pass over the log, and the held-out error of each member."""
    steps = predict_held_out(model, thin(split.holdout.transitions().successors_known(), HOLDOUT_ROWS))
    errors = (steps.mean - steps.target).square().mean((1, 2)).numpy().astype(np.float64)
    by_member = tuple(float(error) for error in errors)
    return TrainingReport(
        train_rows=split.train.num_transitions,
        holdout_rows=split.holdout.num_transitions,
        train_episodes=len(split.train),
        holdout_episodes=len(split.holdout),
        is_split_by_block=split.is_by_block,
        updates=(1,),
        member_errors=tuple((error,) for error in by_member),
        member_best=by_member,
        elites=tuple(range(len(by_member))),
        max_updates=2,  # counting ends by itself
    )
