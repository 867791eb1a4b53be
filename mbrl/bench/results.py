"""What a benchmark found, for files and tables."""

import dataclasses
from typing import Any, Final

from mbrl.bench.processes import Window
from mbrl.bench.statistics import Spread, paired_ratio

FORMAT: Final = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work of a row, measured.

    Attributes:
        name: library and mode.
        version: of the library.
        windows: one for each round.
        against: name of our contender that this one is compared with; None for our own.
        target: ratio of that contender to this one which we want, or None.
    """

    name: str
    version: str
    windows: tuple[Window, ...]
    against: str | None = None
    target: float | None = None

    @property
    def rates(self) -> list[float]:
        """Units a second, by round."""
        return [window.rate for window in self.windows]

    @property
    def resident(self) -> tuple[int, int] | None:
        """Bytes in use after the first and after the last window."""
        first, last = self.windows[0].resident, self.windows[-1].resident
        return None if first is None or last is None else (first, last)


@dataclasses.dataclass(frozen=True, slots=True)
class RowResult:
    """All contenders of a row.

    Attributes:
        name: of the row.
        unit: what was counted.
        flops: operations that a unit needs, or None.
        share_target: of the GEMM peak that we want, or None.
        rate_target: units a second that we want of our first contender, or None.
        contenders: ours first.
        gemm: operations a second of the matrix product, measured in the same rounds.
    """

    name: str
    unit: str
    flops: float | None
    share_target: float | None
    rate_target: float | None
    contenders: tuple[Contender, ...]
    gemm: tuple[float, ...]

    def ratio(self, contender: Contender) -> Spread | None:
        """Ours to `contender`, paired by round; None for our own."""
        rates = {other.name: other.rates for other in self.contenders}
        if contender.against is None:
            return None
        return paired_ratio(rates[contender.against], contender.rates)

    def share(self, contender: Contender) -> Spread | None:
        """Part of the GEMM's speed that a contender reaches with the operations that the work needs."""
        if self.flops is None:
            return None
        return paired_ratio([rate * self.flops for rate in contender.rates], self.gemm)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "row": self.name,
            "unit": self.unit,
            "flops_per_unit": self.flops,
            "share_target": self.share_target,
            "rate_target": self.rate_target,
            "gemm_gflops": [rate / 1e9 for rate in self.gemm],
            "contenders": [self._contender_json(contender) for contender in self.contenders],
        }

    def _contender_json(self, contender: Contender) -> dict[str, Any]:
        ratio, share = self.ratio(contender), self.share(contender)
        return {
            "name": contender.name,
            "version": contender.version,
            "rate": Spread.of(contender.rates).to_json(),
            "rates": contender.rates,
            "against": contender.against,
            "ratio": None if ratio is None else ratio.to_json(),
            "target": contender.target,
            "share_of_gemm": None if share is None else share.to_json(),
            "resident_bytes": None if contender.resident is None else list(contender.resident),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class BenchReport:
    """A whole benchmark.

    Attributes:
        settings: threads, windows, seconds, sizes.
        machine: what it ran on.
        peak: GFLOP a second of each tried matrix size, by size; measured first.
        rows: in the order in which they were measured.
        notes: what could not be measured, and why.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    peak: dict[str, Spread]
    rows: tuple[RowResult, ...]
    notes: tuple[str, ...]

    @property
    def fastest_size(self) -> str:
        """The matrix size of the peak."""
        return fastest(self.peak)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": FORMAT,
            "settings": self.settings,
            "machine": self.machine,
            "gemm_peak": {
                "size": int(self.fastest_size),
                "gflops": self.peak[self.fastest_size].to_json(),
                "by_size": {size: spread.to_json() for size, spread in self.peak.items()},
            },
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
        }


def fastest(peak: dict[str, Spread]) -> str:
    """The key with the largest median."""
    return max(peak, key=lambda size: peak[size].median)
