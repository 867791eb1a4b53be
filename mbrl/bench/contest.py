"""Runs contenders side by side: a window of each in turn, round by round."""

import contextlib
import dataclasses
import sys
from collections.abc import Generator, Sequence
from typing import Any, Final

from mbrl.bench.processes import (
    OWN_COMMAND,
    PEER_SCRIPT,
    MissingLibraryError,
    Window,
    WorkerError,
    WorkerProcess,
    open_worker,
)
from mbrl.bench.registry import ROWS, BenchRow, PeerMode
from mbrl.bench.results import BenchReport, Contender, RowResult, fastest
from mbrl.bench.statistics import Spread
from mbrl.bench.worker import GEMM
from mbrl.bench.workload import Workload
from mbrl.core.device import CPU, describe_device, find_device
from mbrl.core.progress import Progress
from mbrl.run.store import code_facts

OWN_NAME: Final = "mbrl"
GEMM_SECONDS: Final = 0.25
"""Length of the GEMM's window in each round, at most."""

_SHORT: Final = {"stable-baselines3": "SB3"}
"""Names for tables."""

NOT_MEASURED: Final = (
    "OfflineRL-Kit and CORL are not on PyPI, so no command can install them here; they are not measured."
)


@dataclasses.dataclass(frozen=True, slots=True)
class BenchSettings:
    """How a benchmark runs.

    Attributes:
        windows: rounds of each row.
        seconds: length of a window; work that takes longer is done once.
        peer_python: interpreter of the peers.
        workload: sizes and threads.
    """

    windows: int = 5
    seconds: float = 1.0
    peer_python: str = sys.executable
    workload: Workload = dataclasses.field(default_factory=Workload)


@dataclasses.dataclass(frozen=True, slots=True)
class _Entrant:
    """A contender before its windows."""

    name: str
    worker: WorkerProcess
    mode: str
    against: str | None = None
    target: float | None = None


def measure_rounds(
    entrants: Sequence[tuple[WorkerProcess, str]], *, windows: int, seconds: Sequence[float]
) -> list[list[Window]]:
    """One window of every entrant in turn, and so on: A B A B, after a shorter round that warms up.

    Args:
        entrants: workers with their modes.
        windows: rounds that count.
        seconds: length of a window of each entrant.

    Returns:
        For each entrant its windows.
    """
    for (worker, mode), length in zip(entrants, seconds, strict=True):
        worker.window(mode, length / 2)
    measured: list[list[Window]] = [[] for _ in entrants]
    for _ in range(windows):
        for (worker, mode), length, mine in zip(entrants, seconds, measured, strict=True):
            mine.append(worker.window(mode, length))
    return measured


def run_bench(names: Sequence[str], settings: BenchSettings, progress: Progress) -> BenchReport:
    """Measures the GEMM peak, then the named rows.

    Args:
        names: of rows in the registry.
        settings: how.
        progress: told of rows.

    Raises:
        ConfigError: a row is unknown.
        WorkerError: one of our own contenders failed.
    """
    rows, notes, results = [(name, ROWS.get(name)) for name in names], [NOT_MEASURED], list[RowResult]()
    device = settings.workload.device
    if find_device(device) != CPU:
        # Other libraries would be measured on the CPU, beside which a card says nothing.
        notes = [f"On {device}, without other libraries."]
        notes += [f"{name} is work of the host: not measured." for name, row in rows if not row.has_device]
        rows = [(name, dataclasses.replace(row, peers=())) for name, row in rows if row.has_device]
    progress.start("bench", len(rows) + 1)
    with _open_own(GEMM, settings) as gemm:
        modes = [(gemm, mode) for mode in gemm.modes]
        length = min(settings.seconds, GEMM_SECONDS)
        rounds = measure_rounds(modes, windows=settings.windows, seconds=[length] * len(modes))
        peak = {
            mode: Spread.of([window.rate / 1e9 for window in windows])
            for (_, mode), windows in zip(modes, rounds, strict=True)
        }
        for done, (name, row) in enumerate(rows, 1):
            progress.advance(done)
            with contextlib.ExitStack() as stack:
                entrants = _enter(stack, name, row, settings, notes)
                limit = _Entrant(GEMM, gemm, fastest(peak))
                results.append(_measure_row(name, row, [*entrants, limit], settings))
            progress.message(f"{name}: {Spread.of(results[-1].contenders[0].rates).median:.4g} {row.unit}/s")
    progress.finish()
    facts = {"windows": settings.windows, "seconds": settings.seconds, "threads": settings.workload.threads}
    return BenchReport(
        settings={**facts, "workload": settings.workload.to_json()},
        machine={**code_facts(), **describe_device(find_device(device))},
        peak=peak,
        rows=tuple(results),
        notes=tuple(dict.fromkeys(notes)),
    )


def _measure_row(
    name: str, row: BenchRow, entrants: Sequence[_Entrant], settings: BenchSettings
) -> RowResult:
    """Rounds over all entrants, of which the last is the GEMM."""
    lengths = [settings.seconds] * (len(entrants) - 1) + [min(settings.seconds, GEMM_SECONDS)]
    rounds = measure_rounds(
        [(entrant.worker, entrant.mode) for entrant in entrants], windows=settings.windows, seconds=lengths
    )
    contenders = [
        Contender(entrant.name, entrant.worker.version, tuple(windows), entrant.against, entrant.target)
        for entrant, windows in zip(entrants, rounds, strict=True)
    ]
    return RowResult(
        name=name,
        unit=row.unit,
        flops=None if row.flops is None else row.flops(settings.workload),
        share_target=row.share_target,
        rate_target=row.rate_target,
        contenders=tuple(contenders[:-1]),
        gemm=tuple(contenders[-1].rates),
    )


def _enter(
    stack: contextlib.ExitStack, name: str, row: BenchRow, settings: BenchSettings, notes: list[str]
) -> list[_Entrant]:
    """Starts our process and one for each library; a library that is missing or fails leaves a note."""
    own = stack.enter_context(_open_own(name, settings))
    entrants = [_Entrant(f"{OWN_NAME} {mode}", own, mode) for mode in own.modes]
    workers: dict[tuple[str, str], WorkerProcess | None] = {}
    for peer in row.peers:
        key = (peer.library, peer.work)
        if key not in workers:
            workers[key] = _try_peer(stack, peer, settings, notes)
        worker = workers[key]
        if worker is not None:
            against = f"{OWN_NAME} {peer.against}"
            title = f"{_SHORT.get(peer.library, peer.library)} {peer.mode}"
            entrants.append(_Entrant(title, worker, peer.mode, against, peer.target))
    return entrants


@contextlib.contextmanager
def _open_own(work: str, settings: BenchSettings) -> Generator[WorkerProcess]:
    with open_worker(OWN_COMMAND, f"{OWN_NAME} {work}") as worker:
        worker.build({"work": work, "workload": settings.workload.to_json()})
        yield worker


def _try_peer(
    stack: contextlib.ExitStack, peer: PeerMode, settings: BenchSettings, notes: list[str]
) -> WorkerProcess | None:
    python = sys.executable if peer.needs_own_python else settings.peer_python
    options: dict[str, Any] = {
        **settings.workload.to_json(), **peer.options, "library": peer.library, "work": peer.work
    }  # fmt: skip
    try:
        worker = stack.enter_context(open_worker((python, str(PEER_SCRIPT)), f"{peer.library} {peer.work}"))
        worker.build(options)
    except MissingLibraryError:
        notes.append(
            f"{peer.library} is not installed in {python}: not measured. Remedy: name an interpreter that "
            "has it with --peer-python."
        )
        return None
    except WorkerError as error:
        notes.append(f"Not measured: {error}")
        return None
    return worker
