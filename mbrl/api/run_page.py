"""The HTML page of one run, from what its folder holds."""

from pathlib import Path
from typing import Any

from mbrl.core.errors import ConfigError
from mbrl.dynamics.report import DynamicsReport
from mbrl.report.run.pages import dynamics_page, plan_page, run_page
from mbrl.run.files import read_json, write_text
from mbrl.run.metrics import read_metrics
from mbrl.run.store import RunFolder, RunStore


def write_run_page(path: Path, out: Path | None = None) -> Path:
    """Writes the page of a fit, of a training with the newest evaluation of its policy, or of a planning.

    Args:
        path: folder of the run.
        out: the page; `report.html` in the folder when None.

    Raises:
        ConfigError: there is nothing to report on.
    """
    run = RunFolder(path)
    if not run.is_done:
        raise ConfigError(f"{path} holds no finished run. Remedy: see mbrl status.")
    manifest = run.manifest()
    provenance = {
        "command": f"mbrl report {path}",
        "run": str(manifest["hash"]),
        "dataset hash": str(manifest.get("dataset_hash")),
        "version": f"{manifest['version']} {manifest['commit'] or ''}".strip(),
    }
    if manifest["stage"] == "fit_dynamics":
        report = DynamicsReport.model_validate(read_json(path / "report.json"))
        page = dynamics_page(str(manifest["dataset"]), report, provenance=provenance)
    elif manifest["stage"] == "train_policy":
        page = _training_page(run, manifest, provenance)
    elif manifest["stage"] == "plan":
        page = plan_page(run.summary(), provenance=provenance)
    else:
        raise ConfigError(
            f"{path} is a run of stage {manifest['stage']}; give a fit, a training or a planning."
        )
    target = out or path / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    return target


def _training_page(run: RunFolder, manifest: dict[str, Any], provenance: dict[str, str]) -> str:
    summary = run.summary()
    bounds = summary["value_bounds"]
    return run_page(
        f"{manifest['label']} on {manifest['dataset']}, seed {manifest['seed']}",
        [row for row in read_metrics(run.path) if "event" not in row],
        evaluation=_evaluation_of(run, str(manifest["hash"])),
        value_bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        shift=summary.get("shift"),
        provenance=provenance,
    )


def _evaluation_of(run: RunFolder, digest: str) -> dict[str, Any] | None:
    """Summary of the newest evaluation of the run's policy in the same store."""
    found = [
        other
        for other in RunStore(run.path.parents[1]).runs()
        if other.is_done
        and other.manifest()["stage"] == "evaluate"
        and other.manifest()["policy_facts"].get("run") == digest
    ]
    newest = max(found, key=lambda other: (other.path / "DONE").stat().st_mtime, default=None)
    return None if newest is None else newest.summary()
