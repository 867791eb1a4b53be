"""Deployment reports written by hand, with every part filled."""

import math
from typing import Any

from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.report.documents import DeploymentReport, Measured, OPEReport
from mbrl.off_policy.judgement.risk import QUANTILE_LEVELS


def estimate(name: str, family: str, point: float | None, half: float, **extra: Any) -> dict[str, Any]:
    ends = [None, None] if point is None else [point - half, point + half]
    return {
        "name": name,
        "family": family,
        "point": point,
        "ci95": ends,
        "method_of_ci": "by hand",
        "se": None if point is None else half / 2,
        "n_eff": 61.3,
        "flags": [],
        "valid": point is not None,
        "why_not": None if point is not None else "the policy is deterministic: no density ratio exists",
        "tail_share": 0.0,
    } | extra


def source(name: str, p: float, low: float, high: float, shift: float) -> dict[str, Any]:
    return {
        "source": name,
        "p_violation": p,
        "p_violation_ci95": [low, high],
        "p_violation_ci_corrected": [max(0.0, low - 0.01), high + 0.01],
        "cvar10": -420.0 + shift,
        "cvar10_ci95": [-450.0 + shift, -395.0 + shift],
        "quantiles": [-450.0 + shift + 300.0 * level for level in QUANTILE_LEVELS],
        "n_eff": 61.3,
        "valid": True,
        "why_not": None,
    }


def single(
    name: str = "mopo-s0", *, gain: float = 60.0, candidates: int = 1, **diagnostics: Any
) -> OPEReport:
    """One candidate whose every family counts unless diagnostics say otherwise."""
    steps = range(200)
    base = -310.0
    points = {
        "is": -4e6,
        "pdis": -150.0,
        "wis": base + gain - 20,
        "pdwis": base + gain,
        "dm": base + gain - 8,
    }
    estimates = [estimate(key, "ratio", value, 30.0) for key, value in points.items()]
    estimates += [
        estimate("fqe", "value", base + gain + 10, 18.0),
        estimate("magic", "hybrid", None, 0.0),
        estimate("model_value", "model", base + gain - 6, 25.0),
    ]
    cells = [(x, y) for x in range(-7, 8) for y in range(-7, 8) if x * x + y * y < 50]
    paired = {
        e["name"]: {
            "difference": e["point"] - base,
            "se": 14.0,
            "ci95": [e["point"] - base - 28, e["point"] - base + 28],
            "ci_corrected": [e["point"] - base - 33, e["point"] - base + 33],
            "method": "paired",
        }
        for e in estimates
        if e["point"] is not None
    }
    report = {
        "candidate": name,
        "estimand": {
            "text": "E[sum_{t<200} 0.99^t r_t], absorbing after terminal, every episode cut at 200",
            "discount": 0.99,
            "horizon": 200,
            "normalised": False,
            "is_proper": False,
        },
        "data": {
            "name": "pendulum-mixed",
            "episodes": 120,
            "steps": 24_000,
            "terminals": 0,
            "time_outs": 120,
            "length_quantiles": [200.0] * 5,
            "behaviour": "given",
            "return_std": 132.0,
        },
        "estimates": estimates,
        "diagnostics": {
            "ess_t": [120.0 * math.exp(-t / 290) for t in steps],
            "effective_horizon": 200,
            "max_weight_share": 0.06,
            "pareto_k": 0.41,
            "mean_ratio_z": [0.3] * 200,
            "clipped_mass": 0.0,
            "fqe_drift": 0.004,
            "support_share": 0.043,
            "support_method": "density",
            "support_by_time": {
                "step": list(range(0, 200, 4)),
                "share": [0.02 + 0.06 * math.exp(-((k - 12) ** 2) / 40) for k in range(50)],
                "count": [480] * 50,
            },
            "support_by_place": {
                "x": [0.4 * x for x, _ in cells],
                "y": [0.3 * y for _, y in cells],
                "share": [min(1.0, max(0.0, (x + y - 3) / 6)) for x, y in cells],
                "count": [int(400 * math.exp(-(x * x + y * y) / 18)) + 1 for x, y in cells],
                "explained": [0.62, 0.31],
            },
            "segments": [
                {
                    "kind": kind,
                    "episode": 7 * k,
                    "first_step": 20 + k,
                    "last_step": 40 + k,
                    "length": 200,
                    "share": 0.9 - 0.05 * k,
                    "score": 12.0 - k,
                }
                for kind in ("support", "weight")
                for k in range(10)
            ],
            "model_disagreement_share": 0.03,
            "model_rollouts": 600,
            "stopped": [k % 3 for k in steps],
            "clip_rate": [0.01 + 0.0001 * k for k in steps],
            "exploitation_alarm": False,
        }
        | diagnostics,
        "backtest": {
            "policy": "behaviour, cloned on the training folds",
            "truth": {"mean": base, "se": 12.0},
            "z": {"fqe": 0.8, "model_value": -1.4, "dm": None},
        },
        "baseline": {"policy": "behaviour", "value": base, "se": 12.0, "ci95": [base - 24, base + 24]}
        | {"paired": paired},
        "risk": {
            "event": "below",
            "threshold": -500.0,
            "limit": 0.1,
            "text": "the discounted return is below -500",
            "p_violation": 0.03,
            "p_violation_ci95": [0.005, 0.08],
            "cvar10": -380.0,
            "cvar10_ci95": [-410.0, -355.0],
            "sources": [source("ratio", 0.03, 0.005, 0.08, gain), source("model", 0.02, 0.0, 0.06, gain + 5)],
            "behaviour": source("behaviour", 0.06, 0.03, 0.12, 0.0),
        },
    }
    return conclude(Measured.model_validate(report), paired_z=1.1, candidates=candidates)


def alone(report: OPEReport | None = None, **settings: Any) -> DeploymentReport:
    """Of one candidate: of this report, or of one with these settings."""
    report = report or single(**settings)
    return DeploymentReport(
        proposed=report.candidate,
        candidates=(report.candidate,),
        baseline="behaviour",
        why_no_ranking="one candidate has no rank",
        reports=(report,),
    )


def trial(name: str, prior: float, prior_se: float, **now: Any) -> dict[str, Any]:
    """What one candidate is thought to be worth."""
    return {"candidate": name, "prior": prior, "prior_se": prior_se, **now}


def several(**changes: Any) -> DeploymentReport:
    """Three candidates: one to go, one that cannot be told, one that is worse."""
    reports = [
        single("bc-s0", gain=5.0, candidates=3, support_share=0.15),
        single("mopo-s0", gain=75.0, candidates=3),
        single("td3_bc-s0", gain=-80.0, candidates=3),
    ]
    values = {
        "proposed": "mopo-s0",
        "candidates": [report.candidate for report in reports],
        "baseline": "behaviour",
        "ranking": {
            "estimator": "pdwis",
            "counts_for_all": True,
            "points": [-305.0, -235.0, -390.0],
            "p_best": [0.04, 0.958, 0.002],
            "regret": 0.4,
            "regret_ci95": [0.0, 4.1],
        },
        "why_no_ranking": None,
        "test_plan": {
            "estimator": "pdwis",
            "episodes": 10,
            "noise": 60.0,
            "regret_now": 1.8,
            "regret_then": 0.6,
            "candidates": [
                trial("bc-s0", -305.0, 26.0, tested=0, mean=-302.0, se=25.0, p_best=0.04, next=3),
                trial("mopo-s0", -235.0, 30.0, tested=4, mean=-229.0, se=21.0, p_best=0.95, next=7),
                trial("td3_bc-s0", -390.0, 12.0, tested=0, mean=-390.0, se=12.0, p_best=0.0, next=0),
            ],
        },
        "why_no_test_plan": None,
        "reports": reports,
    }
    return DeploymentReport.model_validate({**values, **changes})


def thin() -> DeploymentReport:
    """A report in which hardly anything is known."""
    nothing = [
        estimate("pdwis", "ratio", None, 0.0),
        estimate("fqe", "value", -300.0, 20.0, valid=False, why_not="it still moved by 8 %"),
    ]
    full = single()
    risk = full.risk.model_copy(update={"limit": None, "sources": ()})
    report = Measured.model_validate(
        {
            **{name: getattr(full, name) for name in ("candidate", "estimand", "data", "baseline")},
            "estimates": nothing,
            "diagnostics": {},
            "risk": risk,
        }
    )
    return alone(conclude(report, reasons={"diagnostics": "the log is too small"}))
