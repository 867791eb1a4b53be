"""`mbrl bench`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, Device, JsonFlag, Threads, guarded, listener
from mbrl.cli.output import emit


@guarded
def bench(
    *,
    rows: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="What to measure [everything]; see mbrl list rows.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Rounds of interleaved windows.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.0, max=3600.0, help="Length of a window.")] = 1.0,
    threads: Threads = None,
    device: Device = None,
    peer_python: Annotated[
        Path | None, typer.Option(help="Interpreter with the other libraries [this one].")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="JSON file; its tables go beside it as .md.")] = Path(
        "bench.json"
    ),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure speed against the machine's GEMM peak and other libraries, on an idle machine or a card."""
    del debug
    from mbrl.api.progress import choose_progress
    from mbrl.api.result import PlainResult
    from mbrl.bench.contest import BenchSettings, run_bench
    from mbrl.bench.registry import ROWS
    from mbrl.bench.tables import bench_tables
    from mbrl.bench.workload import Workload
    from mbrl.core.errors import ConfigError
    from mbrl.report.kit.table import to_markdown
    from mbrl.run.files import write_json, write_text

    if out.suffix != ".json":
        raise ConfigError(f"--out must end in .json, not {out.name!r}.")
    names = ROWS.names() if rows is None else tuple(dict.fromkeys(rows.split(",")))
    settings = BenchSettings(
        windows=windows,
        seconds=seconds,
        peer_python=sys.executable if peer_python is None else str(peer_python),
        workload=dataclasses.replace(Workload(), threads=threads or 1, device=device or "cpu"),
    )
    report = run_bench(names, settings, choose_progress(listener(is_json=json)))
    values, tables = report.to_json(), bench_tables(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, values)
    notes = [f"- {note}\n" for note in report.notes]
    write_text(out.with_suffix(".md"), "\n".join([*map(to_markdown, tables), "".join(notes)]))
    emit(PlainResult({**values, "path": str(out)}, tables, report.notes), is_json=json, path=out)
