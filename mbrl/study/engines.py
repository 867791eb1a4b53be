"""Where the tasks of a comparison run: processes of this machine, or a Ray cluster."""

import contextlib
import os
from collections.abc import Generator
from typing import Literal, TypeAlias

from mbrl.study.sweep import Engine
from mbrl.study.tasks import Site

EngineName: TypeAlias = Literal["local", "ray"]


@contextlib.contextmanager
def open_engine(
    name: EngineName, site: Site, *, jobs: int | None = None, address: str | None = None
) -> Generator[Engine]:
    """An engine, closed whatever happens.

    Args:
        name: `local` for processes of this machine, or `ray`.
        site: where results go.
        jobs: tasks side by side; None for all cores.
        address: of a running Ray cluster.
    """
    if name == "ray":
        from mbrl.study.ray_engine import RayEngine

        engine: Engine = RayEngine(site, address=address, jobs=jobs)
    else:
        from mbrl.study.local_engine import LocalEngine

        engine = LocalEngine(site, jobs=jobs or len(os.sched_getaffinity(0)))
    try:
        yield engine
    finally:
        engine.close()
