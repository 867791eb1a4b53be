"""`mbrl report` and `mbrl demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Seed, Threads, guarded, make_workspace
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
    from mbrl.run.pages import write_run_page

    page = write_run_page(run, out)
    emit({"run": str(run)}, [], is_json=json, path=page)


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
    from mbrl.report.run.comparison import comparison_table, conclude
    from mbrl.study.demo import run_demo

    arguments: dict[str, Any] = {"dataset": dataset, "seed": seed, "threads": threads}
    outcome = run_demo(
        make_workspace(out / "runs", is_json=json), out=out, arguments=arguments, overrides=overrides or []
    )
    emit(
        outcome.values,
        [comparison_table(outcome.comparison)],
        messages=[message.text for message in conclude(outcome.comparison)],
        is_json=json,
        path=outcome.page,
    )
