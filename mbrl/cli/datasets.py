"""`mbrl inspect`, `import`, `collect`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Seed, Threads, guarded, listener
from mbrl.cli.output import emit

Source = Annotated[str, typer.Argument(help="Path, minari:<id>, or name of a bundled dataset.")]
REFUSED = 1


@guarded
def inspect(
    path: Source,
    *,
    html: Annotated[Path | None, typer.Option(help="Also write one page of figures.")] = None,
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Examine a dataset; exit status 1 if training may not start."""
    del debug
    from mbrl.api.data import inspect as inspect_log

    found = inspect_log(path, overrides=overrides or [])
    if html is not None:
        found.to_html(html, command=f"mbrl inspect {path} --html {html}")
    emit(found, is_json=json, path=html)
    if not found.may_train:
        raise typer.Exit(REFUSED)


@guarded
def import_log(
    path: Annotated[str, typer.Argument(help="What to read.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="What to write; must not exist.")],
    layout: Annotated[
        str, typer.Option(help="How PATH is laid out: auto, quanser_qube, or a format of mbrl list formats.")
    ] = "auto",
    to: Annotated[str, typer.Option(help="Format to write.")] = "minari",
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Read a log in whatever layout and write it as a dataset."""
    del debug
    from mbrl.api.data import LogSummary, load, save

    log = load(path, layout=layout, overrides=overrides or [])
    written = save(log, out, to=to)
    emit(LogSummary(log, written), is_json=json, path=written)


@guarded
def collect(
    what: Annotated[str, typer.Argument(help="Recipe such as hopper/medium-replay, a .yaml, or a task.")],
    *,
    policy: Annotated[
        str | None, typer.Option(help="Who acts in the task: random, a policy file, a training's folder.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; must not exist.")] = None,
    name: Annotated[str | None, typer.Option(help="Id of the dataset.")] = None,
    seed: Seed = None,
    threads: Threads = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make a dataset in a simulator, with the behaviour's log-densities."""
    del debug
    from mbrl.api.data import LogSummary, label_of_collection
    from mbrl.api.data import collect as collect_log

    target = out or Path("datasets") / label_of_collection(what, policy=policy, name=name)
    log = collect_log(
        what,
        policy=policy,
        steps=steps,
        out=target,
        name=name,
        seed=seed or 0,
        threads=threads or 1,
        progress=listener(is_json=json),
    )
    emit(LogSummary(log, target), is_json=json, path=target)
