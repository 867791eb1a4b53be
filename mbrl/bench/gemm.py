"""The limit: how fast this machine multiplies float32 matrices."""

import torch

from mbrl.bench.peers.worker import Work
from mbrl.bench.registry import Modes
from mbrl.core.device import CPU

GEMM_SIZES = (256, 512, 1024, 2048)
"""Square matrices that are tried; the fastest is the peak."""

CARD_SIZES = (4096, 8192)
"""Besides, where smaller ones leave a card with nothing to do."""


def gemm_modes(seed: int, device: torch.device = CPU) -> Modes:
    """`torch.mm` of square matrices into a preallocated one; a unit is one operation."""
    sizes = GEMM_SIZES if device == CPU else (*GEMM_SIZES, *CARD_SIZES)
    return {str(size): _multiply(size, seed, device) for size in sizes}


def _multiply(size: int, seed: int, device: torch.device) -> Work:
    generator = torch.Generator(device).manual_seed(seed)
    left, right = torch.randn(2, size, size, generator=generator, device=device)
    out = torch.empty(size, size, device=device)
    repeats = max(1, 1024**3 // size**3)

    def multiply() -> int:
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        return repeats * 2 * size**3

    return multiply
