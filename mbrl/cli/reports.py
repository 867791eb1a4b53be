"""`mbrl report` and `mbrl demo`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Seed, Threads, guarded, listener
from mbrl.cli.output import emit


@guarded
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a fit, a training or a planning.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The page [RUN/report.html].")] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write one HTML page about a run, with figures."""
    del debug
    from mbrl.api.run_page import report as write_report

    page = write_report(run, out)
    emit(page.result, is_json=json, path=page.path)


@guarded
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of page, figures and runs.")] = Path("demo"),
    dataset: Annotated[str | None, typer.Option(help="Another dataset of the same kind.")] = None,
    seed: Seed = None,
    threads: Threads = None,
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """From logged episodes to compared policies in five minutes; run again to continue."""
    del debug
    from mbrl.api.run_page import demo as run_demo

    page = run_demo(
        out,
        dataset=dataset,
        seed=seed,
        threads=threads,
        progress=listener(is_json=json),
        overrides=overrides or [],
    )
    emit(page.result, is_json=json, path=page.path)
