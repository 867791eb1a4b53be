"""The table of what is measured."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mbrl.bench.peers.worker import Work
from mbrl.bench.workload import Workload
from mbrl.core.registry import Registry

Modes: TypeAlias = Mapping[str, Work]
"""Ways to do the same work, by name, such as a training loop and its update alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class PeerMode:
    """One way in which another library does the work of a row.

    Attributes:
        library: key of `mbrl.bench.peers.worker.LIBRARIES`.
        work: what the library is asked for.
        mode: which of its modes.
        against: our mode that it is compared with.
        target: ratio that we want to reach or exceed, or None.
        options: besides the sizes of the workload.
        needs_own_python: runs in this interpreter, not in that of `--peer-python`.
    """

    library: str
    work: str
    mode: str
    against: str
    target: float | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    needs_own_python: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class BenchRow:
    """One piece of work that is measured.

    Attributes:
        unit: what is counted a second.
        build: makes our modes of the work; runs in a process of its own.
        flops: operations that one unit needs (`mbrl.bench.flops`), or None where they say nothing.
        share_target: share of the GEMM peak that we want, one thread, or None.
        rate_target: units a second that we want, or None.
        peers: other libraries.
        learner: id of the learner that is measured, or None.
        has_device: whether the work can be done on a card.
    """

    unit: str
    build: Callable[[Workload], Modes]
    flops: Callable[[Workload], float] | None = None
    share_target: float | None = None
    rate_target: float | None = None
    peers: tuple[PeerMode, ...] = ()
    learner: str | None = None
    has_device: bool = True


ROWS: Registry[BenchRow] = Registry("benchmark row", "mbrl.bench.rows")
"""Rows by name, in `mbrl.bench.rows`; a new row is one more registration there."""
