"""Counter-based random streams: `(seed, stream, step)` fixes every draw."""

import dataclasses
import hashlib

import torch


@dataclasses.dataclass(frozen=True, slots=True)
class RngStreams:
    """Named, stateless streams.

    A step's draws are a function of `(seed, stream, step)` alone: they do not depend on call order, there is
    no state to checkpoint, and a resumed run repeats itself bit for bit. A card's generators draw other
    numbers than the host's, by the same names.

    Attributes:
        seed: the run's seed.
        device: where the generators live.
    """

    seed: int
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    def at(self, stream: str, step: int = 0) -> torch.Generator:
        """Returns a fresh generator for `stream` at `step`."""
        return torch.Generator(self.device).manual_seed(self.integer(stream, step))

    def integer(self, stream: str, step: int = 0) -> int:
        """Returns a seed in [0, 2^63) for libraries that take integers (simulators, numpy)."""
        key = f"{self.seed}/{stream}/{step}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1

    @property
    def host(self) -> "RngStreams":
        """The same streams with generators of the host, for what is computed there whatever the device."""
        return RngStreams(self.seed)

    def child(self, name: str) -> "RngStreams":
        """Returns streams that are independent of this object's, for a named part of a run."""
        return RngStreams(self.integer(f"child/{name}"), self.device)
