"""Tabular MDPs with known values, and logs of them: the exact oracles of off-policy evaluation."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mbrl.core.estimates import Estimand
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.off_policy.log.layout import OPEArrays

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class MDP:
    """`transition[s, a, s']`, the last s' being the end; `reward[s, a]`; `start[s]`."""

    transition: Array
    reward: Array
    start: Array

    @property
    def states(self) -> int:
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        return self.reward.shape[1]

    def q_finite(self, policy: Array, discount: float, horizon: int) -> Array:
        """`[horizon, s, a]` by backward induction."""
        q = np.zeros((horizon + 1, self.states, self.actions))
        for t in range(horizon - 1, -1, -1):
            value = (policy * q[t + 1]).sum(1)
            q[t] = self.reward + discount * self.transition[:, :, :-1] @ value
        return q[:-1]

    def q_discounted(self, policy: Array, discount: float) -> Array:
        """`[s, a]` by the linear solve `V = (I - g P_pi)^-1 r_pi`."""
        step = np.einsum("sa,sat->st", policy, self.transition[:, :, :-1])
        reward = (policy * self.reward).sum(1)
        value = np.linalg.solve(np.eye(self.states) - discount * step, reward)
        return self.reward + discount * self.transition[:, :, :-1] @ value

    def value(self, policy: Array, estimand: Estimand) -> float:
        """The estimand, exactly."""
        if estimand.horizon is None:
            q = self.q_discounted(policy, estimand.discount)
        else:
            q = self.q_finite(policy, estimand.discount, estimand.horizon)[0]
        return float(self.start @ (policy * q).sum(1)) * estimand.scale


@dataclasses.dataclass(frozen=True)
class Log:
    """`[n, T]` padded: states (and the state after the last step), actions, rewards; lengths and flags."""

    state: NDArray[np.int64]  # [n, T + 1]
    action: NDArray[np.int64]
    reward: Array
    length: NDArray[np.int64]
    terminated: NDArray[np.bool_]

    def alive(self) -> NDArray[np.bool_]:
        return np.arange(self.action.shape[1]) < self.length[:, None]


def random_mdp(seed: int, *, states: int = 4, actions: int = 3, end: float = 0.15) -> MDP:
    """Dense random transitions; every action ends an episode with its own probability, on average `end`."""
    rng = np.random.default_rng(seed)
    inside = rng.dirichlet(np.ones(states), size=(states, actions))
    ends = rng.uniform(0, 2 * end, size=(states, actions, 1))
    transition = np.concatenate([inside * (1 - ends), ends], 2)
    return MDP(transition, rng.normal(0.5, 1.0, (states, actions)), rng.dirichlet(np.ones(states)))


def occupancy(transition: Array, start: Array, policy: Array, *, discount: float) -> Array:
    """Visits `[s, a]` of a table, `d(s) pi(a|s)` with `d = (I - g P_pi')^-1 start`.

    Their ratio to the visits of a log is exact. A last s' beyond the states is the end; the mass is
    `1 / (1 - g)` less that of ended episodes.
    """
    states = len(start)
    step = (policy[:, :, None] * transition[:, :, :states]).sum(1)
    visits = np.linalg.solve(np.eye(states) - discount * step.T, start)
    return visits[:, None] * policy


def fall_mdp(risk: float = 0.5) -> MDP:
    """One state, reward 1 a step: action 0 is safe, action 1 ends the episode with probability `risk`."""
    transition = np.array([[[1.0, 0.0], [1.0 - risk, risk]]])
    return MDP(transition, np.ones((1, 2)), np.ones(1))


def random_policy(seed: int, mdp: MDP, *, sharpness: float = 1.0) -> Array:
    """`[s, a]` softmax of normal logits."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(mdp.states, mdp.actions))
    weights = np.exp(logits)
    return weights / weights.sum(1, keepdims=True)


def simulate(mdp: MDP, policy: Array, n: int, steps: int, rng: np.random.Generator) -> Log:
    """n episodes, each until its end or for `steps` steps."""
    state = np.zeros((n, steps + 1), dtype=np.int64)
    action, reward = np.zeros((n, steps), dtype=np.int64), np.zeros((n, steps))
    state[:, 0] = _draw(np.broadcast_to(mdp.start, (n, mdp.states)), rng)
    alive, length = np.ones(n, dtype=bool), np.zeros(n, dtype=np.int64)
    for t in range(steps):
        action[:, t] = _draw(policy[state[:, t]], rng)
        reward[:, t] = np.where(alive, mdp.reward[state[:, t], action[:, t]], 0.0)
        following = _draw(mdp.transition[state[:, t], action[:, t]], rng)
        length += alive
        alive = alive & (following < mdp.states)
        state[:, t + 1] = np.where(following < mdp.states, following, 0)
    return Log(state, action, reward, length, ~alive)


def arrays_of(
    log: Log,
    evaluated: Array,
    behaviour: Array,
    estimand: Estimand,
    q: Array | None = None,
) -> OPEArrays:
    """The log for the estimators; `q`, `[s, a]` or `[T, s, a]`, gives Q and V of the evaluated policy."""
    n, steps = log.action.shape
    alive = log.alive()
    now = log.state[:, :-1]
    with np.errstate(divide="ignore"):
        log_ratio = np.where(alive, np.log(evaluated[now, log.action] / behaviour[now, log.action]), 0.0)
    truncated = ~log.terminated & (estimand.horizon is None)
    action_value, value = np.zeros((n, steps)), np.zeros((n, steps + 1))
    if q is not None:
        table = np.broadcast_to(q, (steps, *q.shape[-2:]))
        action_value = np.where(alive, table[np.arange(steps), now, log.action], 0.0)
        means = (table * evaluated).sum(-1)
        value[:, :-1] = np.where(alive, means[np.arange(steps), now], 0.0)
        last = (q[-1] if q.ndim == 3 else q) * evaluated
        end = last.sum(1)[log.state[np.arange(n), log.length]]
        value[np.arange(n), log.length] = np.where(truncated, end, 0.0)
    return OPEArrays(
        log_ratio=log_ratio,
        reward=log.reward,
        action_value=action_value,
        value=value,
        length=log.length,
        terminated=log.terminated,
        truncated=truncated,
        estimand=estimand,
        has_values=q is not None,
    )


def episodes_of(log: Log, mdp: MDP, behaviour: Array) -> list[Episode]:
    """The log as episodes with one-hot observations and actions and the behaviour's log-probabilities."""
    see, act = np.eye(mdp.states, dtype=np.float32), np.eye(mdp.actions, dtype=np.float32)
    episodes: list[Episode] = []
    for i, steps in enumerate(log.length):
        state, action = log.state[i, : steps + 1], log.action[i, :steps]
        episodes.append(
            Episode(
                observations=see[state],
                actions=act[action],
                rewards=log.reward[i, :steps].astype(np.float32),
                terminated=bool(log.terminated[i]),
                truncated=not log.terminated[i],
                behaviour_log_prob=np.log(behaviour[state[:-1], action]).astype(np.float32),
            )
        )
    return episodes


def dataset_of(episodes: Sequence[Episode], mdp: MDP) -> Dataset:
    """Episodes as a dataset of one-hot actions in the unit box."""
    space = SpaceSpec(mdp.states, mdp.actions, (0.0,) * mdp.actions, (1.0,) * mdp.actions)
    return Dataset(tuple(episodes), space, DatasetInfo(name="tabular"))


def _draw(probabilities: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    uniform = rng.random((probabilities.shape[0], 1))
    return np.minimum((uniform > probabilities.cumsum(1)).sum(1), probabilities.shape[1] - 1)
