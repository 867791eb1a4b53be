"""Our contender's process: `python -m mbrl.bench.worker`."""

from typing import Any

from mbrl.bench.gemm import gemm_modes
from mbrl.bench.peers.worker import Work, serve
from mbrl.bench.registry import ROWS
from mbrl.bench.workload import Workload
from mbrl.run.stage import set_up_torch
from mbrl.run.store import package_version

GEMM = "gemm"
"""Name of the work that is the limit of all other."""


def build_own(options: dict[str, Any]) -> tuple[dict[str, Work], str]:
    """Modes of the row that `options` names."""
    workload = Workload.from_json(options["workload"])
    set_up_torch(workload.threads)
    name = options["work"]
    modes = gemm_modes(workload.seed) if name == GEMM else ROWS.get(name).build(workload)
    return dict(modes), package_version()


if __name__ == "__main__":
    serve(build_own)
