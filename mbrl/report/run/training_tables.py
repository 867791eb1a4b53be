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


def recovered_reward(summary: Mapping[str, Any]) -> Sequence[str]:
    """What is known of the reward that an imitation has recovered; nothing of other trainings."""
    found: Mapping[str, Any] | None = summary.get("recovered_reward")
    if found is None:
        return []
    use = "mbrl relabel LOG --reward-model RUN gives a log these rewards."
    if found["pearson"] is None or found["spearman"] is None:
        return [f"A reward was recovered; the log has none to compare it with. {use}"]
    return [
        f"The recovered reward correlates with the logged one over {found['steps']:,} steps: Pearson "
        f"{found['pearson']:.2f}, Spearman {found['spearman']:.2f}. {use}"
    ]
