"""Dynamic programming in the mean of a table's members: the behaviour, and policies that improve on it.

Three answers to the question what a log permits: act best as if the mean were true (`best_policy`), the same
with a price on what the members dispute (`best_policy` with costs: MOPO in a table), or change only what was
tried often enough and act as the log did elsewhere (`spibb_policy`, Laroche et al. 2019, algorithm 1).
"""

import dataclasses
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.dynamics.tabular.model import Table, TabularDynamics
from mbrl.planning.tabular.policy import TabularPolicy

Array = NDArray[np.float64]

_TOLERANCE: Final = 1e-9
_MOST_SWEEPS: Final = 20_000
_MOST_IMPROVEMENTS: Final = 200


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Mean:
    """The mean of the members, by pairs of a state and a successor."""

    going: Array  # [A, K], chance of going on to the successor
    reward: Array  # [S, A]
    start: NDArray[np.int64]
    successor: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table) -> "_Mean":
        start = table.start.numpy()
        going = (table.chance.double() * (1.0 - table.ends.double())).mean(0).numpy()
        reward = _by_state((table.chance.double() * table.reward.double()).mean(0).numpy(), start)
        return cls(going, reward, start, table.successor.numpy())

    def action_values(self, value: Array, discount: float) -> Array:
        """`[S, A]`, `r + discount sum_s' P(s' | s, a) V(s')`."""
        return self.reward + discount * _by_state(self.going * value[self.successor], self.start)


def behaviour_policy(model: TabularDynamics, *, prior: float = 0.0) -> TabularPolicy:
    """What the log did: counted shares of the choices in each state, uniform where it never was.

    Args:
        model: its counts are read.
        prior: steps of the log's average choice that are added to each state, >= 0; allowed ones alone.
    """
    visits, allowed = model.table.visits.double(), model.table.allowed.double()
    average = allowed * visits.sum(0) / visits.sum().clamp_min(1.0)
    shared = visits + prior * average / average.sum(1, keepdim=True).clamp_min(1e-300)
    total = shared.sum(1, keepdim=True)
    uniform = allowed / allowed.sum(1, keepdim=True)
    return TabularPolicy(model, torch.where(total > 0, shared / total.clamp_min(1e-300), uniform))


def best_policy(
    model: TabularDynamics,
    *,
    discount: float,
    cost: Array | None = None,
) -> TabularPolicy:
    """The greedy policy of value iteration, among the choices that the table allows.

    Args:
        model: the table.
        discount: in [0, 1]; 1 where every policy surely ends.
        cost: `[S, A]` taken off the rewards, reward units: a coefficient times an uncertainty.

    Raises:
        ConfigError: the values do not converge.
    """
    mean = _Mean.of(model.table)
    shape = mean.reward.shape
    may = model.table.allowed.numpy()
    price = np.zeros(shape) if cost is None else cost
    value = np.zeros(shape[0])
    for _ in range(_MOST_SWEEPS):
        gain = np.where(may, mean.action_values(value, discount) - price, -np.inf)
        after = gain.max(1)
        if np.abs(after - value).max() < _TOLERANCE:
            return TabularPolicy(model, torch.from_numpy(np.eye(shape[1])[gain.argmax(1)]))
        value = after
    raise ConfigError(
        f"The values still move after {_MOST_SWEEPS:,} sweeps: some policy never ends. Remedy: a discount "
        "below 1."
    )


def spibb_policy(
    model: TabularDynamics, behaviour: TabularPolicy, *, least_count: float, discount: float
) -> TabularPolicy:
    """Policy iteration that leaves every pair of state and action alone that was tried too rarely.

    Args:
        model: the table.
        behaviour: what the log did; its probabilities of rare pairs are kept.
        least_count: logged steps from which on a pair may be changed.
        discount: in [0, 1]; 1 where every policy surely ends.

    Raises:
        ConfigError: the values do not converge.
    """
    mean, base = _Mean.of(model.table), behaviour.table.numpy()
    often = model.table.visits.numpy() >= least_count
    kept, free = np.where(often, 0.0, base), np.where(often, base, 0.0).sum(1)
    policy = base
    for _ in range(_MOST_IMPROVEMENTS):
        gain = mean.action_values(_evaluate(mean, policy, discount), discount)
        best = np.eye(policy.shape[1])[np.where(often, gain, -np.inf).argmax(1)]
        improved = kept + free[:, None] * best
        if np.array_equal(improved, policy):
            break
        policy = improved
    return TabularPolicy(model, torch.from_numpy(policy))


def _evaluate(mean: _Mean, policy: Array, discount: float) -> Array:
    """`[S]`, the value of a policy in the mean model.

    Raises:
        ConfigError: it does not converge.
    """
    value = np.zeros(len(policy))
    for _ in range(_MOST_SWEEPS):
        after = (policy * mean.action_values(value, discount)).sum(1)
        if np.abs(after - value).max() < _TOLERANCE:
            return after
        value = after
    raise ConfigError("The values do not converge: the policy never ends. Remedy: a discount below 1.")


def _by_state(values: Array, start: NDArray[np.int64]) -> Array:
    """`[A, K]` to `[S, A]`: sums over the successors of each state."""
    out = np.zeros((len(start) - 1, len(values)))
    sizes = np.diff(start)
    out[sizes > 0] = np.add.reduceat(values, start[:-1][sizes > 0], axis=1).T
    return out
