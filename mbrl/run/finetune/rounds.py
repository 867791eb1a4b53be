"""Rounds of a finetuning: a batch of trials, a version of the log, a training that goes on from the last one.

Sources: half of each batch from the old log and half from the trials, RLPD (Ball et al. 2023,
arXiv:2302.02948, section 4.1).

Departures: training happens between batches and never along them, by the learner that the offline training
had, so that what is run on a machine is a file that somebody released.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.documents import Override
from mbrl.run.finetune.batch import (
    VERSION,
    Batch,
    BatchSummary,
    add_trials_stage,
    run_batch_stage,
)
from mbrl.run.finetune.versions import lineage_of, mixing_weights, require_budget
from mbrl.run.fit import fit_dynamics_stage
from mbrl.run.inputs import find_run_task, load_run_dataset
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, find_run
from mbrl.run.train import train_policy_stage


class FinetuneConfig(BaseModel):
    """How a training goes on with trials.

    Attributes:
        updates: after each batch of trials.
        old_share: of the log without trials in each batch of an update; the trials have the rest.
        exploration: deviation of noise on the commands of trials in a simulator, halves of their range, or
            the share of choices that is drawn evenly; null draws from the policy's own density, and takes 0.1
            for a policy without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Annotated[int, Field(ge=1, le=1_000_000_000)] = 5000
    old_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    exploration: Annotated[float, Field(ge=0, le=10)] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """A batch, and the training after it.

    Attributes:
        batch: what was added.
        version: path of the new version of the log.
        run: the training on it.
    """

    batch: BatchSummary
    version: Path
    run: RunFolder


@dataclasses.dataclass(frozen=True, slots=True)
class Finetuning:
    """A training that goes on with trials.

    Attributes:
        start: folder of the training that it starts from, offline or an earlier round.
        config: how.
        budget: trials that may be run in all; None takes that of the log's version.
        overrides: of the runs' config, such as another learning rate.
    """

    start: Path
    config: FinetuneConfig
    budget: int | None = None
    overrides: Sequence[Override] = ()

    def in_simulator(self, batches: int, workspace: Workspace) -> list[Round]:
        """Runs what is left of the budget in the task's simulator, in batches with a training after each.

        Everything is found again by a later call, and a killed one goes on to the same bits.

        Raises:
            ConfigError: the budget is exceeded, there is no simulator, or the training cannot go on.
        """
        rounds: list[Round] = []
        log, before = self._open(workspace)
        budget, lineage = require_budget(log, 0, self.budget), lineage_of(log)
        counts = split_budget(budget - (0 if lineage is None else lineage.episodes), batches)
        task = find_run_task(resolve(before / "config.yaml").run, log)
        if task is None:
            raise ConfigError(
                f"The log {log.info.name!r} names no task with a simulator. Remedy: run the trials on the "
                "machine, and name what was logged as --trials."
            )
        workspace.progress.message(
            f"This runs policies in the simulator of {task.name}: {sum(counts)} episodes in {batches} "
            "batches."
        )
        seed = resolve(before / "config.yaml").run.seed
        first = 1 if lineage is None else lineage.version
        for number, episodes in enumerate(counts, start=first):
            batch = Batch(open_policy(before), task, episodes, self.config.exploration)
            found = run_batch_stage(log, batch, workspace, number=number, budget=budget, seed=seed)
            rounds.append(self._learn(found, before, workspace))
            before, log = rounds[-1].run.path, open_dataset(rounds[-1].version)
        return rounds

    def on_trials(self, batches: Sequence[Dataset], workspace: Workspace) -> list[Round]:
        """Takes trials that somebody ran on the machine; one training after each batch.

        Raises:
            ConfigError: the budget is exceeded, or the training cannot go on.
            DataError: the trials are those of another machine.
        """
        rounds: list[Round] = []
        log, before = self._open(workspace)
        budget = require_budget(log, sum(map(len, batches)), self.budget)
        seed = resolve(before / "config.yaml").run.seed
        for trials in batches:
            found = add_trials_stage(log, trials, workspace, budget=budget, seed=seed)
            rounds.append(self._learn(found, before, workspace))
            before, log = rounds[-1].run.path, open_dataset(rounds[-1].version)
        return rounds

    def _open(self, workspace: Workspace) -> tuple[Dataset, Path]:
        """The log of the training that goes on, and its folder."""
        run = find_run(self.start, stage="train_policy")
        config = resolve(run.path / "config.yaml").run
        # Whatever draws logged rows by their source can be given trials beside them.
        if not (RECIPES.get(config.recipe).weighs_sources and config.algorithm.reads_rewards):
            raise ConfigError(
                f"{self.start} was trained by {config.recipe!r}, which has no log of rewards that trials "
                "could be added to. Remedy: a training by iql, td3_bc, cql, mopo or another method on a log."
            )
        return load_run_dataset(config, workspace), run.path

    def _learn(self, batch: RunFolder, before: Path, workspace: Workspace) -> Round:
        path = batch.path / VERSION
        version = open_dataset(path)
        resolved = next_config(self, before, path, version)
        run = train_policy_stage(resolved, workspace.on(resolved.run.device), dataset=version)
        return Round(BatchSummary.model_validate(batch.summary()), path, run)


def next_config(finetuning: Finetuning, before: Path, path: Path, version: Dataset) -> ResolvedConfig:
    """The config of the training on a version: that of the training before, which it starts from.

    Rates that fall to the end of a training have fallen: whatever is called a schedule is constant. A start
    of its own, from another training or on logged rows alone, is behind it.
    """
    config = finetuning.config
    arguments: Mapping[str, Any] = {
        "dataset": str(path.resolve()),
        "dataset_options": {},
        "weights": mixing_weights(version, old_share=config.old_share),
        "continue_from": str(before.resolve()),
    }
    algorithm = resolve(before / "config.yaml").run.algorithm
    schedules = [name for name in type(algorithm.learner.config).model_fields if name.endswith("schedule")]
    constant: list[Override] = [(("algorithm", "learner", name), "constant") for name in schedules]
    behind: list[Override] = [(("warm_start",), None)]
    if algorithm.start_updates > 0:
        behind.append((("algorithm", "logged_updates"), 0))
    return resolve(
        before / "config.yaml",
        arguments=arguments,
        overrides=[(("algorithm", "updates"), config.updates), *behind, *constant, *finetuning.overrides],
        source="finetune",
    )


def split_budget(episodes: int, batches: int) -> list[int]:
    """Episodes of each batch, as even as can be, the larger ones first.

    Raises:
        ConfigError: there are fewer episodes than batches.
    """
    if not 1 <= batches <= episodes:
        raise ConfigError(
            f"{episodes} trials of the budget are left, for {batches} batches. Remedy: a larger budget "
            "(--budget counts all trials, those of earlier calls included), or fewer batches."
        )
    return [episodes // batches + (k < episodes % batches) for k in range(batches)]


def plan_next(last: Round, workspace: Workspace, *, dynamics: str | None = None) -> list[str]:
    """What the next trials should show, in words: where a model of the newest version is unsure or blind.

    Args:
        last: the newest round.
        workspace: where the model is fitted, or found.
        dynamics: name or path of a yaml for the fit; None takes the run's.
    """
    resolved = resolve(last.run.path / "config.yaml", arguments={"dynamics": dynamics})
    fitted, _ = fit_dynamics_stage(resolved, open_dataset(last.version), workspace.on(resolved.run.device))
    return fitted.report.gaps.next_to_log()
