"""Benchmarks of the software itself: off-policy estimators on policies of known value, and speed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mbrl.api.progress import Listener, make_board
from mbrl.api.result import PlainResult
from mbrl.api.session import minari_root, open_workspace, torch_settings
from mbrl.run.documents import Override
from mbrl.study.engines import open_engine
from mbrl.study.folder import StudyFolder
from mbrl.study.ope_bench.config import FOLDER, load_ope_bench
from mbrl.study.ope_bench.facts import gather_ope_bench, write_ope_bench
from mbrl.study.ope_bench.plan import begin_ope_bench, plan_ope_bench
from mbrl.study.sweep import run_sweep
from mbrl.study.tasks import Site


@dataclasses.dataclass(frozen=True, slots=True)
class BenchmarkOutcome:
    """A benchmark of estimators.

    Attributes:
        result: shows itself.
        path: the Markdown report.
        is_complete: whether every task is done.
    """

    result: PlainResult
    path: Path
    is_complete: bool


def benchmark_ope(
    config: str | Path,
    *,
    jobs: int | None = None,
    peer_python: str | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    command: str = "mbrl ope-bench",
    overrides: Sequence[Override] = (),
) -> BenchmarkOutcome:
    """Judges estimators by policies of known value; what is done is not done again.

    Args:
        config: name in `configs/ope-bench`, or a yaml.
        jobs: tasks side by side; None for all cores.
        peer_python: interpreter with d3rlpy, for its fitted Q evaluation beside ours.
        out: folder of tables and figures; None for one in the run store.
        store: root of the run folders; None for a temporary one of this process.
        progress: False for no live table.
        command: that makes the report again.
        overrides: changes of the benchmark's config.
    """
    from mbrl.report.ope_bench.tables import total_table, verdict_table

    source = load_ope_bench(str(config), overrides=overrides)
    root = open_workspace(store, progress).store.root.resolve()
    site = Site(StudyFolder(root / FOLDER / source.name), root, minari_root())
    with torch_settings(1):
        plan = plan_ope_bench(source, site, peer_python=peer_python)
        begin_ope_bench(plan, site)
        with open_engine("local", site, jobs=jobs) as engine, make_board(progress) as board:
            run_sweep(plan.tasks, site.folder, engine, board)
        bench = gather_ope_bench(plan, site, command=command)
        folder = site.folder.path if out is None else Path(out)
        values = write_ope_bench(bench, folder)
    page = folder / "ope-bench.md"
    messages = [f"failed: {task}: {cause}" for task, cause in bench.failures.items()]
    tables = [total_table(bench), verdict_table(bench)]
    result = PlainResult({**values, "path": str(page)}, tables, messages, title=repr(source.name))
    return BenchmarkOutcome(result, page, bench.is_complete)
