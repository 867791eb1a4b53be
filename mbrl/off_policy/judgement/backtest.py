"""The back-test: the pipeline is asked for what is known, the value of the policy that acted.

Everything is fitted to some folds of the episodes, and the behaviour's estimated value is compared with the
mean return of the others. The value and the model family are tested so. Ratios of a policy to itself are 1,
so for them the mean of the candidate's ratios is tested, whose expectation is 1 under the right density.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import MbrlError
from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.splits import episode_folds
from mbrl.off_policy.estimators.base import ESTIMATORS, backtested_estimators
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.importance import MAX_TAIL_SHARE
from mbrl.off_policy.judgement.report.measured import Backtest, KnownValue
from mbrl.off_policy.log.censoring import logged_returns, why_not_known
from mbrl.off_policy.log.layout import Array, pad_log
from mbrl.off_policy.log.policies import action_log_prob, is_stochastic
from mbrl.off_policy.value.fqe import FQEConfig

MAX_Z: Final = 2.0
"""Standard errors between an estimate and the known value from which on a family is not believed."""

MAX_RATIO_Z: Final = 3.0
"""Standard errors by which the mean ratio of a step may miss 1."""

MAX_RATIO_SHARE: Final = 0.05
"""Share of the steps whose mean ratio may miss 1 by `MAX_RATIO_Z` standard errors."""

CLONED: Final = "behaviour, cloned on the training folds"
"""Whose value is asked for, in words."""

CloneBehaviour: TypeAlias = Callable[[Dataset, torch.Generator], Policy]
"""The policy that acted, learned from episodes; a known one ignores them."""

ContextFor: TypeAlias = Callable[[Policy, Dataset], EstimatorContext]
"""The pipeline's fits for this policy and these episodes."""


@dataclasses.dataclass(frozen=True, slots=True)
class BacktestAnswer:
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
        What they said; nothing where the log is too small, or where it does not tell the truth.
    """
    arrays = pad_log(dataset.episodes, None, estimand=estimand)
    unknown = why_not_known(arrays)
    if unknown is not None:
        return _untested(unknown, folds)
    if not names:
        return _untested("there was nothing to test", folds)
    if len(dataset) < 2 * folds:
        return _untested(f"{len(dataset)} episodes are too few for {folds} folds", folds)
    # The truth takes no fitted value: one that stood in for cut episodes would be put to its own test.
    returns, fold = logged_returns(arrays) * estimand.scale, episode_folds(dataset, folds, rng.at("folds"))
    truth, truth_se = _truth(returns, fold)
    answers: dict[str, list[Estimate | str]] = {name: [] for name in names}
    likelihoods: list[float] = []
    for held in range(folds):
        train, rest = (dataset.select(np.flatnonzero(side)) for side in (fold != held, fold == held))
        policy = clone(train, rng.at("clone", held))
        likelihoods.append(_held_out_nll(policy, rest))
        context = context_for(policy, train)
        for name in names:
            answers[name].append(_ask(name, context, rng.at(name, held)))
    compared = {name: _compare(found, truth, truth_se) for name, found in answers.items()}
    return Backtest(
        policy=CLONED,
        folds=folds,
        clone_nll=float(np.mean(likelihoods)),
        truth=KnownValue(mean=truth, se=truth_se),
        point={name: answer.point for name, answer in compared.items()},
        se={name: answer.se for name, answer in compared.items()},
        z={name: answer.z for name, answer in compared.items()},
        why_no_z={name: answer.why_not for name, answer in compared.items() if answer.why_not is not None},
    )


def apply_backtest(estimate: Estimate, z: Mapping[str, float | None]) -> Estimate:
    """The estimate, out of the verdict if its family missed the behaviour's value, flagged if that is open.

    Args:
        estimate: of a candidate.
        z: of `Backtest`, by estimator.
    """
    tested = backtested_estimators().get(estimate.name)
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


def _ask(name: str, context: EstimatorContext, generator: torch.Generator) -> Estimate | str:
    """A usable estimate, or why there is none."""
    try:
        estimate = ESTIMATORS.get(name).estimate(context, generator=generator)
    except MbrlError as error:
        return str(error)
    if not estimate.valid:
        return estimate.why_not or "invalid"
    if (estimate.details.get("tail_share") or 0.0) > MAX_TAIL_SHARE:
        return "most of it would test the fitted value that stands for its tails"
    return estimate


def _compare(answers: Sequence[Estimate | str], truth: float, truth_se: float) -> BacktestAnswer:
    reasons = [answer for answer in answers if isinstance(answer, str)]
    found = [answer for answer in answers if isinstance(answer, Estimate)]
    if reasons:
        return BacktestAnswer(math.nan, math.nan, math.nan, reasons[0])
    point = float(np.mean([estimate.point for estimate in found]))
    se = math.sqrt(float(np.mean([estimate.se**2 for estimate in found])))
    spread = math.hypot(se, truth_se)
    if not spread > 0:
        return BacktestAnswer(point, se, math.nan, "neither the estimate nor the truth has a spread")
    return BacktestAnswer(point, se, (point - truth) / spread)


def _held_out_nll(policy: Policy, rest: Dataset) -> float:
    if not is_stochastic(policy):
        return math.nan
    rows = rest.transitions()
    log_prob = action_log_prob(policy, torch.tensor(rows.observation), torch.tensor(rows.action))
    return -float(log_prob.mean())


def _untested(reason: str, folds: int) -> Backtest:
    nothing = KnownValue(mean=None, se=None)
    return Backtest(policy=CLONED, folds=folds, truth=nothing, why_not=reason)
