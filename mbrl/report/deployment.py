"""What off-policy evaluation found, as tables."""

from collections.abc import Mapping
from typing import Any

from mbrl.report.table import Table
from mbrl.report.wording import format_number

_WORDS = {"go": "GO", "go_with_guard": "GO WITH GUARD", "no_go": "NO-GO", "cannot_tell": "CANNOT TELL"}


def estimate_table(report: Mapping[str, Any]) -> Table:
    """Every estimator's answer; what is not valid says so."""
    rows = [
        (
            estimate["name"],
            estimate["point"],
            _interval(estimate["ci95"]),
            estimate["n_eff"],
            "" if estimate["valid"] else "no",
            ", ".join(estimate["flags"]),
        )
        for estimate in report["estimates"]
    ]
    baseline = report["baseline"]
    rows.append(("behaviour", baseline["value"], _interval(baseline["ci95"] or [None, None]), None, "", ""))
    caption = f"{report['candidate']} on {report['data']['name']}: {report['estimand']['text']}"
    return Table(caption, ("estimator", "value", "95 % interval", "n_eff", "valid", "flags"), rows)


def verdict_lines(report: Mapping[str, Any]) -> list[str]:
    """The verdict in words, then its reasons."""
    verdict = report["verdict"]
    return [f"{report['candidate']}: {_WORDS[verdict['verdict']]}", *(f"  {r}" for r in verdict["reasons"])]


def _interval(ends: list[float | None]) -> str:
    low, high = ends
    return "" if low is None or high is None else f"[{format_number(low)}, {format_number(high)}]"
