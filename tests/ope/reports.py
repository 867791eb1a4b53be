"""Reports written by hand."""

from typing import Any

NAMES = {"ratio": "pdwis", "value": "fqe", "model": "model_value"}


def report(
    ratio: tuple[float, float] | None = None,
    value: tuple[float, float] | None = None,
    model: tuple[float, float] | None = None,
    *,
    baseline: float | None = 1.0,
    ess: float = 100.0,
    pareto_k: float | None = 0.3,
    tail: float = 0.0,
    drift: float | None = 0.001,
    support: float | None = 0.02,
    disagreement: float | None = 0.02,
    z: dict[str, float] | None = None,
    risk: list[tuple[float, float, float]] | None = None,
    limit: float | None = 0.1,
) -> dict[str, Any]:
    """Intervals of the three primary estimators, each `(low, high)` or None for an invalid one.

    Every measured quantity passes its test unless it is given. `risk` holds sources `(p, low, high)`.
    """
    estimates: list[dict[str, Any]] = []
    for name, ends in zip(NAMES.values(), (ratio, value, model), strict=True):
        low, high = ends or (None, None)
        estimates.append(
            {
                "name": name,
                "family": "ratio",
                "point": None if low is None or high is None else (low + high) / 2,
                "se": None if low is None or high is None else (high - low) / 4,
                "ci95": [low, high],
                "method_of_ci": "by hand",
                "n_eff": ess,
                "flags": [],
                "valid": ends is not None,
                "why_not": None if ends is not None else "by hand",
                "tail_share": tail,
            }
        )
    sources = [
        {
            "source": f"source {k}",
            "p_violation": p,
            "p_violation_ci95": [low, high],
            "valid": True,
            "why_not": None,
        }
        for k, (p, low, high) in enumerate(risk or [])
    ]
    return {
        "candidate": "candidate",
        "estimates": estimates,
        "data": {"episodes": 50, "return_std": 1.0},
        "diagnostics": {
            "pareto_k": pareto_k,
            "fqe_drift": drift,
            "support_share": support,
            "model_disagreement_share": disagreement,
        },
        "backtest": {"policy": "behaviour", "z": {"model_value": 0.5, "fqe": -0.5} if z is None else z},
        "baseline": {"policy": "behaviour", "value": baseline},
        "risk": None if risk is None else {"limit": limit, "sources": sources},
    }


def paired(found: dict[str, Any], **ends: tuple[float, float]) -> dict[str, Any]:
    """The report with differences to the baseline by estimator, `(low, high)`."""
    fields = {
        name: {"difference": (low + high) / 2, "se": (high - low) / 4, "ci95": [low, high]}
        for name, (low, high) in ends.items()
    }
    return {**found, "baseline": {**found["baseline"], "paired": fields}}
