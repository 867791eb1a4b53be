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
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.estimates import Estimand
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.data.dataset import Dataset
from mbrl.ope.log.landmarks import KernelShape, LandmarkBasis, Points
from mbrl.ope.log.layout import Array, pad_log
from mbrl.ope.log.policies import action_probabilities, draw_actions
from mbrl.ope.value.value_net import discounted_steps

_FOLDS = 5
_CHUNK = 8192
_ROUNDING = 1e-13  # singular values below this share of the largest say nothing


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

    With a horizon the step in the episode is part of the state, and the episode ends there. Without one
    time-outs cut nothing: the successor of a truncated step counts like any other. A terminal is absorbing;
    the mass of the steps after it is added in closed form. The value is `sum_t g^t (sum w r) / (sum w mass)`;
    where the discounts sum to infinity, `(1/n) sum w r`.

    Args:
        dataset: logged episodes.
        policy: whose visits are wanted, stochastic or not.
        estimand: discount and horizon.
        config: of the fit.
        generator: landmarks, draws of actions, and the rows of a long log.

    Raises:
        EstimandError: the horizon lies beyond a time-out.
    """
    config = config or MWLConfig()
    steps = _Steps.prepare(dataset, policy, estimand, config, generator)
    basis = LandmarkBasis.fit(
        steps.now,
        count=config.landmarks,
        shape=config.kernel,
        is_discrete=steps.is_discrete,
        generator=generator,
        width=config.width,
    )
    moments = _Moments.gather(steps, basis)
    return _weigh(steps, basis, moments, config.ridge)


class MarginalCache:
    """Fits the ratios of a policy once for all estimators that ask for them.

    Args:
        config: of the fits.
    """

    def __init__(self, config: MWLConfig | None = None) -> None:
        self._config = config or MWLConfig()
        self._known: dict[tuple[int, str, Estimand], tuple[Policy, MarginalRatio]] = {}

    def of(
        self, policy: Policy, dataset: Dataset, estimand: Estimand, generator: torch.Generator
    ) -> MarginalRatio:
        """The ratios of this very policy object on these episodes; fitted on the first call."""
        key = (id(policy), dataset.content_hash, estimand)
        if key not in self._known:  # the policy is kept, so its id stays taken
            ratio = marginal_ratio(
                dataset, policy, estimand=estimand, config=self._config, generator=generator
            )
            self._known[key] = (policy, ratio)
        return self._known[key][1]


def occupancy(transition: Array, start: Array, policy: Array, *, discount: float) -> Array:
    """Visits `d(s) pi(a|s)` of a table, `d = (I - g P_pi')^-1 start`; their ratio to the log's is exact.

    Args:
        transition: `[s, a, s']`; a last s' beyond the states is the end.
        start: `[s]`.
        policy: `[s, a]` probabilities.
        discount: g.

    Returns:
        `[s, a]`, of mass `1 / (1 - g)` less that of ended episodes.
    """
    states = len(start)
    step = (policy[:, :, None] * transition[:, :, :states]).sum(1)
    visits = np.asarray(np.linalg.solve(np.eye(states) - discount * step.T, start), dtype=np.float64)
    return visits[:, None] * policy


class _Chunk(NamedTuple):
    rows: slice
    psi: Array  # [k, r]
    phi: Array  # [k, r], psi(s, a) - g psi(s', pi) where the value goes on


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Logged steps as the kernel sees them."""

    now: Points
    following: list[Points]  # one for each draw of the policy's action
    first: list[Points]
    going_on: Array  # [k], g where the value of the successor counts, else 0
    payload: Array  # [k, 2]: reward, and mass of the step (with that of the absorbing state after it)
    episode: NDArray[np.int64]
    rows: NDArray[np.int64]
    returns: Array  # [n], of the episodes
    weight: float  # of a row in a mean over episodes: 1 / n, more where rows were left out
    estimand: Estimand
    is_discrete: bool

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        policy: Policy,
        estimand: Estimand,
        config: MWLConfig,
        generator: torch.Generator,
    ) -> "_Steps":
        arrays = pad_log(dataset.episodes, None, estimand=estimand)  # refuses a horizon beyond a time-out
        whole = dataset.transitions()
        rows = np.arange(len(whole))
        if estimand.horizon is not None:
            rows = rows[whole.step < estimand.horizon]
        share = 1.0
        if len(rows) > config.max_rows:
            share = config.max_rows / len(rows)
            kept = torch.randperm(len(rows), generator=generator)[: config.max_rows]
            rows = rows[np.sort(kept.numpy())]
        log = whole.select(rows)
        is_last = (
            np.zeros(len(log), np.bool_) if estimand.horizon is None else log.step + 1 == estimand.horizon
        )
        ends = log.terminated | is_last
        mass = np.where(log.terminated, _mass_of_end(log.step, estimand), 1.0)
        first = np.stack([episode.observations[0] for episode in dataset.episodes])
        start = np.zeros(len(first), dtype=np.int64)

        def chosen(obs: NDArray[np.float32], step: NDArray[np.int64]) -> list[Points]:
            actions = _choices(policy, torch.tensor(obs), config.action_samples, generator)
            return [Points(_state(obs, step, estimand), action) for action in actions]

        return cls(
            now=Points(_state(log.observation, log.step, estimand), log.action.astype(np.float64)),
            following=chosen(log.next_observation, log.step + 1),
            first=chosen(first, start),
            going_on=np.where(ends, 0.0, estimand.discount),
            payload=np.stack([log.reward.astype(np.float64), mass], 1),
            episode=log.episode,
            rows=rows,
            returns=arrays.returns(),
            weight=1.0 / (share * len(dataset)),
            estimand=estimand,
            is_discrete=isinstance(policy, DiscretePolicy),
        )

    def chunks(self, basis: LandmarkBasis) -> Iterator[_Chunk]:
        """Features of all steps, some at a time."""
        for start in range(0, len(self.now), _CHUNK):
            rows = slice(start, start + _CHUNK)
            psi = basis(self.now.select(rows))
            after = np.mean([basis(points.select(rows)) for points in self.following], 0)
            yield _Chunk(rows, psi, psi - self.going_on[rows, None] * after)

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return len(self.returns)

    def starts(self, basis: LandmarkBasis) -> Iterator[tuple[slice, Array]]:
        """Features of first states, `[k, r]`, some at a time."""
        for start in range(0, self.episodes, _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield rows, np.mean([basis(points.select(rows)) for points in self.first], 0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Sums over the episodes of each fold, as shares of means over all episodes."""

    matrix: Array  # [folds, r, r], psi phi'
    payload: Array  # [folds, r, 2], psi x
    start: Array  # [folds, r], psi of first states
    fold: NDArray[np.int64]  # [n], of each episode

    @classmethod
    def gather(cls, steps: _Steps, basis: LandmarkBasis) -> "_Moments":
        # by rank of return: folds are alike, and do not depend on the order of the episodes
        folds, rank = min(_FOLDS, steps.episodes), np.empty(steps.episodes, dtype=np.int64)
        rank[np.argsort(steps.returns, kind="stable")] = np.arange(steps.episodes)
        fold, size = rank % folds, basis.size
        matrix, payload = np.zeros((folds, size, size)), np.zeros((folds, size, 2))
        start = np.zeros((folds, size))
        for rows, psi, phi in steps.chunks(basis):
            of_row = fold[steps.episode[rows]]
            for index in range(folds):
                here = of_row == index
                matrix[index] += steps.weight * psi[here].T @ phi[here]
                payload[index] += steps.weight * psi[here].T @ steps.payload[rows][here]
        for rows, psi in steps.starts(basis):
            for index in range(folds):
                start[index] += psi[fold[rows] == index].sum(0) / steps.episodes
        return cls(matrix, payload, start, fold)

    def without(self, index: int) -> "_Moments":
        """All folds but one."""
        rest = np.arange(len(self.start)) != index
        return _Moments(self.matrix[rest], self.payload[rest], self.start[rest], self.fold)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _System:
    """`argmin_a |A' a - start|^2 + ridge s_max^2 |a|^2`, by the singular values s of A."""

    left: Array
    values: Array
    right: Array  # [r, r], columns

    @classmethod
    def factorise(cls, matrix: Array) -> "_System":
        left, values, right = np.linalg.svd(matrix)
        return cls(left, values, right.T)

    def weights(self, start: Array, ridge: float) -> Array:
        """a, coefficients of the weight function, `(A A' + l)^-1 A start`."""
        return self.left @ (self._shrunk(ridge) * (self.right.T @ start))

    def values_of(self, payload: Array, ridge: float) -> Array:
        """Coefficients of the value function, `A' (A A' + l)^-1 payload`."""
        return self.right @ (self._shrunk(ridge) * (self.left.T @ payload))

    def _shrunk(self, ridge: float) -> Array:
        """`s / (s^2 + ridge s_max^2)`, 0 where s is rounding."""
        kept = self.values > _ROUNDING * self.values[0]
        squares = np.where(kept, np.square(self.values) + ridge * self.values[0] ** 2, 1.0)
        return np.where(kept, self.values / squares, 0.0)


class _Solution(NamedTuple):
    alpha: Array  # [r], of the weight function
    theta: Array  # [r], of the value function of the combined payload
    error: Array  # [r], moments of the first states that are left unmatched


def _solve(moments: _Moments, combination: Array, ridge: float) -> _Solution:
    matrix, start = moments.matrix.sum(0), moments.start.sum(0)
    system = _System.factorise(matrix)
    alpha = system.weights(start, ridge)
    theta = system.values_of(moments.payload.sum(0) @ combination, ridge)
    return _Solution(alpha, theta, start - matrix.T @ alpha)


def _weigh(steps: _Steps, basis: LandmarkBasis, moments: _Moments, ridge: float) -> MarginalRatio:
    total = steps.estimand.weight_sum
    solution = _solve(moments, np.array([1.0, 0.0]), ridge)
    reward, mass = (float(part) for part in moments.payload.sum(0).T @ solution.alpha)
    value, share, combination = reward, math.nan, np.array([1.0, 0.0])
    if math.isfinite(total):
        value, share = total * reward / mass, mass / total
        combination = np.array([1.0, -reward / mass]) * total / mass  # its weighted sum is 0 at the solution
    folds = len(moments.start)
    judges = [
        _solve(moments.without(index) if folds > 1 else moments, combination, ridge) for index in range(folds)
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
    steps: _Steps,
    basis: LandmarkBasis,
    alpha: Array,
    *,
    judges: list[_Solution],
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
    for rows, psi, phi in steps.chunks(basis):
        episode, payload = steps.episode[rows], steps.payload[rows]
        here = (np.arange(len(psi)), fold[episode])
        residual = payload @ combination - (phi @ thetas)[here]
        influence += np.bincount(episode, weights=(psi @ alphas)[here] * residual, minlength=n)
        weight[rows] = psi @ alpha
        masses += np.bincount(episode, weights=weight[rows] * payload[:, 1], minlength=n)
    influence *= scale
    for rows, psi in steps.starts(basis):
        influence[rows] += (psi @ thetas)[np.arange(len(psi)), fold[rows]]
    return scale * weight, influence - influence.mean(), scale * masses


def _state(obs: NDArray[np.float32], step: NDArray[np.int64], estimand: Estimand) -> Array:
    """States; with a horizon the step is a part of them."""
    columns = [obs] if estimand.horizon is None else [obs, step[:, None]]
    return np.concatenate(columns, 1, dtype=np.float64)


def _mass_of_end(step: NDArray[np.int64], estimand: Estimand) -> Array:
    """`sum_{k >= 0} g^k` over a step and the absorbing steps after it, to the horizon; 1 where endless."""
    if math.isinf(estimand.weight_sum):
        return np.ones(len(step))
    if estimand.horizon is None:
        return np.full(len(step), estimand.weight_sum)
    return discounted_steps(torch.from_numpy(estimand.horizon - step), estimand.discount).numpy()


def _choices(policy: Policy, obs: Tensor, count: int, generator: torch.Generator) -> Array:
    """`[j, n, a]`, draws of the policy's actions; for finitely many actions their probabilities, j = 1."""
    if isinstance(policy, DiscretePolicy):
        return action_probabilities(policy, obs)[None].double().numpy()
    return draw_actions(policy, obs, count=count, generator=generator).double().numpy()
