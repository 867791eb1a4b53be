"""`mbrl plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbrl.cli.options import (
    DebugFlag,
    JsonFlag,
    Overrides,
    Runs,
    TaskName,
    Threads,
    guarded,
    make_workspace,
)
from mbrl.cli.output import emit, jsonable

if TYPE_CHECKING:
    from mbrl.run.plan.config import PlanConfig


@guarded
def plan(
    run: Annotated[Path, typer.Argument(help="Folder of a training on logs.")],
    *,
    planner: Annotated[str, typer.Option(help="Name in configs/planners or a .yaml file.")],
    budget_ms: Annotated[
        float | None, typer.Option("--budget-ms", min=0.001, help="Milliseconds of a plan.")
    ] = None,
    sims: Annotated[
        int | None,
        typer.Option(
            min=1, help="Simulations of a search, or plans that are scored, for each state [the planner's]."
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Full episodes in the simulator [the run's config, else 10].")
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="STATE", help="Draw one plan: a logged step's number, or a state's coordinates."
        ),
    ] = None,
    task: TaskName = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of starts and noise; best the same for all policies [0].")
    ] = None,
    threads: Threads = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Plan in a trained run's model at every step, beside its policy alone, or explain one plan."""
    del debug
    from mbrl.envs.specs import load_task
    from mbrl.report.plan.tables import plan_table
    from mbrl.run.plan.config import load_plan_config
    from mbrl.run.plan.planning import plan_stage
    from mbrl.run.stages import set_up_torch

    set_up_torch(threads or 1)
    arguments: dict[str, Any] = {"milliseconds": budget_ms, "sims": sims}
    config = load_plan_config(planner, arguments=arguments, overrides=overrides or [])
    workspace = make_workspace(runs, is_json=json)
    if explain is not None:
        _explain(run, explain, config, workspace, is_json=json)
        return
    folder = plan_stage(
        run,
        config,
        workspace,
        task=None if task is None else load_task(task),
        episodes=episodes,
        seed=seed,
    )
    summary = folder.summary()
    emit(summary, [plan_table(summary)], is_json=json, path=folder.path)


def _explain(run: Path, state: str, config: "PlanConfig", workspace: Any, *, is_json: bool) -> None:
    """Writes one plan as JSON and as a figure, its tree likewise and for Graphviz; prints what it weighed."""
    from mbrl.planning.explain.search_tree import to_dot
    from mbrl.report.kit.style import save_png
    from mbrl.report.plan.plots import plan_figure, tree_figure
    from mbrl.report.plan.tables import candidate_table, trace_table
    from mbrl.run.config import stable_hash
    from mbrl.run.files import write_json, write_text
    from mbrl.run.plan.explanation import explain_stage

    values = jsonable(explain_stage(run, state, config, workspace))
    name = f"{config.planner.name}-{stable_hash({'config': config.tree(), 'state': state})[:8]}"
    folder = run / "explanations"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", values)
    save_png(plan_figure(values), folder / f"{name}.png")
    if values["tree"] is not None:
        save_png(tree_figure(values["tree"]), folder / f"{name}-tree.png")
        write_text(folder / f"{name}.dot", to_dot(values["tree"]))
    tables = [candidate_table(values), trace_table(values)]
    emit(values, tables, is_json=is_json, path=folder / f"{name}.png")
