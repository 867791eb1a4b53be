"""`mbrl fit`, `train`, `evaluate`, `export`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    make_workspace,
)
from mbrl.cli.output import emit

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


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
    from mbrl.report.run.dynamics_tables import dynamics_tables, trust_message, warning_messages
    from mbrl.run.config import resolve
    from mbrl.run.fit import fit_dynamics_stage
    from mbrl.run.inputs import load_run_dataset
    from mbrl.run.stage import set_up_torch

    arguments: dict[str, Any] = {
        "dataset": dataset, "dynamics": dynamics, "seed": seed, "threads": threads, "device": device,
    }  # fmt: skip
    if config is None:
        arguments["algorithm"] = "bc"  # a fit reads no algorithm, but a run's config has one
    resolved = resolve(config, arguments=arguments, overrides=overrides or [])
    set_up_torch(resolved.run.threads)
    workspace = make_workspace(runs, is_json=json)
    data = load_run_dataset(resolved.run, workspace)
    fitted, run = fit_dynamics_stage(resolved, data, workspace)
    messages = [trust_message(fitted.report), *warning_messages(fitted.report)]
    emit(
        run.summary(),
        dynamics_tables(fitted.report, names=data.info.obs_names),
        messages=[message.text for message in messages],
        is_json=json,
        path=run.path,
    )


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
    from mbrl.algorithms.base import RECIPES
    from mbrl.core.errors import ConfigError
    from mbrl.run.config import resolve
    from mbrl.run.stage import set_up_torch
    from mbrl.run.train import train_policy_stage

    if online is not None and (dataset is not None or task is not None):
        raise ConfigError("--online TASK trains in the simulator: leave DATASET and --task away.")
    arguments: dict[str, Any] = {
        "dataset": dataset, "algorithm": algorithm, "dynamics": dynamics, "task": online or task,
        "seed": seed, "threads": threads, "device": device,
    }  # fmt: skip
    resolved = resolve(config, arguments=arguments, overrides=overrides or [])
    if RECIPES.get(resolved.run.recipe).is_online != (online is not None):
        problem = "learns from logs, not online" if online else "meets a simulator: say --online TASK"
        raise ConfigError(f"The recipe {resolved.run.recipe!r} {problem}.")
    set_up_torch(resolved.run.threads)
    run = train_policy_stage(resolved, make_workspace(runs, is_json=json))
    summary = run.summary()
    emit(summary, [training_table(summary)], messages=shift_alarms(summary), is_json=json, path=run.path)


def shift_alarms(summary: dict[str, Any]) -> list[str]:
    """What the diagnostics of a training's last policy warn of; nothing where they were off."""
    report: dict[str, Any] = summary.get("shift") or {}
    return list(report.get("alarms", []))


def training_table(summary: dict[str, Any]) -> "Table":
    """What was trained, and the last row of its metrics."""
    from mbrl.report.kit.table import Table

    keys = ("algorithm", "recipe", "learner", "online", "dataset", "task", "seed", "updates", "seconds")
    rows: list[tuple[str, Any]] = [(key, summary[key]) for key in keys]
    rows += [(key, value) for key, value in summary["last_metrics"].items() if key != "step"]
    rows.append(("divergence alarms", len(summary["divergence"])))
    rows.append(("shift alarms", len(shift_alarms(summary))))
    title = f"{summary['algorithm']} on {summary['dataset'] or summary['task']}"
    return Table(title, ("", "value"), rows)


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
    from mbrl.envs.specs import load_task
    from mbrl.report.run.evaluation_tables import evaluation_table
    from mbrl.run.evaluate import evaluate_stage
    from mbrl.run.stage import set_up_torch

    set_up_torch(threads or 1)
    result = evaluate_stage(
        run,
        make_workspace(runs, is_json=json),
        task=None if task is None else load_task(task),
        episodes=episodes,
        seed=seed,
        video=video,
    )
    summary = result.summary()
    emit(
        summary,
        [evaluation_table(summary, name=summary["algorithm"])],
        is_json=json,
        path=video or result.path,
    )


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
    from mbrl.core.errors import ConfigError
    from mbrl.report.kit.table import Table
    from mbrl.run.policies import open_policy, save_policy

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out must end in .safetensors, not {out.name!r}.")
    stored = open_policy(run)
    save_policy(out, stored.policy, stored.facts)
    facts = dict(stored.facts)
    table = Table("policy", ("fact", "value"), list(facts.items()))
    emit({"facts": facts}, [table], is_json=json, path=out)
