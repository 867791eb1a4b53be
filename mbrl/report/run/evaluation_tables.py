"""What one policy did in the simulator, as a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mbrl.evaluation.evaluator import Evaluation
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_interval, format_share


def evaluation_table(evaluation: Evaluation | Mapping[str, Any], *, name: str = "policy") -> Table:
    """Returns, scores and lengths of the episodes of one policy.

    Args:
        evaluation: the dataclass, or its JSON.
        name: what was evaluated, for the caption.
    """
    values = evaluation.to_json() if isinstance(evaluation, Evaluation) else evaluation
    returns: list[float] = list(values["episode_returns"])
    terminated = np.array(values["terminated"], dtype=np.float64)
    score = values.get("score_interval")
    rows: list[tuple[str, Cell]] = [
        ("episodes", len(returns)),
        ("mean return", format_interval(values["return_interval"])),
        ("least, median, largest return", _spread(returns)),
        (
            "normalised score",
            "not available: no reference scores" if score is None else format_interval(score),
        ),
        ("mean length, steps", float(np.array(values["episode_lengths"], dtype=np.float64).mean())),
        ("episodes that terminated", format_share(float(terminated.mean()))),
        ("action", "deterministic" if values["is_deterministic"] else "sampled"),
        ("seed", values["seed"]),
        ("seconds", values.get("seconds")),
    ]
    return Table(
        f"{name} on {values['task']}: intervals over the episodes of this one policy", ("", "value"), rows
    )


def _spread(returns: list[float]) -> str:
    return ", ".join(f"{value:,.4g}" for value in (min(returns), float(np.median(returns)), max(returns)))
