"""Everything that a report says beside the estimates: data, diagnostics, baseline, risk."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimate
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.ope.judgement.baseline import behaviour_baseline
from mbrl.ope.judgement.findings import PRIMARY
from mbrl.ope.judgement.heat import heat_list
from mbrl.ope.judgement.paired import Evidence, evidence_of, gap_in_errors, rollouts_of
from mbrl.ope.judgement.risk import RiskQuestion, behaviour_risk, ratio_risk, rollout_risk
from mbrl.ope.judgement.support_map import SupportMap, map_support, support_by_place, support_by_time
from mbrl.ope.log.diagnostics import RatioDiagnostics, ratio_diagnostics
from mbrl.ope.log.layout import Array, OPEArrays, pad_log
from mbrl.ope.statistics.bounds import LEVEL
from mbrl.ope.value.model_estimate import model_diagnostics

_RATIO_KEYS = ("ess_t", "effective_horizon", "max_weight_share", "pareto_k", "mean_ratio_z", "clipped_mass")


def assess(
    policy: Policy,
    dataset: Dataset,
    estimates: Mapping[str, Estimate],
    arrays: OPEArrays | str,
    *,
    question: RiskQuestion,
    generator: torch.Generator,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Sections of the report, and why fields of them are null.

    Args:
        policy: the candidate.
        dataset: the log.
        estimates: by name.
        arrays: the log with the candidate's ratios, or why there are none.
        question: event whose probability is wanted.
        generator: of the support's fits.
    """
    estimand = next(iter(estimates.values())).estimand
    plain = pad_log(dataset.episodes, None, estimand=estimand)
    ratios = None if isinstance(arrays, str) else arrays
    evidence = evidence_of(estimates)
    reasons = {} if ratios is not None else {f"diagnostics.{key}": str(arrays) for key in _RATIO_KEYS}
    support: SupportMap | None = None
    try:
        support = map_support(policy, dataset, generator=generator)
    except DataError as error:
        names = ("support_share", "support_by_time", "support_by_place")
        reasons |= {f"diagnostics.{name}": str(error) for name in names}
    diagnostics: dict[str, Any] = {} if ratios is None else ratio_fields(ratio_diagnostics(ratios))
    if support is not None:
        diagnostics |= support_fields(support, dataset, reasons)
    if "model_value" in estimates:
        diagnostics |= model_diagnostics(estimates["model_value"])
    diagnostics["heat"] = heat_list(dataset, support, ratios)
    if "fqe" in estimates and "drift" in estimates["fqe"].details:
        diagnostics["fqe_drift"] = float(estimates["fqe"].details["drift"])
    found = {
        "estimand": estimand.to_json(),
        "data": data_facts(dataset, plain),
        "diagnostics": diagnostics,
        "baseline": behaviour_baseline(plain, evidence, ratios),
        "risk": risk_section(plain, ratios, _rollouts(estimates), question),
        "agreement": {"paired_z": paired_z(evidence)},
    }
    if found["baseline"]["value"] is None:
        reasons["baseline"] = "time-outs cut the logged returns"
    if found["risk"]["p_violation"] is None:
        reasons["risk"] = "no source that counts: it takes ratios with enough effective episodes, or a model"
    return found, reasons


def _rollouts(estimates: Mapping[str, Estimate]) -> tuple[Array, str | None] | None:
    model = estimates.get("model_value")
    found = None if model is None else rollouts_of(model)
    return None if model is None or found is None else (found, model.why_not)


def data_facts(dataset: Dataset, plain: OPEArrays) -> dict[str, Any]:
    """What was logged."""
    terminated = sum(e.terminated for e in dataset.episodes)
    is_hidden = bool(plain.truncated.any()) or len(dataset) < 2
    return {
        "name": dataset.info.name,
        "episodes": len(dataset),
        "steps": dataset.num_transitions,
        "terminals": terminated,
        "time_outs": len(dataset) - terminated,
        "length_quantiles": np.quantile(dataset.episode_lengths, [0, 0.25, 0.5, 0.75, 1]).tolist(),
        "return_std": None if is_hidden else float(plain.returns().std(ddof=1)) * plain.estimand.scale,
    }


def ratio_fields(found: RatioDiagnostics) -> dict[str, Any]:
    """Diagnostics of the weights under the report's names."""
    plain = found.to_json()
    shares = [share for share in plain.pop("max_share") if share is not None]
    return {
        "ess_t": plain.pop("ess"),
        "max_weight_share": max(shares, default=None),
        **plain,
    }


def support_fields(support: SupportMap, dataset: Dataset, reasons: dict[str, str]) -> dict[str, Any]:
    """Share outside of the log, over time and over the plane of the states; adds to `reasons`."""
    found: dict[str, Any] = {
        "support_share": support.share,
        "support_method": support.method,
        "support_by_time": support_by_time(support, dataset),
    }
    try:
        found["support_by_place"] = support_by_place(support, dataset)
    except DataError as error:
        reasons["diagnostics.support_by_place"] = str(error)
    return found


def risk_section(
    plain: OPEArrays,
    ratios: OPEArrays | None,
    rollouts: tuple[Array, str | None] | None,
    question: RiskQuestion,
    *,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Probability of the event and the worst tenth, by every source; those of the first valid one in front.

    Args:
        plain: the log without ratios.
        ratios: the log with them, or None.
        rollouts: `[2, m, n]` returns and terminations, and why they do not count; None without a model.
        question: which event.
        level: of the intervals.
    """
    sources: list[dict[str, Any]] = []
    if ratios is not None:
        sources.append(ratio_risk(ratios, question, level=level))
    if rollouts is not None:
        (returns, ended), why_not = rollouts
        sources.append(rollout_risk(returns, ended > 0, question, why_not=why_not, level=level))
    first = next((source for source in sources if source["valid"]), None)
    keys = ("p_violation", "p_violation_ci95", "cvar10", "cvar10_ci95")
    return {
        **question.to_json(),
        **{key: None if first is None else first[key] for key in keys},
        "sources": sources,
        "behaviour": behaviour_risk(plain, question, level=level),
    }


def paired_z(evidence: Mapping[str, Evidence]) -> float | None:
    """Largest difference of two primary estimators in standard errors, those of the paired episodes."""
    found = [evidence[name] for name in PRIMARY.values() if name in evidence]
    return max((gap_in_errors(a, b) for a, b in itertools.combinations(found, 2)), default=None)
