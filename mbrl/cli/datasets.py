"""`mbrl inspect`, `import`, `merge`, `relabel`, `collect`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Seed, Threads, guarded, listener
from mbrl.cli.output import emit

Source = Annotated[str, typer.Argument(help="Path, minari:<id>, or name of a bundled dataset.")]
REFUSED = 1


@guarded
def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET | FILES...",
            help="Path, minari:<id>, or name of a bundled dataset; or raw csv or Parquet files and folders.",
        ),
    ],
    *,
    schema: Annotated[
        str | None,
        typer.Option(help="Schema of raw files: a .yaml, or the name of a shipped one. Else it is guessed."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write one page of figures, with a viewer of episodes.")
    ] = None,
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Examine a dataset, or raw files before their import; exit status 1 if training may not start."""
    del debug
    from mbrl.api.data import inspect as inspect_log
    from mbrl.api.importing import is_schema
    from mbrl.core.errors import ConfigError

    if schema is None and len(paths) > 1 and is_schema(paths[0]):
        raise ConfigError(f"{paths[0]} is a schema. Remedy: mbrl inspect --schema {paths[0]} FILES.")
    log = paths[0] if len(paths) == 1 else paths
    found = inspect_log(log, schema=schema, overrides=overrides or [])
    if html is not None:
        named = "" if schema is None else f"--schema {schema} "
        found.to_html(html, command=f"mbrl inspect {named}{' '.join(paths)} --html {html}")
    emit(found, is_json=json, path=html)
    if not found.may_train:
        raise typer.Exit(REFUSED)


@guarded
def import_log(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SCHEMA.yaml] FILES...",
            help="Raw csv or Parquet files after their schema (a .yaml or the name of a shipped one); or one "
            "log in any format.",
        ),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="What to write; must not exist. The yaml with --guess.")
    ] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Write a first schema of unknown files.")] = False,
    layout: Annotated[
        str, typer.Option(help="How one log is laid out: auto, or a format of mbrl list formats.")
    ] = "auto",
    to: Annotated[str, typer.Option(help="Format to write.")] = "minari",
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make a dataset of raw files, or of a log in whatever layout; or guess the schema of unknown files."""
    del debug
    from mbrl.api.data import LogSummary, load, save
    from mbrl.api.importing import guess_schema, is_schema
    from mbrl.api.importing import import_log as import_raw
    from mbrl.core.errors import ConfigError

    if guess:
        emit(guess_schema(paths, out=out), is_json=json, path=out)
        return
    if out is None:
        raise ConfigError("There is no place to write to. Remedy: --out DATASET.")
    schema, *files = paths
    if is_schema(schema) and files:
        emit(import_raw(schema, files, out=out, to=to, overrides=overrides or []), is_json=json, path=out)
        return
    if files or is_schema(schema):
        raise ConfigError(
            "A schema comes first, and files after it: mbrl import SCHEMA.yaml FILES --out DATASET. "
            "Remedy: write one with mbrl import --guess FILES --out SCHEMA.yaml."
        )
    log = load(schema, layout=layout, overrides=overrides or [])
    written = save(log, out, to=to)
    emit(LogSummary(log, written), is_json=json, path=written)


@guarded
def merge(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="DATASET", help="Paths, minari:<id>, or names of bundled datasets."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="What to write; must not exist.")],
    name: Annotated[str | None, typer.Option(help="Id of the dataset [theirs, joined by +].")] = None,
    to: Annotated[str, typer.Option(help="Format to write.")] = "minari",
    overrides: Overrides = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make one dataset of several with the same channels; every row says which it came from."""
    del debug
    from mbrl.api.data import LogSummary
    from mbrl.api.importing import merge as merge_logs

    log = merge_logs(paths, out=out, name=name, to=to, overrides=overrides or [])
    emit(LogSummary(log, out), is_json=json, path=out)


@guarded
def relabel(
    path: Source,
    *,
    reward: Annotated[str | None, typer.Option(help="Expression of the new reward.")] = None,
    termination: Annotated[str | None, typer.Option(help="Condition that ends the task.")] = None,
    module: Annotated[
        str | None, typer.Option(help="file.py:function that computes rewards; the file is run.")
    ] = None,
    reward_model: Annotated[
        Path | None, typer.Option(help="Of mbrl fit-reward or of an imitation: folder or file.")
    ] = None,
    pessimism: Annotated[
        float, typer.Option(min=0, help="Of a reward model: deviations over members that are taken off.")
    ] = 0.0,
    offset: Annotated[float, typer.Option(help="Of a reward model: what every step earns besides.")] = 0.0,
    out: Annotated[Path, typer.Option("--out", help="What to write; must not exist.")],
    to: Annotated[str, typer.Option(help="Format to write.")] = "minari",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Give a log another reward or termination; the new dataset names the old one's hash."""
    del debug
    from mbrl.api.data import LogSummary
    from mbrl.api.importing import relabel as relabel_log

    log = relabel_log(
        path,
        reward=reward,
        termination=termination,
        module=module,
        reward_model=reward_model,
        pessimism=pessimism,
        offset=offset,
        out=out,
        to=to,
    )
    emit(LogSummary(log, out), is_json=json, path=out)


@guarded
def collect(
    what: Annotated[
        str | None, typer.Argument(help="Recipe such as hopper/medium-replay, a .yaml, or a task.")
    ] = None,
    *,
    env: Annotated[
        str | None, typer.Option("--env", help="Any Gymnasium id, in place of a recipe or a task.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Who acts: random, a shipped policy, a policy file, a rule's .yaml, a training."),
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

    named = what or (env or "").rpartition(":")[2].lower()
    target = out or Path("datasets") / label_of_collection(named, policy=policy, name=name)
    log = collect_log(
        what,
        policy=policy,
        env=env,
        steps=steps,
        out=target,
        name=name,
        seed=seed or 0,
        threads=threads or 1,
        progress=listener(is_json=json),
    )
    emit(LogSummary(log, target), is_json=json, path=target)
