"""`mbrl export`, `deploy-check`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, guarded, listener
from mbrl.cli.output import emit
from mbrl.cli.runs import read_policy


@guarded
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training, or a policy file.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle, or file, to write.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="bundle|onnx|policy",
            help="Folder for a robot, the graph alone, or safetensors for torch [by suffix, else bundle].",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="selected|last", help="Of a training: its result, or its last policy.")
    ] = "selected",
    dataset: Annotated[
        str | None, typer.Option(help="The log that it learned from, where it has moved [the run's].")
    ] = None,
    fallback: Annotated[
        Path | None, typer.Option(help="Training or policy file that acts when the guard raises an alarm.")
    ] = None,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Draw actions in place of the evaluation action.")
    ] = False,
    verdict: Annotated[
        Path | None, typer.Option(help="Report of mbrl ope [looked up beside the run].")
    ] = None,
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write a policy for a robot: graphs without torch, guard, contract, runtime; parity is checked."""
    del debug
    from mbrl.api.deploying import export as export_policy

    result = export_policy(
        read_policy(run, policy),
        out,
        format=kind,
        log=dataset,
        fallback=fallback,
        verdict=verdict,
        overrides=[*(overrides or []), *(["stochastic=true"] if stochastic else [])],
    )
    emit(result, is_json=json, path=result.path)


@guarded
def deploy_check(
    bundle: Annotated[Path, typer.Argument(help="Folder that mbrl export wrote.")],
    dataset: Annotated[str, typer.Argument(help="Log with the same channels.")],
    *,
    rows: Annotated[
        int, typer.Option(min=1, help="About how many steps are replayed; whole episodes, evenly spread.")
    ] = 20_000,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Replay a log through the runtime of a bundle: alarms, latency, saturation, interventions."""
    del debug
    from mbrl.api.deploying import deploy_check as check

    result = check(bundle, dataset, rows=rows, progress=listener(is_json=json))
    emit(result, is_json=json)
