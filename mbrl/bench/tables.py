"""A benchmark as tables for people."""

from collections.abc import Mapping
from typing import Any

from mbrl.bench.results import BenchReport, RowResult
from mbrl.bench.statistics import Spread
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_number

_NONE = "-"


def bench_tables(report: BenchReport) -> list[Table]:
    """The peak, the speeds, and how they compare."""
    return [peak_table(report), speed_table(report), comparison_table(report)]


def peak_table(report: BenchReport) -> Table:
    """Speed of the matrix product by size."""
    rows = [
        (f"{size} x {size}", format_number(spread.median), _range(spread))
        for size, spread in report.peak.items()
    ]
    return Table(f"torch.mm, float32, {_where(report.settings)}", ("matrices", "GFLOP/s", "range"), rows)


def _where(settings: Mapping[str, Any]) -> str:
    device = settings.get("workload", {}).get("device", "cpu")
    return f"threads: {settings['threads']}" if device == "cpu" else f"on {device}"


def speed_table(report: BenchReport) -> Table:
    """One line for each contender; the share is that of the GEMM of the same rounds."""
    settings = report.settings
    caption = (
        f"Units a second, median and range of {settings['windows']} interleaved windows of "
        f"{settings['seconds']:g} s, {_where(settings)}"
    )
    columns = ("work", "unit", "who", "rate", "range", "of GEMM", "MB")
    return Table(caption, columns, [line for row in report.rows for line in _speeds(row)])


def comparison_table(report: BenchReport) -> Table:
    """Ours to each peer's, paired by round, the share of the GEMM and rates, with what we want of them."""
    columns = ("work", "figure", "median", "range", "target", "met")
    rows = [line for row in report.rows for line in _comparisons(row)]
    return Table("Ratios of ours to others in windows of the same round, and targets", columns, rows)


def _speeds(row: RowResult) -> list[tuple[Cell, ...]]:
    lines: list[tuple[Cell, ...]] = []
    for index, contender in enumerate(row.contenders):
        rate, share = Spread.of(contender.rates), row.share(contender)
        named = (row.name, row.unit) if index == 0 else ("", "")
        memory = _NONE if contender.resident is None else f"{contender.resident[-1] / 1e6:.0f}"
        part = _NONE if share is None else f"{100 * share.median:.0f} %"
        lines.append((*named, contender.name, format_number(rate.median), _range(rate), part, memory))
    return lines


def _comparisons(row: RowResult) -> list[tuple[Cell, ...]]:
    lines: list[tuple[Cell, ...]] = []
    first = row.contenders[0]
    share = row.share(first)
    if share is not None and row.share_target is not None:
        figures = _figures(share, row.share_target)
        lines.append((row.name, f"share of GEMM, {first.name}", *figures))
    if row.rate_target is not None:
        spread, wanted = Spread.of(first.rates), f">= {format_number(row.rate_target)}"
        found = (format_number(spread.median), _range(spread), wanted, spread.median >= row.rate_target)
        lines.append((row.name, f"{row.unit} a second, {first.name}", *found))
    for contender in row.contenders:
        ratio = row.ratio(contender)
        if ratio is not None:
            figures = _figures(ratio, contender.target)
            lines.append((row.name, f"{contender.against} / {contender.name}", *figures))
    return lines


def _figures(spread: Spread, target: float | None) -> tuple[Cell, ...]:
    is_met = _NONE if target is None else spread.median >= target
    wanted = _NONE if target is None else f">= {target:g}"
    return (f"{spread.median:.2f}", f"{spread.low:.2f} to {spread.high:.2f}", wanted, is_met)


def _range(spread: Spread) -> str:
    return f"{format_number(spread.low)} to {format_number(spread.high)}"
