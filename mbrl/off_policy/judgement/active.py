"""Which candidate to test next on the machine: a Gaussian process over policies that the log has informed.

After Konyushkova et al. 2021 (active offline policy selection): the prior mean is the off-policy estimate,
policies that act alike are worth alike, and an episode on the machine is a noisy look at one of them.
Departure: the prior's deviation is the estimate's own standard error, so what the log knows is not tested.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox
from mbrl.off_policy.judgement.ranking import chances_of_best
from mbrl.off_policy.judgement.report.concluded import CandidateTrials, TrialPlan
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import action_probabilities, evaluation_actions

OPTIMISM: Final = 2.0
"""Deviations above the mean at which a candidate is worth a test (upper confidence bound)."""

DRAWS: Final = 4000
"""Joint values that chances and losses are means of."""

_JITTER: Final = 1e-10
"""Added to the diagonal before a system is solved, as a share of the largest variance."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """A normal law of the candidates' values.

    Attributes:
        mean: `[c]`.
        covariance: `[c, c]`.
    """

    mean: Array
    covariance: Array

    @classmethod
    def prior(cls, points: Array, errors: Array, distance: Array) -> "Belief":
        """`cov_ij = se_i se_j exp(-D_ij / l)`, a Matern-1/2 kernel; l is the median distance of two of them.

        Args:
            points: `[c]` estimates.
            errors: `[c]` their standard errors.
            distance: `[c, c]`, how differently two candidates act (`action_distance`).
        """
        apart = distance[np.triu_indices(len(distance), 1)]
        length = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
        return cls(points, np.outer(errors, errors) * np.exp(-distance / length))

    @property
    def deviation(self) -> Array:
        """`[c]`, of each value."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def given(self, counts: NDArray[np.int64], means: Array, noise: float) -> "Belief":
        """After returns of the candidates were seen.

        Args:
            counts: `[c]`, episodes of each.
            means: `[c]`, mean return of each; ignored where there are none.
            noise: deviation of one return.
        """
        gain, seen = self._gain(counts, noise)
        shift = gain @ (means[seen] - self.mean[seen])
        return Belief(self.mean + shift, self.covariance - gain @ self.covariance[seen])

    def draws(self, rng: np.random.Generator, count: int = DRAWS) -> Array:
        """`[c, count]` joint values."""
        return self.mean[:, None] + _root(self.covariance) @ rng.standard_normal((len(self.mean), count))

    def _gain(self, counts: NDArray[np.int64], noise: float) -> tuple[Array, NDArray[np.int64]]:
        """`[c, s]`, what the mean return of each of s tested candidates moves, and which they are."""
        seen = np.flatnonzero(counts)
        inner = self.covariance[np.ix_(seen, seen)] + np.diag(noise**2 / counts[seen])
        jitter = _JITTER * float(np.diag(inner).max(initial=0.0))
        gain = np.linalg.solve(inner + jitter * np.eye(len(seen)), self.covariance[seen]).T
        return np.asarray(gain, dtype=np.float64), seen

    def regret_after(self, counts: NDArray[np.int64], noise: float, rng: np.random.Generator) -> float:
        """Expected loss against the best of picking the largest mean after such a test, by sampling it."""
        values = self.draws(rng)
        gain, seen = self._gain(counts, noise)
        # A test returns the true value and the error of a mean of so many episodes; the mean moves by it.
        error = rng.standard_normal((len(seen), values.shape[1])) * (noise / np.sqrt(counts[seen]))[:, None]
        then = self.mean[:, None] + gain @ (values[seen] + error - self.mean[seen, None])
        picked = values[then.argmax(0), np.arange(values.shape[1])]
        return float((values.max(0) - picked).mean())


def plan_trials(
    names: Sequence[str],
    prior: Belief,
    *,
    estimator: str,
    noise: float,
    returns: Mapping[str, Sequence[float]],
    episodes: int,
    seed: int = 0,
) -> TrialPlan:
    """Who should have the next episodes, and what that is worth.

    The regret is the expected loss against the best candidate if the one with the largest mean is picked.

    Args:
        names: of the candidates.
        prior: what the log says of them.
        estimator: whose estimates that is.
        noise: deviation of one return.
        returns: that were seen on the machine, by name.
        episodes: that may be run next.
        seed: of the draws, the same for all that is compared.
    """
    seen = [np.asarray(returns.get(name, ()), dtype=np.float64) for name in names]
    counts = np.array([one.size for one in seen], dtype=np.int64)
    means = np.array([one.mean() if one.size else 0.0 for one in seen])
    belief = prior.given(counts, means, noise)
    following = plan_episodes(belief, episodes, noise)
    chances = chances_of_best(belief.draws(np.random.default_rng(seed)))
    nothing = np.zeros_like(counts)
    candidates = (
        CandidateTrials(
            candidate=name,
            prior=float(prior.mean[k]),
            prior_se=float(prior.deviation[k]),
            tested=int(counts[k]),
            mean=float(belief.mean[k]),
            se=float(belief.deviation[k]),
            p_best=float(chances[k]),
            next=int(following[k]),
        )
        for k, name in enumerate(names)
    )
    return TrialPlan(
        estimator=estimator,
        episodes=episodes,
        noise=noise,
        regret_now=belief.regret_after(nothing, noise, np.random.default_rng(seed)),
        regret_then=belief.regret_after(following, noise, np.random.default_rng(seed)),
        candidates=tuple(candidates),
    )


def plan_episodes(belief: Belief, episodes: int, noise: float) -> NDArray[np.int64]:
    """`[c]`, how many of the next episodes each candidate should have.

    One after the other goes to the largest `mean + OPTIMISM * deviation`, as if it had returned its mean
    (Desautels et al. 2014): the deviation shrinks, and with it the wish to look again.
    """
    counts = np.zeros(len(belief.mean), dtype=np.int64)
    for _ in range(episodes):
        now = belief.given(counts, belief.mean, noise)
        counts[next_candidate(now)] += 1
    return counts


def next_candidate(belief: Belief) -> int:
    """Index of the largest upper confidence bound; the first among equals."""
    return int(np.argmax(belief.mean + OPTIMISM * belief.deviation))


def action_distance(actions: Sequence[Array]) -> Array:
    """`[c, c]` mean distance of what the candidates do in the same states.

    Args:
        actions: of each candidate `[k, d]`, see `comparable_actions`.
    """
    stacked = np.stack(actions)
    gaps = stacked[:, None] - stacked[None]
    return np.sqrt(np.square(gaps).mean(-1)).mean(-1)


def comparable_actions(policy: Policy, obs: Tensor, space: SpaceSpec) -> Array:
    """`[k, d]` evaluation actions scaled to [-1, 1]; probabilities where there are finitely many."""
    if isinstance(policy, DiscretePolicy):
        return action_probabilities(policy, obs).double().numpy()
    return ActionBox(space).scale(evaluation_actions(policy, obs)).double().numpy()


def _root(covariance: Array) -> Array:
    """A square root of a covariance that may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), dtype=np.float64)
