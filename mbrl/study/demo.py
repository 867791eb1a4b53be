"""The main job end to end: inspect, fit, train two methods, evaluate, one page."""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import MbrlError
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.report import inspect_dataset
from mbrl.evaluation.statistics import Interval, bootstrap_interval
from mbrl.report.kit.wording import read_interval
from mbrl.report.run.comparison import Comparison, Method
from mbrl.report.run.pages import DemoResults, demo_page
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.documents import Override
from mbrl.run.evaluate import evaluate_stage
from mbrl.run.files import write_json, write_text
from mbrl.run.fit import fit_dynamics_stage
from mbrl.run.inputs import load_run_dataset
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunFolder, RunStore, code_facts
from mbrl.run.train import train_policy_stage

METHODS: Final = {"mopo": "demo-mopo", "bc": "demo-bc"}
"""Experiment of each method; the first is the one of interest and needs the ensemble."""

PAGE: Final = "demo.html"


@dataclasses.dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo found.

    Attributes:
        values: plain values: mean return of each method, seconds of each stage, and more.
        comparison: of the methods.
        page: the HTML page.
    """

    values: dict[str, Any]
    comparison: Comparison
    page: Path


def run_demo(
    workspace: Workspace,
    *,
    out: Path,
    arguments: Mapping[str, Any],
    overrides: Sequence[Override] = (),
) -> DemoOutcome:
    """Runs every stage that is not done yet.

    The baseline trains in a process of its own while the ensemble is fitted. That changes no figure: what it
    trains is found in the run store afterwards, and trained here if it is not there.

    Args:
        workspace: where runs are kept.
        out: folder of the page and the figures.
        arguments: seed, threads and dataset, if they differ from the experiments'.
        overrides: dotted overrides for all methods.
    """
    begin = time.perf_counter()
    configs = {
        name: resolve(file, arguments=arguments, overrides=overrides) for name, file in METHODS.items()
    }
    main = configs["mopo"]
    set_up_torch(main.run.threads)
    dataset = load_run_dataset(main.run, workspace)
    report = inspect_dataset(dataset)
    inspected = time.perf_counter() - begin
    baseline = _start(configs["bc"], workspace)
    try:
        fitted, fit_run = fit_dynamics_stage(main, dataset, workspace)
        runs = {"mopo": train_policy_stage(main, workspace)}
    except BaseException:
        baseline.terminate()  # its checkpoints stay
        raise
    finally:
        baseline.join()
    runs["bc"] = train_policy_stage(configs["bc"], workspace)
    evaluations = {name: evaluate_stage(open_policy(run.path), workspace) for name, run in runs.items()}
    comparison = compare(dataset, evaluations, runs)
    seconds = {
        "inspect": inspected,
        "fit": _seconds(fit_run),
        **{f"train {name}": _seconds(run) for name, run in runs.items()},
        **{f"evaluate {name}": _seconds(run) for name, run in evaluations.items()},
    }
    results = DemoResults(
        data=report,
        dynamics=fitted.report,
        comparison=comparison,
        runs={name: _rows(run) for name, run in runs.items()},
        seconds=seconds,
        value_bounds=_bounds(runs["mopo"]),
        shift={name: run.summary().get("shift") for name, run in runs.items()},
    )
    out.mkdir(parents=True, exist_ok=True)
    page = out / PAGE
    write_text(page, demo_page(results, provenance=_provenance(dataset, runs)))
    values = _values(dataset, comparison, seconds, runs, total=time.perf_counter() - begin)
    write_json(out / "demo.json", values)
    return DemoOutcome(values, comparison, page)


def compare(
    dataset: Dataset, evaluations: Mapping[str, RunFolder], runs: Mapping[str, RunFolder]
) -> Comparison:
    """Mean returns of the methods beside those of the logged episodes."""
    methods: list[Method] = []
    for name, evaluation in evaluations.items():
        summary = evaluation.summary()
        interval = read_interval(summary["return_interval"])
        methods.append(Method(name, (interval.estimate,), interval, _seconds(runs[name])))
    returns = np.sort(dataset.episode_returns)
    tenth = max(1, round(0.1 * len(returns)))
    return Comparison(
        dataset=dataset.info.name,
        unit="episode return",
        methods=tuple(methods),
        behaviour=_behaviour(dataset),
        best_tenth=float(returns[-tenth:].mean()),
    )


def _behaviour(dataset: Dataset) -> Interval:
    return bootstrap_interval(dataset.episode_returns, generator=np.random.default_rng(0))


def _start(config: ResolvedConfig, workspace: Workspace) -> Any:
    """Trains in a fresh process; threads would share one interpreter and slow the fit."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_train_quietly, args=(config, workspace.store.root, workspace.minari_root), daemon=True
    )
    process.start()
    return process


def _train_quietly(config: ResolvedConfig, root: Path, minari_root: Path | None) -> None:
    with contextlib.suppress(KeyboardInterrupt, MbrlError):  # the parent meets the same error, and tells it
        set_up_torch(config.run.threads)
        train_policy_stage(config, Workspace(RunStore(root), minari_root=minari_root))


def _seconds(run: RunFolder) -> float:
    return float(run.manifest()["wall_seconds"])


def _rows(run: RunFolder) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.path) if "event" not in row]


def _bounds(run: RunFolder) -> tuple[float, float] | None:
    bounds = run.summary()["value_bounds"]
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def _provenance(dataset: Dataset, runs: Mapping[str, RunFolder]) -> dict[str, str]:
    facts = code_facts()
    return {
        "command": "mbrl demo",
        "dataset hash": dataset.content_hash,
        **{f"run {name}": str(run.manifest()["hash"]) for name, run in runs.items()},
        "version": f"{facts['version']} {facts['commit'] or ''}".strip(),
        "torch": str(facts["packages"]["torch"]),
    }


def _values(
    dataset: Dataset,
    comparison: Comparison,
    seconds: Mapping[str, float],
    runs: Mapping[str, RunFolder],
    *,
    total: float,
) -> dict[str, Any]:
    return {
        **{method.name: method.interval.estimate for method in comparison.methods},
        "behaviour": float(dataset.episode_returns.mean()),
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "wall_seconds": round(total, 2),
        "comparison": comparison.to_json(),
        "runs": {name: str(run.path) for name, run in runs.items()},
    }
