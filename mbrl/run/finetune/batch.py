"""The stage that adds a batch of trials to a log: run in a simulator, or brought from a machine."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.protocols import DiscretePolicy, Policy, StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.formats.base import FORMATS
from mbrl.data.open import open_dataset
from mbrl.envs.behaviour import EvenShare, Noisy
from mbrl.envs.collect import collect
from mbrl.envs.make import env_versions
from mbrl.envs.specs import TaskSpec, own_task_hash
from mbrl.run.finetune.versions import append_trials, as_logged
from mbrl.run.policies import StoredPolicy
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

TRIALS: Final = "trials"
"""Folder with the batch alone, a Minari dataset: the format that keeps densities of some episodes."""

VERSION: Final = "version"
"""Folder with the whole next version, likewise."""

_MAIN_FILE: Final = "data/main_data.hdf5"

DEFAULT_NOISE: Final = 0.1
"""Exploration of policies that have no density, halves of a command's range (Fujimoto et al. 2018)."""

_FORMAT: Final = 1


class BatchSummary(BaseModel):
    """What a batch brought.

    Attributes:
        stage: `collect_batch`.
        version: number of the version that it made.
        content_hash: of that version.
        appended_to: content hash of the version before.
        episodes: of the batch.
        steps: likewise.
        mean_return: of its episodes, raw reward units; None without rewards.
        in_simulator: whether they were run there; brought by hand otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: str
    version: int
    content_hash: str
    appended_to: str
    episodes: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    mean_return: float | None
    in_simulator: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Trials that are to be run in a simulator.

    Attributes:
        policy: acts.
        task: whose simulator.
        episodes: how many.
        exploration: deviation of noise on the commands, halves of their range, or the share of choices that
            is drawn evenly; None draws from the policy's density, or takes `DEFAULT_NOISE` without one.
    """

    policy: StoredPolicy
    task: TaskSpec
    episodes: int
    exploration: float | None = None


def run_batch_stage(
    log: Dataset, batch: Batch, workspace: Workspace, *, number: int, budget: int, seed: int
) -> RunFolder:
    """Runs trials in a simulator and makes the next version of the log; found again like other stages.

    Args:
        log: the version before.
        batch: what is run.
        workspace: where the result goes.
        number: of the batch, for its streams.
        budget: of trials in all.
        seed: of starts and noise.

    Raises:
        ConfigError: the task has no simulator, or the policy does not fit it.
    """
    identity = {
        "policy": batch.policy.content,
        "task": batch.task.model_dump(mode="json"),
        "episodes": batch.episodes,
        "exploration": batch.exploration,
        "number": number,
    }

    def trials() -> Dataset:
        rng = RngStreams(seed).child("finetune").child(f"batch-{number}")
        # Around the network, not around what remembers its frames: those are to hold the noisy actions.
        acting = explore(batch.policy.policy, batch.task, batch.exploration)
        policy = dataclasses.replace(batch.policy, policy=acting).on_frames(batch.task.space)
        episodes = collect(batch.task, policy, episodes=batch.episodes, rng=rng)
        return Dataset(tuple(episodes), batch.task.space, _describe(batch, number, seed))

    stage = _BatchStage(log, budget, batch.policy.content, in_simulator=True)
    return stage.perform(identity, trials, workspace, seed=seed)


def add_trials_stage(
    log: Dataset, trials: Dataset, workspace: Workspace, *, budget: int, seed: int
) -> RunFolder:
    """Makes the next version of a log of trials that somebody brought.

    Raises:
        DataError: they are no trials of that machine; the difference is named.
    """
    stage = _BatchStage(log, budget, None, in_simulator=False)
    return stage.perform({"trials": trials.content_hash}, lambda: trials, workspace, seed=seed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=False)
class _BatchStage:
    log: Dataset
    budget: int
    policy: str | None
    in_simulator: bool

    def perform(
        self,
        identity: Mapping[str, Any],
        trials: Callable[[], Dataset],
        workspace: Workspace,
        *,
        seed: int,
    ) -> RunFolder:
        log = self.log
        whole = {**identity, "appended_to": log.content_hash, "budget": self.budget, "format": _FORMAT}

        def work(work: StageWork) -> Mapping[str, Any]:
            found = as_logged(trials(), log)
            version = append_trials(log, found, budget=self.budget, policy=self.policy)
            for name, dataset in ((TRIALS, found), (VERSION, version)):
                path: Path = work.path / name
                shutil.rmtree(path, ignore_errors=True)  # of an attempt that ended before its mark
                FORMATS.get("minari").write(dataset, path)
            returns = np.asarray(found.episode_returns, dtype=np.float64)
            # As they are read again: a run's identity is that of the file.
            written = open_dataset(work.path / VERSION)
            summary = BatchSummary(
                stage="collect_batch",
                version=int(version.info.name.rpartition("-v")[2]),
                content_hash=written.content_hash,
                appended_to=log.content_hash,
                episodes=len(found),
                steps=found.num_transitions,
                mean_return=float(returns.mean()) if found.has_rewards else None,
                in_simulator=self.in_simulator,
            )
            return summary.model_dump(mode="json")

        stage = Stage(
            key=StageKey("collect_batch", log.info.name, "trials", seed, whole),
            config={**identity, "seed": seed},
            facts={"dataset_hash": log.content_hash},
            work=work,
            results=tuple(f"{name}/{_MAIN_FILE}" for name in (TRIALS, VERSION)),
        )
        return perform(stage, workspace)


def explore(policy: Policy, task: TaskSpec, exploration: float | None) -> Policy:
    """Who acts in trials: the policy's own draws, or its best actions with noise on them."""
    if isinstance(policy, DiscretePolicy):
        return EvenShare(policy, exploration) if exploration else policy
    if exploration is None and isinstance(policy, StochasticPolicy):
        return policy
    return Noisy(policy, task.space, DEFAULT_NOISE if exploration is None else exploration)


def _describe(batch: Batch, number: int, seed: int) -> DatasetInfo:
    task, own_task = batch.task, own_task_hash(batch.task)
    provenance = {
        "algorithm_name": batch.policy.label,
        "policy": batch.policy.content,
        "seed": str(seed),
        "package_versions": str(env_versions()),
        **({} if own_task is None else {"task_hash": own_task}),
    }
    return DatasetInfo(
        name=f"trials-{number}",
        task=task.name,
        env_id=task.env_id,
        max_episode_steps=task.max_episode_steps,
        ref_min_score=task.ref_min_score,
        ref_max_score=task.ref_max_score,
        provenance=provenance,
    )
