"""`mbrl fit`, `train`, `evaluate`, `export`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import (
    AlgorithmName,
    ConfigFile,
    DatasetName,
    DebugFlag,
    Device,
    DynamicsName,
    JsonFlag,
    Overrides,
    Runs,
    Seed,
    TaskName,
    Threads,
    guarded,
    listener,
)
from mbrl.cli.output import emit


@guarded
def fit(
    dataset: DatasetName = None,
    *,
    config: ConfigFile = None,
    dynamics: DynamicsName = None,
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
        dataset,
        dynamics,
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
    dataset: DatasetName = None,
    *,
    algorithm: AlgorithmName = None,
    config: ConfigFile = None,
    dynamics: DynamicsName = None,
    task: TaskName = None,
    online: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Train in the simulator of TASK; makes behaviour policies."),
    ] = None,
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

    run = train_policy(
        dataset,
        algorithm,
        dynamics=dynamics,
        config=config,
        task=task,
        online=online,
        seed=seed,
        threads=threads,
        device=device,
        store=runs,
        progress=listener(is_json=json),
        overrides=overrides or [],
    )
    emit(run, is_json=json, path=run.path)


@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training, or a policy file.")],
    *,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Full episodes in the simulator [the run's config, else 10].")
    ] = None,
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
    """Evaluate the last policy of a training in its simulator."""
    del debug
    if video is not None:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    from mbrl.api.evaluation import evaluate as evaluate_policy

    result = evaluate_policy(
        run,
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
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write the last policy of a training as one file that stands alone."""
    del debug
    from mbrl.api.policy import Policy

    emit(Policy.load(run).export(out), is_json=json, path=out)
