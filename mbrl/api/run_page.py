"""HTML pages: of one run, from what its folder holds, and of the demo."""

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.api.progress import Listener
from mbrl.api.result import PlainResult
from mbrl.api.session import open_workspace, torch_settings
from mbrl.core.errors import ConfigError, DataError, FileError, MbrlError
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.fit import split_for
from mbrl.dynamics.report import DynamicsReport
from mbrl.report.kit.html import Section
from mbrl.report.run.imagined_viewer import LONGEST, ImaginedView, imagined_section
from mbrl.report.run.pages import dynamics_page, plan_page, run_page
from mbrl.report.run.selection_sections import selection_section
from mbrl.run.documents import Override
from mbrl.run.files import MAKE_AGAIN, make_folder, read_record, write_text
from mbrl.run.metrics import read_metrics
from mbrl.run.records import EvaluationSummary, PlanSummary, TrainingSummary
from mbrl.run.store import RunFolder, RunStore

_EPISODES: Final = 12
_STARTS: Final = 4  # of an episode, evenly spread


def write_run_page(path: Path, out: Path | None = None, *, more: Sequence[Section] = ()) -> Path:
    """Writes the page of a fit, of a training with the newest evaluation of its policy, or of a planning.

    Args:
        path: folder of the run.
        out: the page; `report.html` in the folder when None.
        more: parts that stand first on the page of a fit.

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
        page = _page(run, manifest, provenance, more)
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


def _page(
    run: RunFolder, manifest: dict[str, Any], provenance: dict[str, str], more: Sequence[Section]
) -> str:
    stage = manifest["stage"]
    if stage == "fit_dynamics":
        report = read_record(run.path / "report.json", DynamicsReport)
        return dynamics_page(str(manifest["dataset"]), report, more=more, provenance=provenance)
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


def imagined_views(fitted: FittedDynamics, log: Dataset, *, seed: int) -> Section:
    """Forecasts from several starts of several episodes; of held-out ones, where `log` is that of the fit.

    Args:
        fitted: the model.
        log: whose episodes are shown.
        seed: of the fit.

    Raises:
        DataError: the log has other sizes than the model.
    """
    model, spec = fitted.model, log.spec
    if (spec.obs_dim, spec.act_dim) != (model.obs_dim, model.inputs.mean.shape[0] - model.obs_dim):
        raise DataError(
            f"observations of {spec.obs_dim} and actions of {spec.act_dim}, other than those of the model",
            field="log",
            remedy="Give the log that it was fitted to, or one of the same machine.",
        )
    train, shown = log, log
    if log.content_hash == fitted.dataset_hash:
        split = split_for(fitted.config, log, RngStreams(seed))
        train, shown = split.train, split.holdout
    linear = LinearModel.fit(train.transitions().successors_known())
    place = {id(episode): index for index, episode in enumerate(log.episodes)}
    chosen = sorted({int(k) for k in np.linspace(0, len(shown) - 1, _EPISODES)})
    views = [view for k in chosen for view in _views(fitted, linear, shown.episodes[k], place)]
    names = log.obs_names[: model.frame_dim]
    return imagined_section(views, names, time_step=log.info.time_step, trusted=fitted.trusted_horizon)


def _views(
    fitted: FittedDynamics, linear: LinearModel, episode: Episode, place: dict[int, int]
) -> list[ImaginedView]:
    known = len(episode) - int(not episode.is_final_observation_known)
    steps = min(LONGEST, known)
    if steps == 0:
        return []
    starts = np.unique(np.linspace(0, known - steps, _STARTS).astype(int))
    actions = np.stack([episode.actions[start : start + steps] for start in starts])
    forecasts = [
        fitted.rollout(episode.observations[start], plan) for start, plan in zip(starts, actions, strict=True)
    ]
    path: list[NDArray[np.float64]] = [episode.observations[starts].astype(np.float64)]
    for k in range(steps):
        path.append(np.clip(linear.predict(path[-1], actions[:, k]), -1e12, 1e12))
    line = np.stack(path, 1)
    return [
        ImaginedView(
            episode=place.get(id(episode.logged), 0),
            start=episode.first_step + int(start),
            logged=episode.observations[start : start + steps + 1],
            forecast=forecast,
            linear=line[row],
        )
        for row, (start, forecast) in enumerate(zip(starts, forecasts, strict=True))
    ]
