"""Our contender's process: `python -m mbrl.bench.worker`."""

import time
from typing import Any

import torch

from mbrl.bench.gemm import gemm_modes
from mbrl.bench.peers.worker import Work, serve
from mbrl.bench.registry import ROWS
from mbrl.bench.workload import Workload
from mbrl.core.device import clock_on, find_device
from mbrl.run.stage import set_up_torch
from mbrl.run.store import package_version

GEMM = "gemm"
"""Name of the work that is the limit of all other."""

_BETWEEN_WAITS = 0.05
"""Seconds of launches between two waits for a card."""


def build_own(options: dict[str, Any]) -> tuple[dict[str, Work], str]:
    """Modes of the row that `options` names."""
    workload = Workload.from_json(options["workload"])
    device = find_device(workload.device)
    set_up_torch(workload.threads, device)
    name = options["work"]
    modes = gemm_modes(workload.seed, device) if name == GEMM else ROWS.get(name).build(workload)
    return {mode: waiting_for(device, work) for mode, work in modes.items()}, package_version()


def waiting_for(device: torch.device, work: Work) -> Work:
    """Work whose time can be taken: on a card some of it at once, and then the wait until that is done."""
    if device.type != "cuda":
        return work
    clock = clock_on(device)

    def some() -> int:
        units, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < _BETWEEN_WAITS:
            units += work()
        clock()
        return units

    return some


if __name__ == "__main__":
    serve(build_own)
