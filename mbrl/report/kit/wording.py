"""Numbers and intervals in words; a figure that is missing is said to be missing, never left blank."""

import math
from collections.abc import Mapping
from typing import Any

from mbrl.evaluation.statistics import Interval

MISSING = "not available"


def format_number(value: float | int | None, *, digits: int = 3) -> str:
    """`digits` significant digits without needless exponents; integers whole; None and NaN in words."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0.0:
        return "0"
    size = abs(value)
    if float(value).is_integer() and size < 1e9:
        return f"{int(value):,}"
    if not 1e-4 <= size < 1e7:
        return f"{value:.{digits - 1}e}"
    size = float(f"{size:.{digits - 1}e}")  # 99.96 has three digits as 100, not as 100.0
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{value:,.{min(decimals, 6)}f}"


def format_count(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_share(value: float | int | None) -> str:
    """A share in percent, `0.0123` as `1.2 %`."""
    if value is None or math.isnan(value):
        return MISSING
    percent = 100.0 * value
    if 0 < abs(percent) < 0.1:
        return "< 0.1 %" if percent > 0 else "> -0.1 %"
    return f"{percent:.0f} %" if percent in {0.0, 100.0} else f"{percent:.1f} %"


def read_interval(value: Interval | Mapping[str, Any]) -> Interval:
    """An interval from its dataclass or from its JSON, where ends that do not exist are None."""
    if isinstance(value, Interval):
        return value
    return Interval.from_json(value)


def has_ends(interval: Interval) -> bool:
    """Whether the interval has two finite ends."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def format_interval(value: Interval | Mapping[str, Any], *, digits: int = 3) -> str:
    """`estimate [low, high]`, or the estimate with the reason why it has no interval."""
    interval = read_interval(value)
    estimate = format_number(interval.estimate, digits=digits)
    if has_ends(interval):
        low, high = (format_number(end, digits=digits) for end in (interval.low, interval.high))
        return f"{estimate} [{low}, {high}]"
    return f"{estimate} (no interval: {why_no_interval(interval)})"


def why_no_interval(interval: Interval) -> str:
    """The reason that an interval's method gives for having no ends."""
    if interval.n == 1:
        return "a single value has no spread"
    return interval.method.removeprefix("none:").strip() or "unknown reason"
