"""`mbrl plan`."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Runs, TaskName, Threads, guarded, listener
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
        store=runs,
        progress=progress,
        overrides=settings,
    )
    emit(result, is_json=json, path=result.path)
