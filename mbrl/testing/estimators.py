"""What every off-policy estimator must keep to."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from mbrl.core.errors import DataError, EstimandError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.nets.actors import ActorSpec, DeterministicActor, TanhGaussianActor
from mbrl.off_policy.estimators.base import ESTIMATORS, EstimatorEntry
from mbrl.off_policy.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.testing.checks import CheckError, Checks, Subject, expect, expect_instance, expect_same, run_checks
from mbrl.testing.samples import SPACE, make_dataset, make_normaliser

_HORIZON = 30
_REFUSALS = (UndefinedRatioError, EstimandError, DataError)


@dataclasses.dataclass(frozen=True, slots=True)
class EstimatorCase:
    """An estimator, a log whose behaviour is known, and a question.

    Attributes:
        entry: as it is registered.
    """

    entry: EstimatorEntry

    def make_policy(self) -> TanhGaussianActor:
        """A stochastic policy."""
        spec = ActorSpec("tanh_gaussian", SPACE, (8,))
        return TanhGaussianActor(spec, make_normaliser(), torch.Generator().manual_seed(1))

    def make_log(self) -> Dataset:
        """The small log with the density of its actions, which are uniform in the box."""
        dataset = make_dataset()
        log_prob = -SPACE.act_dim * math.log(2.0)
        episodes = [
            dataclasses.replace(episode, behaviour_log_prob=np.full(len(episode), log_prob, dtype=np.float32))
            for episode in dataset.episodes
        ]
        return dataclasses.replace(dataset, episodes=tuple(episodes))

    def estimate(self, policy: Policy, log: Dataset, *, seed: int = 0) -> Estimate | None:
        """What it says, or None where it refuses."""
        fqe = FQEConfig(members=5, hidden=(8,), updates=20, batch_size=16)
        settings = EstimatorSettings(Estimand(0.95, _HORIZON), fqe)
        context = EstimatorContext(policy, log, settings)
        try:
            return self.entry.estimate(context, generator=RngStreams(seed).at("estimate"))
        except _REFUSALS:
            return None


def check_estimator(estimator: str | EstimatorEntry, *, checks: Sequence[str] | None = None) -> None:
    """Checks an off-policy estimator: its answer, its refusals, its draws, what it leaves alone.

    Args:
        estimator: name in the registry, or the entry itself.
        checks: names from `ESTIMATOR_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no estimator, or no check, of that name.
    """
    entry = ESTIMATORS.get(estimator) if isinstance(estimator, str) else estimator
    run_checks(ESTIMATOR_CHECKS, EstimatorCase(entry), Subject("estimator", entry.name), checks)


def answers_are_estimates(case: EstimatorCase) -> None:
    """An `Estimate` by its own name and family, of the question, with an interval around its point."""
    found = case.estimate(case.make_policy(), case.make_log())
    if found is None:
        return
    expect_instance(found, Estimate)
    name, family = case.entry.name, case.entry.family
    expect(found.name == name, f"an estimate of the name {name!r}", came=repr(found.name))
    expect(found.family == family, f"an estimate of the family {family!r}", came=repr(found.family))
    question = Estimand(0.95, _HORIZON)
    expect(
        found.estimand == question, f"the estimand {question.describe()!r}", came=found.estimand.describe()
    )
    low, high = found.ci95
    is_around = math.isnan(low) or math.isnan(found.point) or low <= found.point <= high
    expect(is_around, f"an interval around the point {found.point:g}", came=found.ci95)
    expect(found.valid or bool(found.why_not), "a reason for an estimate that is not valid", came="none")


def draws_come_from_the_generator(case: EstimatorCase) -> None:
    """The same generator gives the same answer."""
    first, second = (case.estimate(case.make_policy(), case.make_log()) for _ in range(2))
    one, other = (None if found is None else found.to_json() for found in (first, second))
    expect_same(one, other, "the same estimate from the same generator")


def the_log_is_left_alone(case: EstimatorCase) -> None:
    """Episodes and policy are as before."""
    policy, log = case.make_policy(), case.make_log()
    before, content = copy.deepcopy(policy.state_dict()), log.content_hash
    case.estimate(policy, log)
    expect_same(policy.state_dict(), before, "the policy as it was")
    again = dataclasses.replace(log).content_hash
    expect(again == content, "the log as it was", came="other episodes")


def a_deterministic_policy_is_answered_or_refused(case: EstimatorCase) -> None:
    """Without a density there may be no answer; then the error is one of those that say so."""
    spec = ActorSpec("deterministic", SPACE, (8,))
    policy = DeterministicActor(spec, make_normaliser(), torch.Generator().manual_seed(1))
    try:
        case.estimate(policy, case.make_log())
    except Exception as error:
        names = ", ".join(kind.__name__ for kind in _REFUSALS)
        came = f"a {type(error).__name__}: {error}"
        raise CheckError(f"expected an estimate, or one of {names}; came {came}") from error


ESTIMATOR_CHECKS: Final[Checks[EstimatorCase]] = {
    check.__name__: check
    for check in (
        answers_are_estimates,
        draws_come_from_the_generator,
        the_log_is_left_alone,
        a_deterministic_policy_is_answered_or_refused,
    )
}
"""Checks of `check_estimator` by name."""
