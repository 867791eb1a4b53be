"""`mbrl fit`, `train`, `evaluate`, `select`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbrl.cli.options import (
    AlgorithmName,
    ConfigFile,
    DatasetNames,
    DebugFlag,
    Device,
    DynamicsName,
    JsonFlag,
    Overrides,
    Runs,
    Seed,
    TaskName,
    Threads,
    WarmStart,
    Weights,
    guarded,
    listener,
    parse_weights,
)
from mbrl.cli.output import emit

if TYPE_CHECKING:
    from mbrl.api.policy import Policy
    from mbrl.run.policies import Which


@guarded
def fit(
    datasets: DatasetNames = None,
    *,
    config: ConfigFile = None,
    dynamics: DynamicsName = None,
    judges: Annotated[
        int, typer.Option(min=0, max=20, help="Further fits that never train a policy, and judge them.")
    ] = 0,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Fit the dynamics ensemble and report how far it can be trusted."""
    del debug
    from mbrl.api.model import fit as fit_dynamics

    model = fit_dynamics(
        datasets or None,
        dynamics,
        judges=judges,
        config=config,
        seed=seed,
        threads=threads,
        device=device,
        store=runs,
        progress=listener(is_json=json),
        overrides=overrides or [],
    )
    emit(model, is_json=json, path=model.path)


@guarded
def train(
    datasets: DatasetNames = None,
    *,
    weights: Weights = None,
    algorithm: AlgorithmName = None,
    config: ConfigFile = None,
    dynamics: DynamicsName = None,
    expert: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Log of an expert, for those that imitate (airl, smodice)."),
    ] = None,
    warm_start: WarmStart = None,
    task: TaskName = None,
    online: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Train in the simulator of TASK; makes behaviour policies."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="judge|last|fqe",
            help="Which policy along the training is the result [judge with a model, else last].",
        ),
    ] = None,
    updates: Annotated[int | None, typer.Option(min=1, help="Gradient steps [the algorithm's].")] = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train a policy; continues where an interrupted run of the same config stopped."""
    del debug
    from mbrl.api.training import train as train_policy

    options = {
        ("select", "rule"): select,
        ("warm_start",): None if warm_start is None else str(warm_start),
        ("algorithm", "updates"): updates,
    }
    named = [(path, value) for path, value in options.items() if value is not None]
    run = train_policy(
        datasets or None,
        algorithm,
        weights=parse_weights(weights),
        dynamics=dynamics,
        expert=expert,
        config=config,
        task=task,
        online=online,
        seed=seed,
        threads=threads,
        device=device,
        store=runs,
        progress=listener(is_json=json),
        overrides=[*named, *(overrides or [])],
    )
    emit(run, is_json=json, path=run.path)


@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training, or a policy file.")],
    *,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Full episodes in the simulator [the run's config, else 10].")
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="selected|last", help="Of a training: its result, or its last policy.")
    ] = "selected",
    task: TaskName = None,
    video: Annotated[Path | None, typer.Option(help="Film the first episode into this .mp4 or .gif.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of starts and noise; best the same for all policies [0].")
    ] = None,
    threads: Threads = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Evaluate the policy of a training in its simulator."""
    del debug
    if video is not None:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    from mbrl.api.evaluation import evaluate as evaluate_policy

    result = evaluate_policy(
        read_policy(run, policy),
        task=task,
        episodes=episodes,
        seed=seed,
        video=video,
        threads=threads or 1,
        store=runs,
        progress=listener(is_json=json),
    )
    emit(result, is_json=json, path=video or result.path)


@guarded
def select(
    trainings: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Trainings on one log.")],
    *,
    dataset: Annotated[
        str | None, typer.Option(help="Their log, where it has moved [the one that the first names].")
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="selected|last", help="Which policy of each training is judged.")
    ] = "selected",
    overrides: Overrides = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Root of all run folders [that of the first training].")
    ] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Take the best of several trainings by their log alone: the best lower bound of models that judge."""
    del debug
    from mbrl.api.selecting import select as select_runs

    result = select_runs(
        trainings,
        dataset,
        which=_which(policy),
        store=runs,
        progress=listener(is_json=json),
        overrides=overrides or [],
    )
    emit(result, is_json=json)


def _which(name: str) -> "Which":
    if name == "selected":
        return "selected"
    if name == "last":
        return "last"
    from mbrl.core.errors import ConfigError

    raise ConfigError(f"There is no policy {name!r} of a training. Legal: selected, last.")


def read_policy(run: Path, name: str) -> "Policy":
    """The policy of a training, or of a file; `name` is selected or last."""
    from mbrl.api.policy import Policy

    return Policy.load(run, _which(name))
