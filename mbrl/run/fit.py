"""The stage that fits a dynamics ensemble to a log; one fit serves every run that asks for the same."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mbrl.core.device import CPU, on_device
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import DYNAMICS_FORMAT, DynamicsFacts, FittedDynamics, tensor_shapes
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.config import ResolvedConfig, RunConfig
from mbrl.run.files import is_folder, write_json
from mbrl.run.inputs import known_reward, manifest_facts
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey, find_run
from mbrl.uncertainty.held_out import held_out_measures

DYNAMICS_FILE: Final = "dynamics.safetensors"
_DYNAMICS_VERSION: Final = 1


def dynamics_key(config: RunConfig, dataset: Dataset) -> StageKey:
    """Identity of the dynamics fit that `config` asks for; other sections of the config do not enter."""
    identity = {
        "dynamics": config.dynamics.model_dump(mode="json"),
        "dataset": dataset.content_hash,
        "format": DYNAMICS_FORMAT,
    }
    return StageKey("fit_dynamics", dataset.info.name, "ensemble", config.seed, identity)


def judge_key(config: RunConfig, dataset: Dataset, number: int) -> StageKey:
    """Identity of a judge: a fit whose streams no training's fit has; the run's own seed does not enter."""
    identity = {
        "dynamics": judge_dynamics(config).model_dump(mode="json"),
        "dataset": dataset.content_hash,
        "format": DYNAMICS_FORMAT,
        "judge": True,
    }
    return StageKey("fit_dynamics", dataset.info.name, "judge", number, identity)


def judge_dynamics(config: RunConfig) -> DynamicsConfig:
    """The run's ensemble, with the updates of judges."""
    return config.dynamics.model_copy(update={"max_updates": config.judges.max_updates})


def judge_streams(number: int) -> RngStreams:
    """Streams of a judge, its split included."""
    return RngStreams(number).child("judge")


def fit_dynamics_stage(
    resolved: ResolvedConfig, dataset: Dataset, workspace: Workspace
) -> tuple[FittedDynamics, RunFolder]:
    """Fits the ensemble, or loads the one that was fitted before with the same config, data and seed."""
    config = resolved.run
    ask = _FitRequest(config.dynamics, RngStreams(config.seed), dynamics_key(config, dataset))
    return _fit_stage(resolved, ask, dataset, workspace)


def fit_judge_stage(
    resolved: ResolvedConfig, dataset: Dataset, workspace: Workspace, *, number: int
) -> tuple[FittedDynamics, RunFolder]:
    """Fits judge `number` of a log, or loads it: an ensemble that never trains a policy."""
    config = resolved.run
    ask = _FitRequest(judge_dynamics(config), judge_streams(number), judge_key(config, dataset, number))
    return _fit_stage(resolved, ask, dataset, workspace)


@dataclasses.dataclass(frozen=True, slots=True)
class _FitRequest:
    dynamics: DynamicsConfig
    rng: RngStreams
    key: StageKey


def _fit_stage(
    resolved: ResolvedConfig, ask: _FitRequest, dataset: Dataset, workspace: Workspace
) -> tuple[FittedDynamics, RunFolder]:
    def work(work: StageWork) -> Mapping[str, Any]:
        rng = dataclasses.replace(ask.rng, device=workspace.device)
        fitted = _fit(dataclasses.replace(ask, rng=rng), dataset, work)
        header, tensors = fitted.to_tensors()
        save_artifact(work.path / DYNAMICS_FILE, tensors, {"dynamics": header}, version=_DYNAMICS_VERSION)
        report = fitted.report.model_dump(mode="json")
        write_json(work.path / "report.json", report)
        return {"dataset": dataset.info.name, "seed": ask.key.seed, "report": report}

    run = perform(
        Stage(
            key=ask.key,
            config=resolved.to_yaml(),
            facts=manifest_facts(resolved.run, dataset),
            work=work,
            results=(DYNAMICS_FILE, "report.json"),
        ),
        workspace,
    )
    return for_log(load_dynamics(run), resolved.run, dataset), run


def for_log(fitted: FittedDynamics, config: RunConfig, dataset: Dataset) -> FittedDynamics:
    """A fit as it imagines with a log: by the reward rule that the log carries, where there is one."""
    return dataclasses.replace(fitted, known_reward=known_reward(config, dataset))


def load_dynamics(run: RunFolder) -> FittedDynamics:
    """The fitted model of a finished fit."""
    return open_dynamics(run.path / DYNAMICS_FILE)


def open_dynamics(path: Path) -> FittedDynamics:
    """The model of a finished fit's folder, or of a dynamics file.

    Raises:
        ConfigError: there is none, or its file is damaged.
    """
    if is_folder(path):
        path = find_run(path, stage="fit_dynamics").path / DYNAMICS_FILE
    artifact = load_artifact(path, version=_DYNAMICS_VERSION, what="dynamics")
    facts = artifact.entry("dynamics", DynamicsFacts)
    shapes = tensor_shapes(facts, artifact.tensors)
    artifact.check_shapes(shapes)
    artifact.check_positive(name for name in shapes if name.endswith((".std", ".temperature", ".width")))
    try:
        return FittedDynamics.from_tensors(facts, artifact.tensors)
    except ValueError as error:
        raise artifact.error(str(error)) from error


def _fit(ask: _FitRequest, dataset: Dataset, work: StageWork) -> FittedDynamics:
    checkpoints, progress = work.checkpoints(keep=1), work.progress
    if ask.dynamics.kind != "tabular":
        widths = " x ".join(str(width) for width in ask.dynamics.hidden)
        progress.message(
            f"Fit {ask.dynamics.members} networks of {widths} to {dataset.num_transitions:,} steps of "
            f"{dataset.info.name}."
        )
    epoch = 0
    phase = ""

    def restore(fit: DynamicsFit) -> bool:
        nonlocal epoch
        found = checkpoints.load_latest(progress.message, accept=fit.load_state_dict)
        epoch = 0 if found is None else found[0]
        return found is not None

    def on_epoch(fit: DynamicsFit) -> None:
        nonlocal epoch, phase
        epoch += 1
        status = fit.progress
        if status.stage != phase:
            progress.start(f"fit {status.stage}", status.max_updates)
            phase = status.stage
        progress.advance(status.updates, holdout_error=min(status.holdout_error, default=float("nan")))
        checkpoints.save(epoch, on_device(fit.state_dict(), CPU))
        work.note_seconds()

    try:
        return fit_dynamics(
            dataset,
            ask.dynamics,
            ask.rng,
            measures=held_out_measures,
            restore=restore,
            on_epoch=on_epoch,
        )
    finally:
        progress.finish()
