"""Reports written by hand."""

from typing import Any

from mbrl.core.estimates import Estimand, Family
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import (
    Backtest,
    Baseline,
    Diagnostics,
    KnownValue,
    LoggedData,
    PairedDifference,
    ReportedEstimate,
    Risk,
    RiskSource,
)

NAMES: dict[Family, str] = {"ratio": "pdwis", "value": "fqe", "model": "model_value"}
DATA = LoggedData(
    name="by hand", episodes=50, steps=500, terminals=0, time_outs=50,
    length_quantiles=(10.0,) * 5, return_std=1.0, behaviour="given",
)  # fmt: skip


def estimate(
    name: str,
    family: Family,
    ends: tuple[float, float] | None,
    *,
    n_eff: float = 100.0,
    tail_share: float | None = 0.0,
) -> ReportedEstimate:
    """A valid estimate in the middle of its interval `(low, high)`; an invalid one for None."""
    low, high = ends or (None, None)
    return ReportedEstimate(
        name=name,
        family=family,
        point=None if low is None or high is None else (low + high) / 2,
        se=None if low is None or high is None else (high - low) / 4,
        ci95=(low, high),
        method_of_ci="by hand",
        n_eff=n_eff,
        valid=ends is not None,
        why_not=None if ends is not None else "by hand",
        tail_share=tail_share,
    )


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
) -> Measured:
    """Intervals of the three primary estimators, each `(low, high)` or None for an invalid one.

    Every measured quantity passes its test unless it is given. `risk` holds sources `(p, low, high)`.
    """
    intervals = zip(NAMES.items(), (ratio, value, model), strict=True)
    estimates = [estimate(n, f, ends, n_eff=ess, tail_share=tail) for (f, n), ends in intervals]
    sources = [
        RiskSource(source=f"source {k}", p_violation=p, p_violation_ci95=(low, high))
        for k, (p, low, high) in enumerate(risk or [])
    ]
    return Measured(
        estimand=Estimand(0.99, horizon=10),
        estimates=tuple(estimates),
        data=DATA,
        diagnostics=Diagnostics(
            pareto_k=pareto_k,
            fqe_drift=drift,
            support_share=support,
            model_disagreement_share=disagreement,
        ),
        backtest=Backtest(
            policy="behaviour",
            truth=KnownValue(mean=1.0, se=0.1),
            z={"model_value": 0.5, "fqe": -0.5} if z is None else z,
        ),
        baseline=Baseline(policy="behaviour", value=baseline),
        risk=Risk(
            event="termination",
            text="it ends early",
            limit=None if risk is None else limit,
            sources=tuple(sources),
            behaviour=RiskSource(source="behaviour"),
        ),
    )


def paired(
    found: Measured, *, corrected: dict[str, tuple[float, float]] | None = None, **ends: tuple[float, float]
) -> Measured:
    """The report with differences to the baseline by estimator, `(low, high)`, and wider ones."""
    differences = {
        name: PairedDifference(
            difference=(low + high) / 2,
            se=(high - low) / 4,
            ci95=(low, high),
            ci_corrected=(corrected or {}).get(name),
        )
        for name, (low, high) in ends.items()
    }
    return with_part(found, "baseline", paired=differences)


def with_part(found: Measured, section: str, **fields: Any) -> Measured:
    """The report with other fields in one of its sections."""
    return found.model_copy(update={section: getattr(found, section).model_copy(update=fields)})
