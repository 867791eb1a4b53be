"""What the plannings of a comparison found and cost."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mbrl.run.plan.planning import CALL_QUANTILES
from mbrl.run.records import EvaluationSummary, PlanSummary
from mbrl.run.store import RunFolder
from mbrl.study.layout import StudyPlan
from mbrl.study.tasks import Site, Task, is_current


def gather_study_plans(plan: StudyPlan, site: Site) -> list[dict[str, Any]]:
    """What the plannings of a comparison found, means over the seeds that are done, in their order.

    Args:
        plan: what was to be done.
        site: where it was done.
    """
    config = plan.source.config
    planned = [label for label in config.algorithms if plan.source.planner(label) is not None]
    found: list[dict[str, Any]] = []
    for dataset, algorithm in itertools.product(config.datasets, planned):
        evaluations = [plan.chain(dataset, algorithm, seed)[-1] for seed in config.seeds]
        summaries = [summary for task in evaluations if (summary := _summary(task, site)) is not None]
        if summaries:
            found.append(_mean_plan(dataset, algorithm, summaries))
    return found


def _summary(task: Task, site: Site) -> dict[str, Any] | None:
    """Of an evaluation that is done; None of anything else: without a simulator a chain ends before it."""
    outcome = site.folder.outcome(task.id)
    if task.kind != "evaluate" or outcome is None or not is_current(task, outcome):
        return None
    run = RunFolder(Path(outcome.path or ""))
    return run.summary(PlanSummary if run.manifest()["stage"] == "plan" else EvaluationSummary)


def _mean_plan(dataset: str, algorithm: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    plans = [summary["plans"] for summary in found]
    returns = [summary["return_interval"]["estimate"] for summary in found]
    gains = [summary["gain_interval"]["estimate"] for summary in found]
    return {
        "dataset": dataset,
        "algorithm": algorithm,
        "policy": found[0]["algorithm"],
        "planner": found[0]["planner"],
        "budget_milliseconds": found[0]["config"]["milliseconds"],
        "pessimism": found[0]["config"]["pessimism"],
        "seeds": len(found),
        "mean_return": mean(returns),
        "returns_by_seed": returns,
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
