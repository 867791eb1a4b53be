"""The stage that fits a reward model to preferences about a log."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.preferences.agreement import measure_agreement
from mbrl.preferences.calibration import PairReport, correlation, judge_pairs
from mbrl.preferences.ensemble_fit import EnsembleFit, RewardFitState, fit_reward
from mbrl.preferences.files import content_digest
from mbrl.preferences.fit import RewardConfig, RewardFit
from mbrl.preferences.pairs import PreferenceSet
from mbrl.preferences.reward_model import RewardEnsemble, RewardSpec
from mbrl.preferences.segments import SegmentPairs, log_steps
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.files import check_values, is_file, is_folder, read_json, write_json
from mbrl.run.policies import POLICY_FILE
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey, find_run

REWARD_FILE: Final = "reward.safetensors"
REPORT_FILE: Final = "report.json"
_VERSION: Final = 1

_GOOD_PAIRS: Final = 30
"""Held-out pairs below which an accuracy says little."""


class RewardReport(BaseModel):
    """What the fit of a reward model found.

    Attributes:
        answers: that were given, by label.
        annotators: who gave them.
        kappa: Fleiss' agreement on pairs that several saw; None without such pairs.
        fitted_pairs: that members learned from.
        updates: that were made.
        held_out: how the model tells the pairs that it did not learn from.
        correlation: Pearson's of the mean reward with the logged one over all steps; None where the log has
            no rewards, or one of the two is constant.
        warnings: what speaks against the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: Mapping[str, int]
    annotators: tuple[str, ...]
    kappa: Annotated[float, Field(ge=-1, le=1)] | None
    fitted_pairs: int
    updates: int
    held_out: PairReport
    correlation: Annotated[float, Field(ge=-1.001, le=1.001)] | None
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class StoredReward:
    """A reward model of a file.

    Attributes:
        model: the ensemble.
        dataset: content hash of the log that it was fitted to.
        content: hash of the file, which tells it from all others.
        path: of the file.
    """

    model: RewardEnsemble
    dataset: str
    content: str
    path: Path


class _Facts(BaseModel):
    """What the file says besides its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: RewardSpec
    dataset: Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")]


def fit_reward_stage(
    dataset: Dataset,
    preferences: PreferenceSet,
    config: RewardConfig,
    workspace: Workspace,
    *,
    seed: int = 0,
) -> RunFolder:
    """Fits a reward model, or finds the one that was fitted before; a killed fit goes on where it was.

    Raises:
        DataError: the answers are about another log, or too few.
        NonFiniteError: the networks diverged.
    """
    preferences.require_log(dataset)
    identity = {
        "reward": config.model_dump(mode="json"),
        "dataset": dataset.content_hash,
        "preferences": content_digest(preferences),
        "format": _VERSION,
    }
    key = StageKey("fit_reward", dataset.info.name, "bradley-terry", seed, identity)

    def work(work: StageWork) -> Mapping[str, Any]:
        fit = make_fit(dataset, preferences, config, seed=seed)
        state, model = run_fit(fit, work)
        save_reward(work.path / REWARD_FILE, model, dataset)
        report = make_report(dataset, preferences, fit, state, model).model_dump(mode="json")
        write_json(work.path / REPORT_FILE, report)
        return {"dataset": dataset.info.name, "seed": seed, "report": report}

    stage = Stage(
        key=key,
        config={"reward": config.model_dump(mode="json"), "seed": seed},
        facts={"dataset_hash": dataset.content_hash},
        work=work,
        results=(REWARD_FILE, REPORT_FILE),
    )
    return perform(stage, workspace)


def make_fit(dataset: Dataset, preferences: PreferenceSet, config: RewardConfig, *, seed: int) -> RewardFit:
    """The fit of a log's answers; its states are standardised by the whole log."""
    pairs, streams = SegmentPairs.of(dataset, preferences), RngStreams(seed).child("reward")
    return RewardFit(pairs, config, dataset.spec, state_normaliser(dataset), streams)


def state_normaliser(dataset: Dataset) -> Normaliser:
    """Of the states of a whole log."""
    observations, _ = log_steps(dataset)
    mean, std = fit_moments(observations.numpy())
    return Normaliser(torch.from_numpy(mean), torch.from_numpy(std))


def save_reward(path: Path, model: RewardEnsemble, dataset: Dataset) -> Path:
    """Writes a reward model that is standardised over a log."""
    facts = {"spec": model.spec.to_json(), "dataset": dataset.content_hash}
    return save_artifact(path, model.state_dict(), {"reward": facts}, version=_VERSION)


def open_reward(path: Path) -> StoredReward:
    """The reward model of a finished fit's or imitation's folder, or of a file.

    Raises:
        ConfigError: there is none.
        FileError: the file is damaged, or no reward model.
    """
    if is_folder(path):
        # An imitation leaves one beside its policy; other trainings are told that a fit is needed.
        stage = (
            "train_policy" if is_file(path / POLICY_FILE) and is_file(path / REWARD_FILE) else "fit_reward"
        )
        path = find_run(path, stage=stage).path / REWARD_FILE
    artifact = load_artifact(path, version=_VERSION, what="reward model")
    facts = artifact.entry("reward", _Facts)
    artifact.check_shapes(RewardEnsemble.tensor_shapes(facts.spec))
    artifact.check_positive(["body.normaliser.std", "scale"])
    model = RewardEnsemble.from_tensors(facts.spec, artifact.tensors)
    return StoredReward(model, facts.dataset, artifact.content, path)


def read_report(run: RunFolder) -> RewardReport:
    """The report of a finished fit."""
    path = run.path / REPORT_FILE
    return check_values(RewardReport, read_json(path), file=path)


def run_fit(fit: EnsembleFit, work: StageWork) -> tuple[RewardFitState, RewardEnsemble]:
    """Runs a fit from where its folder stands to its end; returns how it ended, and the model."""
    checkpoints, progress = work.checkpoints(keep=1), work.progress
    state = fit.start()
    checkpoints.load_latest(progress.message, accept=state.load_state_dict)

    def on_look(state: RewardFitState) -> None:
        progress.advance(state.updates, loss=state.history[-1])
        checkpoints.save(state.updates, state.state_dict())

    progress.start("fit reward", fit.max_updates)
    progress.advance(state.updates)
    try:
        return state, fit_reward(fit, state, on_look=on_look)
    finally:
        progress.finish()


def make_report(
    dataset: Dataset,
    preferences: PreferenceSet,
    fit: RewardFit,
    state: RewardFitState,
    model: RewardEnsemble,
) -> RewardReport:
    """What a fit found, held-out pairs first."""
    held_out = judge_pairs(fit.best(state), fit.holdout, lapse=fit.config.lapse)
    found = None
    if dataset.has_rewards:
        rewards = model.reward(*log_steps(dataset)).double().numpy()
        logged = np.concatenate([episode.rewards for episode in dataset.episodes]).astype(np.float64)
        value = correlation(rewards, logged)
        found = None if np.isnan(value) else value
    kappa = measure_agreement(preferences).kappa
    return RewardReport(
        answers={str(label): count for label, count in preferences.counts().items()},
        annotators=preferences.annotators(),
        kappa=None if np.isnan(kappa) else kappa,
        fitted_pairs=len(fit.train),
        updates=state.updates,
        held_out=held_out,
        correlation=found,
        warnings=tuple(_warnings(dataset, held_out)),
    )


def _warnings(dataset: Dataset, held_out: PairReport) -> list[str]:
    found: list[str] = []
    if held_out.pairs < _GOOD_PAIRS:
        found.append(
            f"{held_out.pairs} held-out pairs judge the model: accuracy and calibration are rough. "
            "Remedy: label more pairs (mbrl next-pairs says which)."
        )
    if held_out.accuracy_low is not None and held_out.accuracy_low <= 0.5:
        found.append(
            f"The model may tell held-out pairs no better than a coin: accuracy {held_out.accuracy:.2f}, its "
            f"interval from {held_out.accuracy_low:.2f}. Remedy: label more pairs, or longer segments."
        )
    if held_out.calibration_error > held_out.calibration_chance:
        found.append(
            f"Its probabilities are not those of the answers: a calibration error of "
            f"{held_out.calibration_error:.2f}, where chance explains {held_out.calibration_chance:.2f}. "
            "Remedy: set lapse, the share of careless answers, or label more pairs."
        )
    ended = sum(episode.terminated for episode in dataset.episodes)
    if ended:
        found.append(
            f"{ended} of {len(dataset)} episodes terminate, and comparisons do not tell what it is worth to "
            "go on: rewards have mean 0 over the log. Remedy: mbrl relabel --offset adds to every step."
        )
    return found
