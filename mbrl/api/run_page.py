"""HTML pages: of one run, from what its folder holds, and of the demo."""

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from mbrl.api.progress import Listener
from mbrl.api.result import PlainResult
from mbrl.api.session import open_workspace, torch_settings
from mbrl.core.errors import ConfigError, FileError, MbrlError
from mbrl.dynamics.report import DynamicsReport
from mbrl.report.run.pages import dynamics_page, plan_page, run_page
from mbrl.report.run.selection_sections import selection_section
from mbrl.run.documents import Override
from mbrl.run.files import MAKE_AGAIN, make_folder, read_record, write_text
from mbrl.run.metrics import read_metrics
from mbrl.run.records import EvaluationSummary, PlanSummary, TrainingSummary
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
        "version": f"{manifest['version']} {manifest.get('commit') or ''}".strip(),
    }
    with _drawing(path):
        page = _page(run, manifest, provenance)
    target = out or path / "report.html"
    make_folder(target.parent)
    write_text(target, page)
    return target


@contextlib.contextmanager
def _drawing(path: Path) -> Generator[None]:
    """Figures of a run's files: each is of its form, but curves of unequal length cannot be drawn.

    Raises:
        FileError: whatever was raised that names no file.
    """
    try:
        yield
    except MbrlError:
        raise
    except Exception as error:
        problem = f"no page can be made of what it holds ({type(error).__name__}: {str(error)[:200]})"
        raise FileError(path, problem, remedy=f"{MAKE_AGAIN} If that does not help, report it.") from error


def _page(run: RunFolder, manifest: dict[str, Any], provenance: dict[str, str]) -> str:
    stage = manifest["stage"]
    if stage == "fit_dynamics":
        report = read_record(run.path / "report.json", DynamicsReport)
        return dynamics_page(str(manifest["dataset"]), report, provenance=provenance)
    if stage == "train_policy":
        return _training_page(run, manifest, provenance)
    if stage == "plan":
        return plan_page(run.summary(PlanSummary), provenance=provenance)
    raise ConfigError(f"{run.path} is a run of stage {stage}. Remedy: name a fit, a training or a planning.")


def _training_page(run: RunFolder, manifest: dict[str, Any], provenance: dict[str, str]) -> str:
    summary = run.summary(TrainingSummary)
    bounds = summary["value_bounds"]
    return run_page(
        f"{manifest['label']} on {manifest['dataset']}, seed {manifest['seed']}",
        [row for row in read_metrics(run.path) if "event" not in row],
        evaluation=_evaluation_of(run, str(manifest["hash"]), _updates(summary)),
        value_bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        shift=summary.get("shift"),
        selection=selection_section(summary.get("selection"), summary.get("exploitation")),
        provenance=provenance,
    )


def _updates(summary: dict[str, Any]) -> int:
    """Of the policy that is the result."""
    found = summary.get("selection")
    chosen = summary if found is None else found["contestants"][found["chosen"]]["changes"]
    return int(chosen["updates"])


def _evaluation_of(run: RunFolder, digest: str, updates: int) -> dict[str, Any] | None:
    """Summary of the newest evaluation of the run's policy in the same store."""
    found = [
        other
        for other, manifest in RunStore(run.path.resolve().parents[1]).manifests()
        if other.is_done
        and manifest["stage"] == "evaluate"
        and manifest.get("policy_facts", {}).get("run") == digest
        and manifest["policy_facts"].get("updates") == updates
    ]
    newest = max(found, key=lambda other: (other.path / "DONE").stat().st_mtime, default=None)
    return None if newest is None else newest.summary(EvaluationSummary)


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page that was written.

    Attributes:
        result: what it is about, shows itself.
        path: the HTML file.
    """

    result: PlainResult
    path: Path


def report(run: str | Path, out: str | Path | None = None) -> Page:
    """Writes one self-contained HTML page about a run, with figures.

    Args:
        run: folder of a fit, a training or a planning.
        out: the page; None for `report.html` in the folder.

    Raises:
        ConfigError: there is nothing to report on.
    """
    path = write_run_page(Path(run), None if out is None else Path(out))
    return Page(PlainResult({"run": str(run), "path": str(path)}), path)


def demo(
    out: str | Path = "demo",
    *,
    dataset: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
) -> Page:
    """From logged episodes to compared policies in some minutes; what is done is not done again.

    Args:
        out: folder of page, figures and runs.
        dataset: another one of the same kind.
        seed: of everything.
        threads: of torch.
        progress: see `mbrl.fit`.
        overrides: changes of the config of all methods.
    """
    from mbrl.report.run.comparison import comparison_table, conclude
    from mbrl.study.demo import run_demo

    target = Path(out)
    arguments: dict[str, Any] = {"dataset": dataset, "seed": seed, "threads": threads}
    with torch_settings(threads or 1):
        outcome = run_demo(
            open_workspace(target / "runs", progress), out=target, arguments=arguments, overrides=overrides
        )
    messages = [message.text for message in conclude(outcome.comparison)]
    values = {**outcome.values, "path": str(outcome.page)}
    return Page(PlainResult(values, [comparison_table(outcome.comparison)], messages), outcome.page)
