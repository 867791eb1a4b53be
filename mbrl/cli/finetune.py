"""`mbrl finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, guarded, listener
from mbrl.cli.output import emit


@guarded
def finetune(
    run: Annotated[Path, typer.Argument(help="A training on a log, or the last round of an earlier call.")],
    *,
    simulator: Annotated[
        bool,
        typer.Option(
            "--simulator", help="Run trials in the simulator of the task: asked for, never by itself."
        ),
    ] = False,
    trials: Annotated[
        list[str] | None,
        typer.Option(metavar="LOG", help="Or what was logged on the machine, a batch each; repeatable."),
    ] = None,
    schema: Annotated[
        str | None, typer.Option(help="Import schema of raw trials, such as the one of a bundle.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Episodes that may be run in all [as stated before].")
    ] = None,
    batches: Annotated[int, typer.Option(min=1, help="Parts of the budget in a simulator.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Of the learner after each batch.")] = 5000,
    old_share: Annotated[float, typer.Option(help="Share of the old log in a batch of an update.")] = 0.5,
    exploration: Annotated[
        float | None,
        typer.Option(help="Noise on commands in the simulator, halves of their range [the policy's own]."),
    ] = None,
    plan: Annotated[bool, typer.Option(help="Say what the next trials should show.")] = True,
    dynamics: Annotated[
        str | None, typer.Option(help="Settings of the model behind that plan [the training's].")
    ] = None,
    overrides: Overrides = None,
    runs: Annotated[Path | None, typer.Option(help="Root of the run folders [that of the training].")] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Go on with a training by batches of trials of its policies, half old data and half new.

    Nothing is run unless --simulator says so; with --trials the machine is yours.
    """
    del debug
    from mbrl.api.finetuning import finetune as go_on

    settings: dict[str, Any] = {"updates": updates, "old_share": old_share, "exploration": exploration}
    found = go_on(
        run,
        simulator=simulator,
        trials=trials or None,
        schema=schema,
        budget=budget,
        batches=batches,
        plan=plan,
        dynamics=dynamics,
        store=runs,
        progress=listener(is_json=json),
        overrides=overrides or [],
        **settings,
    )
    emit(found, is_json=json, path=found.run.path)
