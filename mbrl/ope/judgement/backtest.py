"""The back-test: the pipeline is asked for what is known, the value of the policy that acted.

Everything is fitted to some folds of the episodes, and the behaviour's estimated value is compared with the
mean return of the others. The value and the model family are tested so. Ratios of a policy to itself are 1,
so for them the mean of the candidate's ratios is tested, whose expectation is 1 under the right density.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import MbrlError
from mbrl.core.estimates import Estimand, Estimate, Flag, finite_or_none
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.splits import episode_folds
from mbrl.ope.estimators.context import ESTIMATORS, EstimatorContext
from mbrl.ope.estimators.importance import MAX_TAIL_SHARE
from mbrl.ope.log.layout import Array, pad_log
from mbrl.ope.log.policies import action_log_prob, is_stochastic
from mbrl.ope.value.fqe import FQEConfig

MAX_Z: Final = 2.0
"""Standard errors between an estimate and the known value from which on a family is not believed."""

MAX_RATIO_Z: Final = 3.0
MAX_RATIO_SHARE: Final = 0.05
"""Share of the steps whose mean ratio may miss 1 by `MAX_RATIO_Z` standard errors."""

TESTED: Final[Mapping[str, str]] = {"fqe": "fqe", "dm": "fqe", "model_value": "model_value"}
"""Estimators that a back-test condemns, and the one that is tested in their place."""

CloneBehaviour: TypeAlias = Callable[[Dataset, torch.Generator], Policy]
"""The policy that acted, learned from episodes; a known one ignores them."""

ContextFor: TypeAlias = Callable[[Dataset], EstimatorContext]
"""The pipeline's fits for these episodes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One estimator's answer.

    Attributes:
        point: mean over the folds; NaN where a fold has none.
        se: `sqrt(mean_f se_f^2)`: the folds' errors may be one and the same, so they are not averaged out.
        z: `(point - truth) / sqrt(se^2 + truth_se^2)`; NaN with a reason.
        why_not: why there is no z.
    """

    point: float
    se: float
    z: float
    why_not: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Backtest:
    """What asking for the behaviour's value showed.

    Attributes:
        truth: mean logged value, units of the estimand; NaN where time-outs hide a part of it.
        truth_se: its standard error.
        findings: by estimator.
        clone_nll: held-out negative log-likelihood of the clone, nats a step; NaN for one without a density.
        folds: of the episodes.
        why_not: why nothing was tested.
    """

    truth: float
    truth_se: float
    findings: Mapping[str, Finding]
    clone_nll: float
    folds: int
    why_not: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        found = self.findings.items()
        return {
            "policy": "behaviour, cloned on the training folds",
            "folds": self.folds,
            "clone_nll": finite_or_none(self.clone_nll),
            "truth": {"mean": finite_or_none(self.truth), "se": finite_or_none(self.truth_se)},
            "point": {name: finite_or_none(finding.point) for name, finding in found},
            "se": {name: finite_or_none(finding.se) for name, finding in found},
            "z": {name: finite_or_none(finding.z) for name, finding in found},
            "why_not": self.why_not,
            "why_no_z": {name: f.why_not for name, f in found if f.why_not is not None},
        }


def run_backtest(
    dataset: Dataset,
    clone: CloneBehaviour,
    context_for: ContextFor,
    *,
    estimand: Estimand,
    names: Sequence[str],
    rng: RngStreams,
    folds: int = 2,
) -> Backtest:
    """Asks estimators for the value of the policy that acted.

    Args:
        dataset: the log.
        clone: makes that policy of training folds.
        context_for: makes everything else that the pipeline fits, of the same episodes.
        estimand: what is estimated.
        names: of the estimators.
        rng: streams of the test.
        folds: parts of the episodes; each is held out once.

    Returns:
        Findings; without any where the log is too small, or where it does not tell the truth.
    """
    arrays = pad_log(dataset.episodes, None, estimand=estimand)
    if arrays.truncated.any():
        return _untested("time-outs cut the logged returns", folds)
    if not names:
        return _untested("there was nothing to test", folds)
    if len(dataset) < 2 * folds:
        return _untested(f"{len(dataset)} episodes are too few for {folds} folds", folds)
    returns, fold = arrays.returns() * estimand.scale, episode_folds(dataset, folds, rng.at("folds"))
    truth, truth_se = _truth(returns, fold)
    answers: dict[str, list[Estimate | str]] = {name: [] for name in names}
    likelihoods: list[float] = []
    for held in range(folds):
        train, rest = (dataset.select(np.flatnonzero(side)) for side in (fold != held, fold == held))
        policy = clone(train, rng.at("clone", held))
        likelihoods.append(_held_out_nll(policy, rest))
        context = context_for(train)
        for name in names:
            answers[name].append(_ask(name, context, policy, train, rng.at(name, held)))
    findings = {name: _compare(found, truth, truth_se) for name, found in answers.items()}
    return Backtest(truth, truth_se, findings, float(np.mean(likelihoods)), folds)


def apply_backtest(estimate: Estimate, z: Mapping[str, float | None]) -> Estimate:
    """The estimate, out of the verdict if its family missed the behaviour's value, flagged if that is open.

    Args:
        estimate: of a candidate.
        z: by estimator, as `Backtest.to_json` gives them.
    """
    tested = TESTED.get(estimate.name)
    if tested is None or not math.isfinite(estimate.point):
        return estimate
    found = z.get(tested)
    if found is None:
        return estimate.flagged(Flag.BACKTEST_INCONCLUSIVE)
    if abs(found) < MAX_Z:
        return estimate
    return estimate.invalidated(f"fails the behaviour back-test: z = {found:.1f}", Flag.FAILS_BACKTEST)


def backtest_config(config: FQEConfig, estimand: Estimand) -> FQEConfig:
    """The candidate's fit with no more updates than values need to settle: twice what crosses the horizon.

    A fit that has not settled by then is no finding, so that a short one cannot condemn anybody.
    """
    return config.model_copy(update={"updates": min(config.updates, 2 * config.least_updates(estimand))})


def miscalibrated_ratios(mean_ratio_z: Array) -> str | None:
    """Why ratios cannot be believed: at too many steps their mean is not 1; None if it is.

    Args:
        mean_ratio_z: `[T]`, of the candidate's ratios (`RatioDiagnostics`); NaN where too few episodes live.
    """
    known = mean_ratio_z[np.isfinite(mean_ratio_z)]
    share = float((np.abs(known) > MAX_RATIO_Z).mean()) if known.size else 0.0
    if share <= MAX_RATIO_SHARE:
        return None
    return (
        f"the mean ratio misses 1 by more than {MAX_RATIO_Z:g} standard errors at {share:.0%} of the steps: "
        "the behaviour's density is not right, or the policies hardly overlap"
    )


def _truth(returns: Array, fold: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over folds of their mean returns, and its error."""
    parts = [returns[fold == held] for held in range(int(fold.max()) + 1)]
    squared = [float(part.var(ddof=1)) / part.size for part in parts]
    return float(np.mean([part.mean() for part in parts])), math.sqrt(sum(squared)) / len(parts)


def _ask(
    name: str, context: EstimatorContext, policy: Policy, train: Dataset, generator: torch.Generator
) -> Estimate | str:
    """A usable estimate, or why there is none."""
    try:
        estimate = ESTIMATORS.get(name)(context).estimate(policy, train, generator=generator)
    except MbrlError as error:
        return str(error)
    if not estimate.valid:
        return estimate.why_not or "invalid"
    if (estimate.details.get("tail_share") or 0.0) > MAX_TAIL_SHARE:
        return "most of it would test the fitted value that stands for its tails"
    return estimate


def _compare(answers: Sequence[Estimate | str], truth: float, truth_se: float) -> Finding:
    reasons = [answer for answer in answers if isinstance(answer, str)]
    found = [answer for answer in answers if isinstance(answer, Estimate)]
    if reasons:
        return Finding(math.nan, math.nan, math.nan, reasons[0])
    point = float(np.mean([estimate.point for estimate in found]))
    se = math.sqrt(float(np.mean([estimate.se**2 for estimate in found])))
    spread = math.hypot(se, truth_se)
    if not spread > 0:
        return Finding(point, se, math.nan, "neither the estimate nor the truth has a spread")
    return Finding(point, se, (point - truth) / spread)


def _held_out_nll(policy: Policy, rest: Dataset) -> float:
    if not is_stochastic(policy):
        return math.nan
    rows = rest.transitions()
    log_prob = action_log_prob(policy, torch.tensor(rows.observation), torch.tensor(rows.action))
    return -float(log_prob.mean())


def _untested(reason: str, folds: int) -> Backtest:
    return Backtest(math.nan, math.nan, {}, math.nan, folds, reason)
