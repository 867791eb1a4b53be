"""Random numbers of rows: a draw depends on its row's seed, its purpose and its place, on nothing else.

A batch of plans must equal the plans one by one, so rows cannot share a generator, and one generator a row
would be a loop in Python. Hence a counter-based generator over tensors: SplitMix64 (Steele, Lea & Flood 2014)
of `(seed, purpose, index)`, a few integer operations an element.
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# The constants of SplitMix64 as signed numbers: 2^64 over the golden ratio, and two multipliers whose
# products mix all bits (Stafford's variant 13 of MurmurHash3's finaliser).
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


class RowNoise:
    """Streams of draws, one a row.

    Args:
        seeds: `[b]` int64, one a row.
    """

    def __init__(self, seeds: Int[Tensor, "b"]) -> None:
        self._seeds = seeds

    @classmethod
    def draw(cls, rows: int, generator: torch.Generator) -> "RowNoise":
        """Seeds from a generator: the first rows of a larger batch get the same ones."""
        seeds = torch.randint(
            torch.iinfo(torch.int64).max, (rows,), generator=generator, device=generator.device
        )
        return cls(seeds)

    @property
    def seeds(self) -> Int[Tensor, "b"]:
        """`[b]` int64."""
        return self._seeds

    def rows(self, index: Int[Tensor, "k"] | slice) -> "RowNoise":
        """The streams of some rows."""
        return RowNoise(self._seeds[index])

    def integers(self, purpose: str, count: int) -> Int[Tensor, "b count"]:
        """`[b, count]` uniform over all int64."""
        key = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little", signed=True)
        base = splitmix64(splitmix64(self._seeds + _GOLDEN) ^ key)
        index = torch.arange(1, count + 1, device=base.device) * _GOLDEN
        return splitmix64(base[:, None] + index)

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
        """`[b, *shape]` in the open interval (0, 1), float64 with 52 random bits."""
        bits = _shift(self.integers(purpose, math.prod(shape)), 12)
        return ((bits.double() + 0.5) * 2.0**-52).view(len(bits), *shape)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
        """`[b, *shape]` standard normal, float32."""
        return (math.sqrt(2.0) * torch.erfinv(2.0 * self.uniform(purpose, shape) - 1.0)).float()

    def gumbel(self, purpose: str, shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
        """`[b, *shape]` standard Gumbel, `-log(-log U)`, float64."""
        return -torch.log(-torch.log(self.uniform(purpose, shape)))


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(value: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The output function of SplitMix64; int64 arithmetic wraps."""
    value = (value ^ _shift(value, 30)) * _MIX_1
    value = (value ^ _shift(value, 27)) * _MIX_2
    return value ^ _shift(value, 31)
