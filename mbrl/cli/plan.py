"""`mbrl plan`."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mbrl.cli.options import (
    DebugFlag,
    Device,
    JsonFlag,
    Overrides,
    Runs,
    TaskName,
    Threads,
    guarded,
    listener,
)
from mbrl.cli.output import emit

TrainedRun: TypeAlias = Annotated[Path, typer.Argument(help="Folder of a training on logs.")]
PlannerName: TypeAlias = Annotated[str, typer.Option(help="Name in configs/planners or a .yaml file.")]
BudgetMs: TypeAlias = Annotated[
    float | None, typer.Option("--budget-ms", min=0.001, help="Milliseconds of a plan.")
]
Sims: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="Simulations of a search, or plans that are scored, for each state [the planner's]."
    ),
]
Episodes: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Full episodes in the simulator [the run's config, else 10].")
]
Explain: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="STATE", help="Draw one plan: a logged step's number, or a state's coordinates."),
]
StartSeed: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Of starts and noise; best the same for all policies [0].")
]


@guarded
def plan(
    run: TrainedRun,
    *,
    planner: PlannerName,
    budget_ms: BudgetMs = None,
    sims: Sims = None,
    episodes: Episodes = None,
    explain: Explain = None,
    task: TaskName = None,
    seed: StartSeed = None,
    threads: Threads = None,
    device: Device = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Plan in a trained run's model at every step, beside its policy alone, or explain one plan."""
    del debug
    from mbrl.api.planning import explain_plan
    from mbrl.api.planning import plan as evaluate_planner

    progress, settings = listener(is_json=json), overrides or []
    if explain is not None:
        explanation = explain_plan(
            run,
            planner,
            explain,
            budget_ms=budget_ms,
            sims=sims,
            threads=threads or 1,
            device=device or "cpu",
            store=runs,
            progress=progress,
            overrides=settings,
        )
        emit(explanation, is_json=json, path=explanation.path)
        return
    result = evaluate_planner(
        run,
        planner,
        budget_ms=budget_ms,
        sims=sims,
        episodes=episodes,
        task=task,
        seed=seed,
        threads=threads or 1,
        device=device or "cpu",
        store=runs,
        progress=progress,
        overrides=settings,
    )
    emit(result, is_json=json, path=result.path)


@guarded
def plan_audit(
    run: TrainedRun,
    *,
    planner: Annotated[
        str, typer.Option(help="Whose critics are taken: name in configs/planners or a .yaml file.")
    ] = "rollout",
    logged: Annotated[
        bool, typer.Option("--logged", help="Logged returns, even where there is a simulator.")
    ] = False,
    states: Annotated[int, typer.Option(min=5, help="Where gains are estimated.")] = 40,
    true_steps: Annotated[int, typer.Option("--true-steps", min=1, help="In the simulator.")] = 250,
    task: TaskName = None,
    seed: Annotated[int, typer.Option(min=0, help="Of states and candidates.")] = 0,
    threads: Threads = None,
    device: Device = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Hold estimated gains of actions against true ones: what a planner on this policy may believe."""
    del debug
    from mbrl.api.planning import audit_plans

    result = audit_plans(
        run,
        planner,
        logged=logged,
        task=task,
        threads=threads or 1,
        device=device or "cpu",
        store=runs,
        progress=listener(is_json=json),
        overrides=overrides or [],
        states=states,
        true_steps=true_steps,
        seed=seed,
    )
    emit(result, is_json=json, path=result.path)
