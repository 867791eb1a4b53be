"""`mbrl inspect`, `import`, `collect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Seed, Threads, guarded, minari_root
from mbrl.cli.output import emit, make_progress

if TYPE_CHECKING:
    from mbrl.data.dataset import Dataset
    from mbrl.data.options import LoadOptions
    from mbrl.report.kit.table import Table

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
    from mbrl.data.inspection.report import inspect_log
    from mbrl.data.open import parse_log
    from mbrl.report.run.data_tables import inspection_tables

    options = _load_options(overrides or [])
    report = inspect_log(parse_log(path, options, minari_root=minari_root()), options)
    if html is not None:
        from mbrl.report.run.pages import doctor_page
        from mbrl.run.files import write_text

        write_text(html, doctor_page(report, provenance={"command": f"mbrl inspect {path} --html {html}"}))
    values: dict[str, Any] = {**report.model_dump(mode="json"), "may_train": report.may_train}
    emit(values, inspection_tables(report), is_json=json, path=html)
    if not report.may_train:
        raise typer.Exit(REFUSED)


def _load_options(overrides: list[str]) -> "LoadOptions":
    from mbrl.data.options import LoadOptions
    from mbrl.run.documents import Tree, parse_override, set_at
    from mbrl.run.validation import validate

    tree: Tree = {}
    for text in overrides:
        set_at(tree, *parse_override(text))
    return validate(LoadOptions, tree, where="--set")


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
    dataset = _read(path, layout, _load_options(overrides or []))
    written = _write(dataset, out, to)
    emit(_sizes(dataset), [_size_table(dataset)], is_json=json, path=written)


def _read(path: str, layout: str, options: "LoadOptions") -> "Dataset":
    from mbrl.core.errors import ConfigError
    from mbrl.data.formats.base import FORMATS
    from mbrl.data.open import locate, open_dataset

    if layout == "auto":
        return open_dataset(path, options, minari_root=minari_root())
    source = locate(path, minari_root=minari_root())
    if layout == "quanser_qube":
        from mbrl.data.quanser_qube import load_quanser_qube

        return load_quanser_qube(source)
    if layout not in FORMATS.names():
        legal = ", ".join(["auto", "quanser_qube", *FORMATS.names()])
        raise ConfigError(f"Unknown layout {layout!r}. Legal names: {legal}.")
    return FORMATS.get(layout).read(source, options)


def _write(dataset: "Dataset", out: Path, to: str) -> Path:
    from mbrl.data.formats.base import FORMATS

    return FORMATS.get(to).write(dataset, out)


def _sizes(dataset: "Dataset") -> dict[str, Any]:
    return {
        "name": dataset.info.name,
        "episodes": len(dataset),
        "transitions": dataset.num_transitions,
        "mean_episode_return": float(dataset.episode_returns.mean()),
        "terminated": sum(episode.terminated for episode in dataset.episodes),
        "content_hash": dataset.content_hash,
        "dropped": dict(dataset.dropped),
    }


def _size_table(dataset: "Dataset") -> "Table":
    from mbrl.report.kit.table import Table

    rows = [(key, value) for key, value in _sizes(dataset).items() if key != "dropped"]
    return Table("dataset", ("", "value"), [*rows, *dataset.dropped.items()])


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
    from mbrl.core.errors import ConfigError
    from mbrl.run.collect import CollectionConfig, PartConfig, collect_dataset, load_collection
    from mbrl.run.stages import set_up_torch

    if policy is None:
        config = load_collection(what)
    else:
        config = CollectionConfig(task=what, parts=(PartConfig(policy=policy),))
    if steps is not None:
        config = config.model_copy(update={"steps": steps})
    stem = what.removesuffix(".yaml").removesuffix(".yml")
    label = name or (stem if policy is None else f"{Path(stem).name}/{Path(policy).stem}")
    target = out or Path("datasets") / label
    if target.exists():
        raise ConfigError(f"{target} exists already. Remedy: give another --out, or remove it.")
    set_up_torch(threads or 1)
    progress = make_progress(is_json=json)
    dataset = collect_dataset(config, name=label, seed=seed or 0, progress=progress)
    written = _write(dataset, target, "minari")
    emit(_sizes(dataset), [_size_table(dataset)], is_json=json, path=written)
