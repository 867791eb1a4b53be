"""What the plannings of a comparison found and cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mbrl.experiment.planning import CALL_QUANTILES
from mbrl.experiment.store import RunFolder
from mbrl.experiment.study_folder import StudyFolder


def gather_study_plans(study: StudyFolder) -> list[dict[str, Any]]:
    """What the plannings of a comparison found, means over the seeds that are done, in their order.

    Args:
        study: folder of the comparison.
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in study.run_states():
        outcome = study.outcome(run["tasks"][-1]) if run["status"] == "done" else None
        if outcome is None or outcome.path is None:
            continue
        summary = RunFolder(Path(outcome.path)).summary()
        if summary["stage"] == "plan":
            cells.setdefault((run["dataset"], run["algorithm"]), []).append(summary)
    return [_mean_plan(*cell, found) for cell, found in cells.items()]


def _mean_plan(dataset: str, algorithm: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    plans = [summary["plans"] for summary in found]
    gains = [summary["gain_interval"]["estimate"] for summary in found]
    return {
        "dataset": dataset,
        "algorithm": algorithm,
        "planner": found[0]["planner"],
        "budget_milliseconds": found[0]["config"]["milliseconds"],
        "pessimism": found[0]["config"]["pessimism"],
        "seeds": len(found),
        "mean_return": mean([summary["return_interval"]["estimate"] for summary in found]),
        "policy_return": mean([summary["policy_interval"]["estimate"] for summary in found]),
        "gain": mean(gains),
        "gain_by_seed": gains,
        "milliseconds": {
            name: mean([plan["milliseconds"][name] for plan in plans]) for name in CALL_QUANTILES
        },
        "deadline_miss_share": None
        if plans[0]["deadline_misses"] is None
        else sum(plan["deadline_misses"] for plan in plans) / sum(plan["calls"] for plan in plans),
        "fallback_share": mean([plan["fallback_share"] for plan in plans]),
        "sims_per_plan": mean([plan["sims_per_plan"] for plan in plans]),
        "penalty_coef": mean([summary["calibration"]["penalty_coef"] for summary in found]),
        "lcb_coef": mean([summary["calibration"]["lcb_coef"] for summary in found]),
    }
