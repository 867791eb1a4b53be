"""What planning on top of a trained run stands on: its policy, its log, and the model of that log."""

import dataclasses
from pathlib import Path

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.splits import Split
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.fit import split_for
from mbrl.envs.specs import TaskSpec
from mbrl.nets.action_box import ActionBox
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.fit import fit_dynamics_stage, for_log
from mbrl.run.inputs import find_run_task, load_run_dataset
from mbrl.run.policies import StoredPolicy, open_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, find_run
from mbrl.run.train import make_recipe_context


@dataclasses.dataclass(frozen=True, slots=True)
class PlanBasis:
    """A trained run with everything that planners on top of it share.

    Attributes:
        run: the training.
        resolved: its config.
        stored: its policy, which may have been selected along the training.
        dataset: its log.
        split: what models and critics were fitted on, and what they were not.
        task: the task, where one is known.
        dynamics: the model that was fitted to the log.
        dynamics_hash: of that fit's identity.
        policy_hash: of the policy's file.
    """

    run: RunFolder
    resolved: ResolvedConfig
    stored: StoredPolicy
    dataset: Dataset
    split: Split
    task: TaskSpec | None
    dynamics: FittedDynamics
    dynamics_hash: str
    policy_hash: str

    @property
    def is_last(self) -> bool:
        """Whether the policy is that of the last update."""
        return self.stored.facts.get("updates") in {None, self.resolved.run.algorithm.updates}

    @property
    def discount(self) -> float:
        """Of the learner's values."""
        return self.resolved.run.algorithm.learner.config.discount

    @property
    def box(self) -> ActionBox | None:
        """Maps [-1, 1] to the task's actions; None for one-hot actions."""
        return None if isinstance(self.stored.policy, DiscretePolicy) else ActionBox(self.dataset.spec)

    @property
    def label(self) -> str:
        """What the run is called."""
        return self.stored.label


def open_basis(
    path: Path,
    workspace: Workspace,
    *,
    dataset: Dataset | None = None,
    fitted: tuple[FittedDynamics, str] | None = None,
) -> PlanBasis:
    """Opens a finished training; its model is found in the store, or fitted now.

    Args:
        path: folder of the training.
        workspace: where its model is.
        dataset: its log, if that is open already; None opens the one that its config names.
        fitted: the model to plan in and the digest of its fit; None takes the one that the config names.

    Raises:
        ConfigError: the folder holds no finished training, or one without logs.
    """
    run = find_run(path, stage="train_policy")
    resolved = resolve(run.path / "config.yaml")
    if RECIPES.get(resolved.run.recipe).is_online:
        raise ConfigError(
            f"The run {path} was trained in a simulator; planning needs the logs that a model is fitted to. "
            "Remedy: name a run that was trained on a dataset."
        )
    dataset = dataset or load_run_dataset(resolved.run, workspace)
    dataset.require_rewards("Planning")
    if fitted is None:
        dynamics, fit = fit_dynamics_stage(resolved, dataset, workspace)
        fitted = (dynamics, str(fit.manifest()["hash"]))
    stored = open_policy(path)
    return PlanBasis(
        run=run,
        resolved=resolved,
        stored=stored,
        dataset=dataset,
        split=split_for(resolved.run.dynamics, dataset, RngStreams(resolved.run.seed)),
        task=find_run_task(resolved.run, dataset),
        dynamics=for_log(fitted[0], resolved.run, dataset),
        dynamics_hash=fitted[1],
        policy_hash=stored.content,
    )


def make_basis_context(basis: PlanBasis) -> RecipeContext:
    """What the run's recipe was built from, its model included."""
    return make_recipe_context(basis.resolved.run, basis.dataset, basis.task, lambda: basis.dynamics)
