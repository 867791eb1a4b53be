"""What was trained, as a table and in words."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.report.kit.table import Table

_FACTS: Final = ("algorithm", "recipe", "learner", "online", "dataset", "task", "seed", "updates", "seconds")


def training_table(summary: Mapping[str, Any]) -> Table:
    """What was trained, and the last row of its metrics."""
    rows: list[tuple[str, Any]] = [(key, summary[key]) for key in _FACTS]
    rows += [(key, value) for key, value in summary["last_metrics"].items() if key != "step"]
    rows.append(("divergence alarms", len(summary["divergence"])))
    rows.append(("shift alarms", len(shift_alarms(summary))))
    title = f"{summary['algorithm']} on {summary['dataset'] or summary['task']}"
    return Table(title, ("", "value"), rows)


def shift_alarms(summary: Mapping[str, Any]) -> Sequence[str]:
    """What the diagnostics of a training's last policy warn of; nothing where they were off."""
    report: Mapping[str, Any] = summary.get("shift") or {}
    return list(report.get("alarms", []))
