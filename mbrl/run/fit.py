"""The stage that fits a dynamics ensemble to a log; one fit serves every run that asks for the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import DynamicsFacts, FittedDynamics, tensor_shapes
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.run.artifacts import load_artifact, save_artifact
from mbrl.run.config import ResolvedConfig, RunConfig
from mbrl.run.files import is_folder, write_json
from mbrl.run.inputs import manifest_facts
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey, find_run
from mbrl.uncertainty.held_out import held_out_measures

DYNAMICS_FILE: Final = "dynamics.safetensors"
_DYNAMICS_VERSION: Final = 1


def dynamics_key(config: RunConfig, dataset: Dataset) -> StageKey:
    """Identity of the dynamics fit that `config` asks for; other sections of the config do not enter."""
    identity = {"dynamics": config.dynamics.model_dump(mode="json"), "dataset": dataset.content_hash}
    return StageKey("fit_dynamics", dataset.info.name, "ensemble", config.seed, identity)


def fit_dynamics_stage(
    resolved: ResolvedConfig, dataset: Dataset, workspace: Workspace
) -> tuple[FittedDynamics, RunFolder]:
    """Fits the ensemble, or loads the one that was fitted before with the same config, data and seed."""
    config = resolved.run
    key = dynamics_key(config, dataset)

    def work(work: StageWork) -> Mapping[str, Any]:
        fitted = _fit(config, dataset, work)
        header, tensors = fitted.to_tensors()
        save_artifact(work.path / DYNAMICS_FILE, tensors, {"dynamics": header}, version=_DYNAMICS_VERSION)
        report = fitted.report.model_dump(mode="json")
        write_json(work.path / "report.json", report)
        return {"dataset": dataset.info.name, "seed": config.seed, "report": report}

    run = perform(
        Stage(
            key=key,
            config=resolved.to_yaml(),
            facts=manifest_facts(config, dataset),
            work=work,
            results=(DYNAMICS_FILE, "report.json"),
        ),
        workspace,
    )
    return load_dynamics(run), run


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
    artifact.check_positive(name for name in shapes if name.endswith((".std", ".temperature")))
    try:
        return FittedDynamics.from_tensors(facts, artifact.tensors)
    except ValueError as error:
        raise artifact.error(str(error)) from error


def _fit(config: RunConfig, dataset: Dataset, work: StageWork) -> FittedDynamics:
    checkpoints, progress = work.checkpoints(keep=1), work.progress
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
        checkpoints.save(epoch, fit.state_dict())
        work.note_seconds()

    try:
        return fit_dynamics(
            dataset,
            config.dynamics,
            RngStreams(config.seed),
            measures=held_out_measures,
            restore=restore,
            on_epoch=on_epoch,
        )
    finally:
        progress.finish()
