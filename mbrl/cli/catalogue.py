"""`mbrl list` and `mbrl status`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.api.catalogue import Kind
from mbrl.cli.options import DebugFlag, JsonFlag, Runs, guarded
from mbrl.cli.output import emit


@guarded
def list_entries(
    kind: Annotated[Kind, typer.Argument(help="Of what kind.")],
    *,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List what can be named in configs, one line each."""
    del debug
    from mbrl.api.catalogue import catalogue

    emit(catalogue(kind), is_json=json)


@guarded
def status(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of a comparison, or of runs [--runs].")
    ] = None,
    *,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show every run: stage, seed, how far it is, wall time; of a comparison, what is done and missing."""
    del debug
    from mbrl.api.catalogue import status as show_status

    emit(show_status(folder or runs), is_json=json)
