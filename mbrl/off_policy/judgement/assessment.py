"""Everything that a report says beside the estimates: data, diagnostics, baseline, risk."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimate
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.off_policy.judgement.baseline import baseline_reasons, behaviour_baseline
from mbrl.off_policy.judgement.paired import evidence_of, rollouts_of
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Diagnostics, LoggedData, ReportedEstimate
from mbrl.off_policy.judgement.risk import RiskQuestion, risk_reasons, risk_section
from mbrl.off_policy.judgement.segments import find_segments
from mbrl.off_policy.judgement.support_map import SupportMap, map_support, support_by_place, support_by_time
from mbrl.off_policy.log.censoring import whole_weights, why_not_known
from mbrl.off_policy.log.diagnostics import RatioDiagnostics, ratio_diagnostics
from mbrl.off_policy.log.layout import Array, OPEArrays, pad_log
from mbrl.off_policy.value.model_estimate import model_diagnostics

_RATIO_FIELDS: Final = (
    "ess_t",
    "effective_horizon",
    "max_weight_share",
    "live_share",
    "mean_weight",
    "mean_ratio_z",
    "pareto_k",
    "weight_beyond",
    "clipped_mass",
    "clip_bias_bound",
)
"""Diagnostics that ratios have; without ratios all lack for one reason."""

_SUPPORT_FIELDS: Final = ("support_share", "support_method", "support_by_time", "support_by_place")
"""Diagnostics that the support of the logged actions has."""

_BEHAVIOUR_FIELDS: Final = ("behaviour", "fit_nll", "calibration_error", "floored_rows")
"""What a report keeps of `Behaviour.facts`."""


def assess(
    policy: Policy,
    dataset: Dataset,
    estimates: Mapping[str, Estimate],
    arrays: OPEArrays | str,
    *,
    behaviour: Mapping[str, Any],
    question: RiskQuestion,
    generator: torch.Generator,
) -> Measured:
    """What was measured of a candidate, with reasons for what is missing.

    Args:
        policy: the candidate.
        dataset: the log.
        estimates: by name.
        arrays: the log with the candidate's ratios, or why there are none.
        behaviour: where the density of the policy that acted comes from (`Behaviour.facts`).
        question: event whose probability is wanted.
        generator: of the draws of a policy that draws.
    """
    estimand = next(iter(estimates.values())).estimand
    plain = pad_log(dataset.episodes, None, estimand=estimand)
    ratios = None if isinstance(arrays, str) else arrays
    diagnostics, reasons = _diagnose(policy, dataset, estimates, arrays, generator)
    baseline = behaviour_baseline(plain, evidence_of(estimates), ratios)
    risk = risk_section(plain, ratios, _rollouts(estimates), question)
    return Measured(
        estimand=estimand,
        estimates=tuple(map(ReportedEstimate.of, estimates.values())),
        data=describe_log(dataset, plain, behaviour),
        diagnostics=diagnostics,
        baseline=baseline,
        risk=risk,
        why_not={**reasons, **baseline_reasons(baseline, plain), **risk_reasons(risk)},
    )


def _diagnose(
    policy: Policy,
    dataset: Dataset,
    estimates: Mapping[str, Estimate],
    arrays: OPEArrays | str,
    generator: torch.Generator,
) -> tuple[Diagnostics, dict[str, str]]:
    """The diagnostics, and why some of them are missing."""
    ratios = None if isinstance(arrays, str) else arrays
    reasons = {} if ratios is not None else {f"diagnostics.{name}": str(arrays) for name in _RATIO_FIELDS}
    support: SupportMap | None = None
    try:
        support = map_support(policy, dataset, generator=generator)
    except DataError as error:
        reasons |= {f"diagnostics.{name}": str(error) for name in _SUPPORT_FIELDS}
    fields: dict[str, Any] = {} if ratios is None else ratio_fields(ratio_diagnostics(ratios))
    if support is not None:
        fields |= support_fields(support, dataset, reasons)
    if "model_value" in estimates:
        fields |= model_diagnostics(estimates["model_value"])
    if "fqe" in estimates:
        fields["fqe_drift"] = estimates["fqe"].details.get("drift")
    return Diagnostics(**fields, segments=find_segments(dataset, support, ratios)), reasons


def _rollouts(estimates: Mapping[str, Estimate]) -> tuple[Array, str | None] | None:
    """Returns and terminations of the model's roll-outs, and why they do not count; None without them."""
    model = estimates.get("model_value")
    rollouts = None if model is None else rollouts_of(model)
    return None if model is None or rollouts is None else (rollouts, model.why_not)


def describe_log(dataset: Dataset, plain: OPEArrays, behaviour: Mapping[str, Any]) -> LoggedData:
    """What was logged.

    Args:
        dataset: the log.
        plain: the same, padded, without ratios.
        behaviour: where the density of the policy that acted comes from (`Behaviour.facts`).
    """
    terminated = sum(e.terminated for e in dataset.episodes)
    return LoggedData(
        name=dataset.info.name,
        episodes=len(dataset),
        steps=dataset.num_transitions,
        terminals=terminated,
        time_outs=len(dataset) - terminated,
        censored=int(plain.truncated.sum()),
        length_quantiles=np.quantile(dataset.episode_lengths, [0, 0.25, 0.5, 0.75, 1]).tolist(),
        return_std=_return_std(plain),
        **{name: behaviour[name] for name in _BEHAVIOUR_FIELDS},
    )


def _return_std(plain: OPEArrays) -> float | None:
    """Deviation of the returns of whole episodes, in place of those that were cut; None if unknown."""
    if len(plain) < 2 or why_not_known(plain) is not None:
        return None
    weight, returns = whole_weights(plain), plain.returns()
    variance = float(weight @ np.square(returns - weight @ returns)) / (1.0 - float(np.square(weight).sum()))
    return math.sqrt(variance) * plain.estimand.scale


def ratio_fields(found: RatioDiagnostics) -> dict[str, Any]:
    """Diagnostics of the weights under the report's names."""
    fields = found.to_json()
    shares = [share for share in fields.pop("max_share") if share is not None]
    return {"ess_t": fields.pop("ess"), "max_weight_share": max(shares, default=None), **fields}


def support_fields(support: SupportMap, dataset: Dataset, reasons: dict[str, str]) -> dict[str, Any]:
    """Share outside of the log, over time and over the plane of the states; adds to `reasons`."""
    fields: dict[str, Any] = {
        "support_share": support.share,
        "support_method": support.method,
        "support_by_time": support_by_time(support, dataset),
    }
    try:
        fields["support_by_place"] = support_by_place(support, dataset)
    except DataError as error:
        reasons["diagnostics.support_by_place"] = str(error)
    return fields
