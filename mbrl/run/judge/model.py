"""Which dynamics models an off-policy evaluation rolls out: judges, unless another is named."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.algorithms.imagination import TerminationSource, choose_termination
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.rules import logged_termination
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import split_for
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.value.evaluation_model import EvaluationModel, MeanTermination, panel_of
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.files import hash_file
from mbrl.run.fit import (
    DYNAMICS_FILE,
    dynamics_key,
    fit_dynamics_stage,
    fit_judge_stage,
    for_log,
    judge_dynamics,
    judge_streams,
    open_dynamics,
)
from mbrl.run.inputs import find_run_task, known_termination, named_end, reward_identity
from mbrl.run.judge.judges import Judges, open_judges
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore

_THRESHOLD_ROWS: Final = 5_000
"""Most held-out rows of each judge that tell how far judges disagree on the log."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRequest:
    """What is asked of the model.

    Attributes:
        dynamics: folder of a fit, or a dynamics file, in place of all others.
        own: take the fit of the candidate's config, data and seed, made where it is missing.
        termination: the fit's learned head, the task's known rule, or no end; `auto` takes the rule where
            there is one.
        judges: ensembles that trained no policy, fitted where they are missing.
    """

    dynamics: Path | None = None
    own: bool = False
    termination: TerminationSource = "auto"
    judges: int = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ChosenModel:
    """A model with what is needed to fit its like to a part of the log.

    Attributes:
        fitted: the fit, or the first judge.
        file: that it was read from.
        resolved: config of fits like it.
        termination: where the end comes from.
        judges: all judges, the first among them; None for another model.
        is_own: whether the candidate was trained in it.
    """

    fitted: FittedDynamics
    file: Path
    resolved: ResolvedConfig
    termination: TerminationSource
    judges: Judges | None = None
    is_own: bool = False

    def identity(self) -> Mapping[str, Any]:
        """What estimates with it depend on."""
        by = reward_identity(self.resolved.run)
        if self.judges is not None:
            contents = [hash_file(run.path / DYNAMICS_FILE) for run in self.judges.runs]
            asked = {"samples": self.judges.question.samples, "box_margin": self.judges.config.box_margin}
            return {"judges": contents, "termination": self.termination, **asked, **by}
        own = {"is_own": True} if self.is_own else {}
        return {"content": hash_file(self.file), "termination": self.termination, **own, **by}

    @property
    def fit_config(self) -> DynamicsConfig:
        """Of fits like it."""
        run = self.resolved.run
        return run.dynamics if self.judges is None else judge_dynamics(run)

    def for_evaluation(self, dataset: Dataset) -> EvaluationModel:
        """What roll-outs of the task of `dataset` need.

        Raises:
            ConfigError: the task declares no rule of termination, and it was asked for.
        """
        if self.judges is not None:
            return _panel(self.judges, self, dataset)
        return dataclasses.replace(_evaluation_model(self.fitted, self, dataset), is_own=self.is_own)

    def refitted(self, dataset: Dataset, workspace: Workspace, *, seed: int) -> EvaluationModel:
        """The same of a fit to other episodes with the same config; found if it was made before.

        Of judges one stands for all.
        """
        if self.judges is not None:
            fitted, _ = fit_judge_stage(self.resolved, dataset, workspace, number=0)
            return self.judges.asked_as_they_are(_evaluation_model(fitted, self, dataset))
        run = self.resolved.run.model_copy(update={"seed": seed})
        fitted, _ = fit_dynamics_stage(dataclasses.replace(self.resolved, run=run), dataset, workspace)
        return _evaluation_model(fitted, self, dataset)


def choose_model(
    candidate: Path | None,
    dataset: Dataset,
    request: ModelRequest,
    *,
    source: str | tuple[str, ...],
    workspace: Workspace,
) -> ChosenModel | None:
    """The model that is named, else judges, else the fit of the candidate's config.

    A run trained from a model finds its own fit; a model-free one the fit of its seed, which another run may
    have made. A fit to other episodes than those of `dataset` is used only if it is named.

    Args:
        candidate: folder of a training, or a policy file; None for a policy that no file holds.
        dataset: the log.
        request: what is asked.
        source: name or path of the log, or several of them.
        workspace: where runs are.

    Returns:
        None where none was asked for.

    Raises:
        ConfigError: the named model is none, or one of a task of other sizes, or a known rule is to end
            roll-outs, and there is none.
    """
    training = _training_of(candidate)
    resolved = _config_of(training, source)
    termination = _termination_of(request.termination, resolved, dataset)
    if request.dynamics is not None:
        path = request.dynamics
        file = path / DYNAMICS_FILE if path.is_dir() else path
        fitted = open_dynamics(path)
        config = resolved.run.model_copy(update={"dynamics": fitted.config})
        resolved = dataclasses.replace(resolved, run=config)
        is_own = _trained_in(training, file.parent)
        return _checked(ChosenModel(fitted, file, resolved, termination, is_own=is_own), dataset)
    if request.judges > 0:
        return _judges(request.judges, resolved, termination, dataset, workspace)
    if not request.own:
        return None
    needs_model = training is not None and RECIPES.get(resolved.run.recipe).needs_dynamics
    key = dynamics_key(resolved.run, dataset)
    stores = [] if training is None else [RunStore(training.resolve().parents[1])]
    for store in (*stores, workspace.store):
        run = store.folder(key)
        if run.is_done:
            file = run.path / DYNAMICS_FILE
            found = ChosenModel(open_dynamics(file), file, resolved, termination, is_own=needs_model)
            return _checked(found, dataset)
    fitted, run = fit_dynamics_stage(resolved, dataset, workspace)
    return ChosenModel(fitted, run.path / DYNAMICS_FILE, resolved, termination, is_own=needs_model)


def _judges(
    count: int,
    resolved: ResolvedConfig,
    termination: TerminationSource,
    dataset: Dataset,
    workspace: Workspace,
) -> ChosenModel:
    config = resolved.run.judges.model_copy(update={"count": count})
    resolved = dataclasses.replace(resolved, run=resolved.run.model_copy(update={"judges": config}))
    judges = open_judges(resolved, dataset, workspace)
    if judges.backtest is not None:
        workspace.progress.message(judges.backtest.words)
    return ChosenModel(judges.fits[0], judges.runs[0].path / DYNAMICS_FILE, resolved, termination, judges)


def _termination_of(
    asked: TerminationSource, resolved: ResolvedConfig, dataset: Dataset
) -> TerminationSource:
    known = known_termination(find_run_task(resolved.run, dataset), dataset)
    return named_end(asked, known, option="termination")


def _trained_in(training: Path | None, fit: Path) -> bool:
    """Whether the candidate was trained in the fit of a folder."""
    manifests = [None if path is None else RunFolder(path).manifest_or_none() for path in (training, fit)]
    if manifests[0] is None or manifests[1] is None:
        return False
    return manifests[0]["identity"].get("dynamics") == manifests[1]["hash"]


def _training_of(candidate: Path | None) -> Path | None:
    """Folder of the run that the candidate is, or that a policy file lies in; None for a file of its own."""
    if candidate is None:
        return None
    if candidate.is_dir():
        return candidate if (candidate / "config.yaml").is_file() else None
    for folder in candidate.resolve().parents[:2]:  # policy.safetensors, policies/step-*.safetensors
        manifest = folder / "manifest.json"
        if manifest.is_file() and RunFolder(folder).manifest().get("stage") == "train_policy":
            return folder
    return None


def _config_of(training: Path | None, source: str | tuple[str, ...]) -> ResolvedConfig:
    """Config of a run with the log in place of its own; defaults without a run, or for an online one."""
    if training is not None:
        resolved = resolve(training / "config.yaml")
        if not RECIPES.get(resolved.run.recipe).is_online:
            return dataclasses.replace(resolved, run=resolved.run.model_copy(update={"dataset": source}))
    return resolve(arguments={"dataset": source, "algorithm": "bc"})  # a fit reads no algorithm


def _checked(chosen: ChosenModel, dataset: Dataset) -> ChosenModel:
    model, spec = chosen.fitted.model, dataset.spec
    sizes = (model.obs_dim, model.inputs.mean.shape[0] - model.obs_dim)
    if sizes != (spec.obs_dim, spec.act_dim):
        raise ConfigError(
            f"The dynamics {chosen.file} have {sizes[0]} observation and {sizes[1]} action dimensions, the "
            f"dataset {dataset.info.name!r} has {spec.obs_dim} and {spec.act_dim}. Remedy: name a fit to the "
            "same task."
        )
    return dataclasses.replace(chosen, fitted=for_log(chosen.fitted, chosen.resolved.run, dataset))


def _evaluation_model(fitted: FittedDynamics, chosen: ChosenModel, dataset: Dataset) -> EvaluationModel:
    task = find_run_task(chosen.resolved.run, dataset) if chosen.termination == "task" else None
    context = RecipeContext(
        dataset.spec,
        Normaliser.identity(dataset.spec.obs_dim),
        task=task,
        log_termination=logged_termination(dataset.info),
    )
    termination = choose_termination(chosen.termination, context, fitted)
    return EvaluationModel.of(fitted, termination=termination)


def _panel(judges: Judges, chosen: ChosenModel, dataset: Dataset) -> EvaluationModel:
    """All judges as one model, with a threshold from the steps that one of them was not fitted to."""
    obs: list[torch.Tensor] = []
    actions: list[torch.Tensor] = []
    for number in range(len(judges.fits)):
        held = split_for(chosen.fit_config, dataset, judge_streams(number)).holdout.transitions()
        step = max(1, len(held) // _THRESHOLD_ROWS)
        obs.append(torch.tensor(held.observation[::step]))
        actions.append(torch.tensor(held.action[::step]))
    heads = tuple(_evaluation_model(fit, chosen, dataset).termination for fit in judges.fits)
    panel = panel_of(judges.fits, MeanTermination(heads), (torch.cat(obs), torch.cat(actions)))
    return judges.asked_as_they_are(panel)
