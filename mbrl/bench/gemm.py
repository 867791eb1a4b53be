"""The limit: how fast this machine multiplies float32 matrices."""

import torch

from mbrl.bench.peers.worker import Work
from mbrl.bench.registry import Modes

GEMM_SIZES = (256, 512, 1024, 2048)
"""Square matrices that are tried; the fastest is the peak."""


def gemm_modes(seed: int) -> Modes:
    """`torch.mm` of square matrices into a preallocated one; a unit is one operation."""
    return {str(size): _multiply(size, seed) for size in GEMM_SIZES}


def _multiply(size: int, seed: int) -> Work:
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, size, size, generator=generator)
    out = torch.empty(size, size)
    repeats = max(1, 1024**3 // size**3)

    def multiply() -> int:
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        return repeats * 2 * size**3

    return multiply
