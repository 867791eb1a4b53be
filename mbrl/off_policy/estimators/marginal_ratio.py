"""Marginal density ratios: how often a policy visits a state and an action, relative to the log.

One ratio for each logged step in place of a product over an episode: its variance does not grow with the
horizon. The behaviour's density is not needed: the log may come from anyone, and the policy may be
deterministic. Minimax weight learning (Uehara et al. 2020, section 4) asks for weights w with

    sum_i w_i [f(s_i, a_i) - g f(s'_i, pi)] / n = E f(s_0, pi)   for all f in a space of functions.

Weights are functions of (s, a) in the same space. A free weight for each row could depend on the successor;
the solution would then be that of Bellman residuals, biased wherever successors are random.
"""

import dataclasses
import math
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.marginal_moments import Moments, MomentSolution, solve_moments
from mbrl.off_policy.estimators.marginal_steps import MarginalSteps
from mbrl.off_policy.log.landmarks import KernelShape, LandmarkBasis
from mbrl.off_policy.log.layout import Array


class MWLConfig(BaseModel):
    """Minimax weight learning in an RKHS.

    Attributes:
        kernel: `rbf`, or `delta` for states and actions that repeat exactly (a table).
        landmarks: m, functions that span the space; the memory is that of a few `[m, m]` arrays and of
            `[8192, m]` for a chunk of rows, beside the rows themselves.
        max_rows: logged steps that are used; of longer logs a random part.
        width: of the kernel, deviations; None takes the median distance.
        ridge: on the squared norm of the weight function, a share of the moments' largest squared singular
            value. It trades variance for a bias that no interval shows; a small one leaves both honest.
        action_samples: draws of a stochastic policy over continuous actions at each state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kernel: KernelShape = "rbf"
    landmarks: Annotated[int, Field(ge=1, le=5000)] = 300
    max_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    width: Annotated[float, Field(gt=0, le=1e6)] | None = None
    ridge: Annotated[float, Field(ge=0, le=1)] = 1e-9
    action_samples: Annotated[int, Field(ge=1, le=1000)] = 5


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MarginalRatio:
    """Weights of logged steps, `(1/n) sum_i sum_t w f(s, a) = E sum_t g^t f(s_t, a_t)` over n episodes.

    Attributes:
        rows: `[k]`, which steps of the log they belong to.
        weight: `[k]`, unnormalised: their mass, with that of ended episodes, is `sum_t g^t`.
        value: the estimate, units of the plain sum.
        influence: `[n]`, influence of each episode on it, cross-fitted, mean 0.
        episode_mass: `[n]`, mass that each episode carries.
        mass: all of it before normalisation, as a share of `sum_t g^t`; NaN where that is endless.
        imbalance: share of the moments of the first states that is left unmatched.
        landmarks: that were used.
    """

    rows: NDArray[np.int64]
    weight: Array
    value: float
    influence: Array
    episode_mass: Array
    mass: float
    imbalance: float
    landmarks: int

    @property
    def negative_share(self) -> float:
        """Share of the absolute weight that is negative; a ratio has none."""
        return float(-np.minimum(self.weight, 0.0).sum() / np.abs(self.weight).sum())

    @property
    def normalised(self) -> Array:
        """`[k]` weights whose mass is `sum_t g^t`; as they are where that is endless."""
        return self.weight if math.isnan(self.mass) else self.weight / self.mass

    @property
    def n_eff(self) -> float:
        """Effective number of episodes, `(sum mass)^2 / sum mass^2`."""
        squares = float(np.square(self.episode_mass).sum())
        return float(self.episode_mass.sum()) ** 2 / squares if squares > 0 else 0.0


def marginal_ratio(
    dataset: Dataset,
    policy: Policy,
    *,
    estimand: Estimand,
    config: MWLConfig | None = None,
    generator: torch.Generator,
) -> MarginalRatio:
    """Weights of logged steps by minimax weight learning, and the value that they give.

    With a horizon the step in the episode is part of the state, and the episode ends there. What a cut left
    out changes how often the log visits later steps, and ratios are relative to that: the successor of a cut
    step counts like any other, and no value stands for the rest. A terminal is absorbing;
    the mass of the steps after it is added in closed form. The value is `sum_t g^t (sum w r) / (sum w mass)`;
    where the discounts sum to infinity, `(1/n) sum w r`.

    Args:
        dataset: logged episodes.
        policy: whose visits are wanted, stochastic or not.
        estimand: discount and horizon.
        config: of the fit.
        generator: landmarks, draws of actions, and the rows of a long log.

    Raises:
        EstimandError: see `MarginalSteps.prepare`.
    """
    config = config or MWLConfig()
    steps = MarginalSteps.prepare(
        dataset,
        policy,
        estimand,
        max_rows=config.max_rows,
        action_samples=config.action_samples,
        generator=generator,
    )
    basis = LandmarkBasis.fit(
        steps.now,
        count=config.landmarks,
        shape=config.kernel,
        is_discrete=steps.is_discrete,
        generator=generator,
        width=config.width,
    )
    return _weigh(steps, basis, Moments.gather(steps, basis), config.ridge)


def _weigh(steps: MarginalSteps, basis: LandmarkBasis, moments: Moments, ridge: float) -> MarginalRatio:
    total = steps.estimand.weight_sum
    # 1. Weights w = psi' alpha that match the moments of the first states, and what they make of rewards
    # and of masses.
    solution = solve_moments(moments, np.array([1.0, 0.0]), ridge)
    reward, mass = (float(part) for part in moments.payload.sum(0).T @ solution.alpha)
    value, share, combination = reward, math.nan, np.array([1.0, 0.0])
    if math.isfinite(total):
        # 2. Self-normalised, value = S (sum w r) / (sum w m) with S = sum_t g^t. Its linearisation has the
        # payload (r - (value / S) m) S / (sum w m), whose weighted sum is 0 at the solution.
        value, share = total * reward / mass, mass / total
        combination = np.array([1.0, -reward / mass]) * total / mass
    # 3. Weights and values of the other folds judge each episode.
    judges = [
        solve_moments(moments.without(index) if moments.folds > 1 else moments, combination, ridge)
        for index in range(moments.folds)
    ]
    weight, influence, masses = _spread_over_episodes(
        steps, basis, solution.alpha, judges=judges, fold=moments.fold, combination=combination
    )
    return MarginalRatio(
        steps.rows,
        weight,
        value=value,
        influence=influence,
        episode_mass=masses,
        mass=share,
        imbalance=float(np.linalg.norm(solution.error) / np.linalg.norm(moments.start.sum(0))),
        landmarks=len(basis.landmarks),
    )


def _spread_over_episodes(
    steps: MarginalSteps,
    basis: LandmarkBasis,
    alpha: Array,
    *,
    judges: list[MomentSolution],
    fold: NDArray[np.int64],
    combination: Array,
) -> tuple[Array, Array, Array]:
    """Weights of the rows, and for each episode its influence on the value and the mass that it carries.

    The influence is that of double reinforcement learning, `V(s_0) + sum_t w (x + g V(s') - Q)` (Kallus &
    Uehara 2020), with the w and Q that were fitted to the other folds: an episode's own fit would flatter it.
    """
    n, scale = steps.episodes, steps.episodes * steps.weight
    weight, influence, masses = np.zeros(len(steps.now)), np.zeros(n), np.zeros(n)
    alphas, thetas = (
        np.stack(column, 1) for column in ([j.alpha for j in judges], [j.theta for j in judges])
    )
    for rows, psi, phi in steps.features(basis):
        episode, payload = steps.episode[rows], steps.payload[rows]
        here = (np.arange(len(psi)), fold[episode])
        # w (x + g V(s') - Q(s, a)): with Q = psi' theta the temporal difference is x - phi' theta.
        residual = payload @ combination - (phi @ thetas)[here]
        influence += np.bincount(episode, weights=(psi @ alphas)[here] * residual, minlength=n)
        weight[rows] = psi @ alpha
        masses += np.bincount(episode, weights=weight[rows] * payload[:, 1], minlength=n)
    influence *= scale
    for rows, psi in steps.starts(basis):
        influence[rows] += (psi @ thetas)[np.arange(len(psi)), fold[rows]]  # V(s_0)
    return scale * weight, influence - influence.mean(), scale * masses
