"""Synthetic studies: small ones written by hand, and one of full size."""

import math

import numpy as np

from mbrl.report.study.facts import Study, StudyAlgorithm, StudyDataset, StudyRun
from tests.report.conftest import make_dynamics_report

LEARNERS = {
    "discrete_bc": "discrete_bc",
    "bc": "bc",
    "td3_bc": "td3_bc",
    "iql": "iql",
    "cql": "cql",
    "mopo": "sac",
    "combo": "cql",
}
SEEDS = (0, 1, 2, 3, 4)


def algorithm(label, *, needs_dynamics=None):
    is_model_based = label in {"mopo", "combo", "mobile"} if needs_dynamics is None else needs_dynamics
    return StudyAlgorithm(
        label=label,
        recipe=label if is_model_based else "model_free",
        learner=LEARNERS.get(label, "sac"),
        needs_dynamics=is_model_based,
        config={"updates": 1000},
    )


def run(dataset, label, seed, value=None, *, seconds=10.0, **changes):
    """A finished run whose two episodes average to `value`; without one, a run that is missing."""
    if value is None:
        return StudyRun(dataset, label, seed, **{"status": "missing", **changes})
    values = (value - 1.0, value + 1.0)
    facts = {
        "status": "done",
        "returns": tuple(10 * v for v in values),
        "scores": values,
        "updates": 1000,
        "train_seconds": seconds,
        "fit_seconds": 80.0 if algorithm(label).needs_dynamics else None,
    }
    return StudyRun(dataset, label, seed, **{**facts, **changes})


def dataset(label, report, *, scores=(10.0, 20.0, 30.0), dynamics=None):
    fits = {0: make_dynamics_report()} if dynamics is None else dynamics
    return StudyDataset(label, f"hash-of-{label}", report, tuple(10 * s for s in scores), scores, fits)


def small_study(report, values, *, seconds=None, **of_dataset):
    """One dataset `d`; `values` holds the scores of each algorithm's seeds, or runs."""
    seconds = seconds or {}
    runs = [
        item if isinstance(item, StudyRun) else run("d", label, seed, item, seconds=seconds.get(label, 10.0))
        for label, items in values.items()
        for seed, item in enumerate(items)
    ]
    return Study(
        name="small",
        datasets=(dataset("d", report, **of_dataset),),
        algorithms={label: algorithm(label) for label in values},
        seeds=tuple(range(max(len(items) for items in values.values()))),
        runs=tuple(runs),
    )


_LEVELS = {
    "random": {"bc": 2, "td3_bc": 9, "iql": 8, "cql": 20, "mopo": 55, "combo": 40, "mobile": 62},
    "mixed": {"bc": 30, "td3_bc": 55, "iql": 60, "cql": 58, "mopo": 78, "combo": 80, "mobile": 86},
    "expert": {"bc": 97, "td3_bc": 98, "iql": 96, "cql": 95, "mopo": 60, "combo": 90, "mobile": 93},
}
_SPREADS = {"bc": 2.0, "td3_bc": 3.0, "iql": 3.0, "cql": 5.0, "mopo": 9.0, "combo": 6.0, "mobile": 4.0}
_SECONDS = {"bc": 40, "td3_bc": 150, "iql": 170, "cql": 420, "mopo": 500, "combo": 610, "mobile": 560}
_LOGGED = {"random": (0, 4), "mixed": (35, 25), "expert": (96, 5)}


def full_study(report, *, points=200):
    """7 algorithms, 3 datasets (one without references), 5 seeds; one run failed, one is missing."""
    rng = np.random.default_rng(0)
    runs = [
        _full_run(rng, name, label, seed, points)
        for name, levels in _LEVELS.items()
        for label in levels
        for seed in SEEDS
    ]
    return Study(
        name="toy",
        datasets=tuple(_full_dataset(rng, name, report) for name in _LEVELS),
        algorithms={label: algorithm(label) for label in _SPREADS},
        seeds=SEEDS,
        runs=tuple(runs),
        provenance={"command": "mbrl compare toy.yaml", "version": "0.1.0"},
    )


def _full_run(rng, name, label, seed, points):
    if (name, label, seed) == ("mixed", "combo", 3):
        cause = "The critic diverged at step 41,000: values of 3e8 where the rewards permit at most 0."
        return run(name, label, seed, status="failed", cause=cause)
    if (name, label, seed) == ("expert", "cql", 4):
        return run(name, label, seed)
    value = float(rng.normal(_LEVELS[name][label], _SPREADS[label]))
    returns = tuple(float(v) for v in -1500 + 14 * (value + rng.normal(0, 5, size=10)))
    return run(
        name,
        label,
        seed,
        value,
        returns=returns,
        scores=None if name == "mixed" else tuple((r + 1500) / 14 for r in returns),
        updates=50_000,
        train_seconds=_SECONDS[label] * float(rng.uniform(0.9, 1.1)),
        records=_records(rng, label, points),
        shift=_shift(rng, name, label),
        path=f"runs/{name}/{label}-s{seed}",
    )


def _records(rng, label, points):
    steps = np.linspace(250, 50_000, points).astype(int).tolist()
    level = 100 * rng.uniform(0.8, 1.2)
    return [
        {"step": step, "policy/loss": float(rng.random()), "seconds": 0.1 * step}
        | (
            {}
            if label == "bc"
            else {
                "critic/value": level * (1 - math.exp(-step / 9000)) + float(rng.normal(0, 2)),
                "critic/loss": float(np.exp(rng.normal())),
            }
        )
        for step in steps
    ]


def _shift(rng, name, label):
    alarms = ["More than half of the policy's actions lie outside the data."] if name == "random" else []
    return {
        "out_of_support_share": float(rng.random()),
        "knn_share": float(rng.random()),
        "rollout_uncertainty_ratio": 1.3 if label in {"mopo", "combo", "mobile"} else None,
        "value_gap": None if label == "bc" else float(rng.normal(0, 10)),
        "value_drift": None if label == "bc" else float(rng.normal()),
        "edge_share": 0.1 if label in {"mopo", "combo", "mobile"} else None,
        "alarms": alarms if label in {"mobile", "cql"} else [],
    }


def _full_dataset(rng, name, report):
    mean, spread = _LOGGED[name]
    scores = tuple(float(s) for s in rng.normal(mean, spread, size=100))
    dynamics = {seed: _fit(rng, name) for seed in SEEDS}
    returns = tuple(-1500 + 14 * s for s in scores)
    return StudyDataset(
        name,
        f"{name}-0123456789abcdef",
        report.model_copy(update={"name": name}),
        returns,
        None if name == "mixed" else scores,
        dynamics,
    )


def _fit(rng, name):
    report = make_dynamics_report(horizon=0 if name == "expert" else 3)
    loop, steps = report.open_loop, tuple(range(1, 21))
    error = tuple(float(e) for e in 0.03 * np.array(steps) * rng.uniform(0.8, 1.2))
    flat = tuple(0.0 for _ in steps)
    loop = loop.model_copy(
        update={
            "steps": steps,
            "segments": tuple(20 for _ in steps),
            "error": error,
            "low": tuple(0.8 * e for e in error),
            "high": tuple(1.2 * e for e in error),
            "persistence": tuple(0.06 * step for step in steps),
            "linear": tuple(0.05 * step for step in steps),
            "nrmse": error,
            "nrmse_persistence": error,
            "nrmse_linear": error,
            "coverage": tuple(0.93 - 0.01 * step for step in steps),
            "ended_early": flat,
        }
    )
    return report.model_copy(update={"open_loop": loop})
