"""Tasks on a Ray cluster: the same functions, on nodes that share the file system of the run store.

A task whose node dies is started again elsewhere and continues from its checkpoints.
"""

import importlib
import os
from typing import Any, Final

from mbrl.core.assets import PACKAGE
from mbrl.core.errors import MissingExtraError
from mbrl.study.sweep import Ended
from mbrl.study.tasks import Site, Task, execute

RETRIES: Final = 3
"""How often Ray starts a task again after the death of its worker or node."""


class RayEngine:
    """Tasks as remote functions of one CPU each.

    Args:
        site: where tasks work; its folders must be visible under the same paths on every node.
        address: of a running cluster, as `ray.init` takes it; None starts one on this machine.
        jobs: how many run at once; None for as many as the cluster has CPUs.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, site: Site, *, address: str | None = None, jobs: int | None = None) -> None:
        self._ray = _import_ray()
        self._site = site
        variables = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (_package_root(), os.environ.get("PYTHONPATH")))),
        }
        self._ray.init(
            address=address,
            num_cpus=jobs if address is None else None,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level="warning",
            include_dashboard=None if address is not None else False,
        )
        self._jobs = jobs
        self._remote = self._ray.remote(num_cpus=1, max_retries=RETRIES)(execute)
        self._tasks: dict[Any, Task] = {}

    @property
    def slots(self) -> int:
        """How many tasks run at once; a cluster may grow and shrink."""
        return self._jobs or max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def submit(self, task: Task) -> None:
        """Queues a task."""
        self._tasks[self._remote.remote(task, self._site)] = task

    def wait(self, seconds: float) -> list[Ended]:
        """Tasks that ended, or whose retries are used up."""
        pending = list(self._tasks)
        done, _ = self._ray.wait(pending, num_returns=len(pending), timeout=seconds)
        return [self._settle(reference) for reference in done]

    def close(self) -> None:
        """Cancels what runs and leaves the cluster."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._ray.shutdown()

    def _settle(self, reference: Any) -> Ended:
        task = self._tasks.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())
            return Ended(task, f"Its worker on the cluster died: {type(error).__name__}: {text}")
        return Ended(task)


def _import_ray() -> Any:
    try:
        importlib.import_module("ray.exceptions")
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise MissingExtraError("ray", extra="ray", purpose="mbrl compare --engine ray") from None


def _package_root() -> str:
    """Folder from which this package is imported, for nodes on which it is not installed."""
    return str(PACKAGE.parent)
