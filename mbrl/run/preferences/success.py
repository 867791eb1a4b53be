"""The stage that fits a success classifier to labels of a log."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.names import listed
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.preferences.calibration import correlation
from mbrl.preferences.reward_model import RewardEnsemble
from mbrl.preferences.segments import log_steps
from mbrl.preferences.success.fit import SuccessConfig, SuccessFit
from mbrl.preferences.success.judge import StepReport, find_leaks, judge_steps
from mbrl.preferences.success.labels import SuccessLabels
from mbrl.preferences.success.steps import LabelledSteps, steps_of_column, steps_of_labels
from mbrl.run.files import check_values, read_json, write_json
from mbrl.run.preferences.reward import (
    REPORT_FILE,
    REWARD_FILE,
    run_fit,
    save_reward,
    state_normaliser,
)
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

_VERSION: Final = 1

_GOOD_EPISODES: Final = 10
"""Labelled episodes of a class below which little is known of it."""

_RARE: Final = 0.02
"""Share of steps below which a class is rare."""


class SuccessReport(BaseModel):
    """What the fit of a success classifier found.

    Attributes:
        source: `labels`, or the column of the log that holds them.
        labels: how often each outcome was given; steps, of a column.
        annotators: who labelled; none of a column.
        labelled_steps: of which something is known, held-out ones included.
        successful_steps: of these.
        contradicted_steps: of these, which were labelled as both.
        log_steps: of the whole log.
        fitted_steps: that members learned from.
        updates: that were made.
        held_out: how the model tells episodes that it did not learn from.
        leaks: channels each of which tells all labels by itself.
        correlation: Pearson's of the mean reward with the logged one over all steps; None where the log has
            no rewards, or one of the two is constant.
        warnings: what speaks against the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    labels: Mapping[str, int]
    annotators: tuple[str, ...]
    labelled_steps: int
    successful_steps: int
    contradicted_steps: int
    log_steps: int
    fitted_steps: int
    updates: int
    held_out: StepReport
    leaks: tuple[str, ...]
    correlation: Annotated[float, Field(ge=-1.001, le=1.001)] | None
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LabelSource:
    """Where labels are: in files, or in a column of the log.

    Attributes:
        labels: of files; None where a column is named.
        column: of the log's infos; None likewise.
    """

    labels: SuccessLabels | None = None
    column: str | None = None

    def steps(self, dataset: Dataset, config: SuccessConfig) -> LabelledSteps:
        """The labelled steps of a log."""
        how: Any = {"last_steps": config.last_steps, "earlier": config.earlier}
        if self.labels is not None:
            return steps_of_labels(dataset, self.labels, **how)
        return steps_of_column(dataset, self.column or "", **how)

    def identity(self, steps: LabelledSteps) -> Mapping[str, Any]:
        """What a fit is a function of, besides the log, whose hash says nothing of its infos."""
        if self.labels is None:
            return {"column": self.column, "steps": steps.digest()}
        return {"labels": self.labels.digest()}


def fit_success_stage(
    dataset: Dataset,
    source: LabelSource,
    config: SuccessConfig,
    workspace: Workspace,
    *,
    seed: int = 0,
) -> RunFolder:
    """Fits a success classifier, or finds the one that was fitted before; a killed fit goes on where it was.

    Raises:
        DataError: the labels are about another log, of one class, or too few.
        NonFiniteError: the networks diverged.
    """
    steps = source.steps(dataset, config)
    fit = SuccessFit(
        steps, config, dataset.spec, state_normaliser(dataset), RngStreams(seed).child("success")
    )
    identity = {
        "success": config.model_dump(mode="json"),
        "dataset": dataset.content_hash,
        **source.identity(steps),
        "format": _VERSION,
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        state, model = run_fit(fit, work)
        save_reward(work.path / REWARD_FILE, model, dataset)
        report = _make_report(dataset, source, steps, fit, model, updates=state.updates)
        write_json(work.path / REPORT_FILE, report.model_dump(mode="json"))
        return {"dataset": dataset.info.name, "seed": seed, "report": report.model_dump(mode="json")}

    stage = Stage(
        key=StageKey("fit_reward", dataset.info.name, "success", seed, identity),
        config={"success": config.model_dump(mode="json"), "seed": seed},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
        results=(REWARD_FILE, REPORT_FILE),
    )
    return perform(stage, workspace)


def read_success_report(run: RunFolder) -> SuccessReport:
    """The report of a finished fit."""
    path = run.path / REPORT_FILE
    return check_values(SuccessReport, read_json(path), file=path)


def _make_report(
    dataset: Dataset,
    source: LabelSource,
    steps: LabelledSteps,
    fit: SuccessFit,
    model: RewardEnsemble,
    *,
    updates: int,
) -> SuccessReport:
    held_out = judge_steps(model, fit.holdout, share=float(fit.train.target.double().mean()))
    leaks = find_leaks(dataset, steps, reads_actions=fit.config.reads == "steps")
    successes = int((steps.target > 0.5).sum())
    labels = source.labels
    by_column = {"success": successes, "failure": len(steps) - successes}
    return SuccessReport(
        source="labels" if labels is not None else str(source.column),
        labels=by_column if labels is None else {str(k): n for k, n in labels.counts().items()},
        annotators=() if labels is None else labels.annotators(),
        labelled_steps=len(steps),
        successful_steps=successes,
        contradicted_steps=int(((steps.target > 0) & (steps.target < 1)).sum()),
        log_steps=len(steps.observation),
        fitted_steps=len(fit.train),
        updates=updates,
        held_out=held_out,
        leaks=tuple(leaks),
        correlation=_correlation(dataset, model),
        warnings=(
            *_about_labels(steps, leaks),
            *_about_model(held_out),
            *_about_ends(dataset, steps, fit.config),
        ),
    )


def _correlation(dataset: Dataset, model: RewardEnsemble) -> float | None:
    if not dataset.has_rewards:
        return None
    rewards = model.reward(*log_steps(dataset)).double().numpy()
    logged = np.concatenate([episode.rewards for episode in dataset.episodes]).astype(np.float64)
    value = correlation(rewards, logged)
    return None if np.isnan(value) else value


def _about_labels(steps: LabelledSteps, leaks: list[str]) -> list[str]:
    found: list[str] = []
    sides = {"success": steps.target > 0.5, "failure": steps.target < 0.5}
    for name, side in sides.items():
        share, episodes = float(side.float().mean()), len(np.unique(steps.episode[side].numpy()))
        if share < _RARE:
            found.append(
                f"{share:.2%} of the labelled steps are {name}: the model may never say so. Remedy: label "
                f"more of them, or longer stretches (--set last_steps=N for labels of episodes)."
            )
        if episodes < _GOOD_EPISODES:
            found.append(
                f"{name} is known from {episodes} episodes: what they share by accident is learned as its "
                "sign. Remedy: label more episodes."
            )
    if steps.of_episodes:
        found.append(
            "The column says the same in all steps of every episode: it is read as a label of episodes, of "
            "their last steps (--set last_steps=N)."
        )
    if leaks:
        found.append(
            f"{listed(leaks)} alone tells all labels by a threshold. That may be the task; if it is a flag, "
            "a counter or something that happens after success, the reward pays for that. Remedy: import the "
            "log without such a channel."
        )
    contradicted = int(((steps.target > 0) & (steps.target < 1)).sum())
    if contradicted:
        found.append(
            f"{contradicted} of {len(steps)} steps are labelled as both: they count as the share of labels "
            "that say success. Remedy: agree on what success is."
        )
    return found


def _about_model(held_out: StepReport) -> list[str]:
    found: list[str] = []
    fewest = min(held_out.successes.episodes, held_out.failures.episodes)
    if fewest < _GOOD_EPISODES // 2:
        found.append(
            f"{fewest} held-out episodes of one class judge the model: what is said of it is rough. Remedy: "
            "label more episodes."
        )
    if held_out.log_loss >= held_out.log_loss_of_share:
        found.append(
            "Its probabilities say less than the share of successes does: a log-loss of "
            f"{held_out.log_loss:.3f} against {held_out.log_loss_of_share:.3f} nats. Remedy: label more "
            "episodes, or log what success depends on."
        )
    if held_out.calibration_error > held_out.calibration_chance:
        found.append(
            f"Its probabilities are not those of the labels: a calibration error of "
            f"{held_out.calibration_error:.2f}, where chance explains {held_out.calibration_chance:.2f}. "
            "Remedy: label more episodes."
        )
    return found


def _about_ends(dataset: Dataset, steps: LabelledSteps, config: SuccessConfig) -> list[str]:
    lengths = np.asarray(dataset.episode_lengths)
    last = np.cumsum(lengths) - 1
    ends = np.isin(steps.rows.numpy(), last[np.array([episode.terminated for episode in dataset.episodes])])
    count = int((ends & (steps.target.numpy() > 0.5)).sum())
    found: list[str] = []
    if len(steps) < 0.05 * len(steps.observation):
        found.append(
            f"{len(steps) / len(steps.observation):.1%} of the log's steps are labelled; what the others "
            "earn is extrapolated. Remedy: --set earlier=failure, or label stretches of them."
        )
    if count and config.unit == "probability":
        found.append(
            f"{count} successes end their episode, and what stays short of success goes on earning. "
            "Remedy: mbrl relabel --offset -1 makes every step cost until it succeeds."
        )
    if count and config.unit == "log_odds":
        found.append(
            f"{count} successes end their episode, and log-odds have no natural 0. Remedy: mbrl relabel "
            "--offset adds to every step, so that success is worth ending for and failure is not."
        )
    return found
