"""The value of a policy in tables of finitely many states: solved, not rolled out.

`V_h = r_pi + discount P_pi V_{h-1}` from `V_0 = 0` for a horizon of h steps, and
`V = (I - discount P_pi)^-1 r_pi` without one, for every member of every table. What is left is what the log
leaves open: there are no draws whose noise would have to be averaged away.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import DiscretePolicy, DynamicsModel, Policy
from mbrl.dynamics.tabular.model import Table, TabularDynamics
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import action_probabilities
from mbrl.off_policy.value.evaluation_model import EvaluationModel, ModelPanel
from mbrl.off_policy.value.model_estimate import ModelEstimate


def tables_of(model: DynamicsModel) -> tuple[TabularDynamics, ...] | None:
    """The tables that a model consists of; None where it is anything else."""
    parts = model.models if isinstance(model, ModelPanel) else (model,)
    tables = tuple(part for part in parts if isinstance(part, TabularDynamics))
    return tables if len(tables) == len(parts) else None


@torch.no_grad()
def exact_model_value(
    model: EvaluationModel,
    tables: Sequence[TabularDynamics],
    policy: Policy,
    starts: Float[Tensor, "n obs_dim"],
    *,
    estimand: Estimand,
    steps: int,
) -> ModelEstimate:
    """The value of each start in every member, and how far the policy leaves what the members agree on.

    Args:
        model: threshold and measure of their disagreement.
        tables: what it consists of (`tables_of`).
        policy: one over finitely many actions by its probabilities, any other by its evaluation action.
        starts: `[n, obs_dim]`, first states, raw units.
        estimand: discount and horizon.
        steps: of the visits that disagreement is averaged over, where the estimand has no horizon.

    Returns:
        Values `[m, n]`, plain sums; `rollouts` is 0.
    """
    values: list[Array] = []
    ended: list[Array] = []
    alive, disputed, exceeded = np.zeros((3, estimand.horizon or steps))
    for part in tables:
        codes = part.get_buffer("codes")
        chances = state_probabilities(policy, codes, part.table.allowed)
        first = part.state(starts).numpy()
        # The panel's own measure: members of all tables, at the states of this one.
        actions = chances.shape[1]
        pairs = codes.repeat_interleave(actions, 0), torch.eye(actions).repeat(len(codes), 1)
        uncertainty = model.measure(model.dynamics.predict(*pairs)).double().numpy().reshape(chances.shape)
        weights = (chances * uncertainty).sum(1), (chances * (uncertainty > model.threshold)).sum(1)
        for member in range(part.ensemble_size):
            chain = Chain.of(part.table, member, chances)
            value, end = chain.values(estimand)
            values.append(value[first])
            ended.append(end[first])
            visits = chain.visits(np.bincount(first, minlength=len(codes)) / len(first), len(alive))
            alive += visits.sum(1)
            disputed += visits @ weights[0]
            exceeded += visits @ weights[1]
    with np.errstate(invalid="ignore"):
        disagreement = disputed / alive
    return ModelEstimate(
        values=np.stack(values),
        tails=np.zeros((len(values), len(starts))),
        terminated=np.stack(ended),
        disagreement=disagreement,
        clip_rate=np.where(alive > 0, 0.0, np.nan),
        stopped=np.zeros(len(alive), dtype=np.int64),
        alive_share=alive / len(values),
        disagreement_share=float(exceeded.sum() / alive.sum()),
        rollouts=0,
        tail_bound=0.0,
        estimand=estimand,
    )


def state_probabilities(
    policy: Policy, codes: Float[Tensor, "S obs_dim"], allowed: Bool[Tensor, "S A"]
) -> Array:
    """`[S, A]` float64, what the policy does in every state, among the choices that are allowed there.

    Raises:
        DataError: a policy without probabilities gives something else than one choice for each state.
    """
    if not isinstance(policy, DiscretePolicy):
        return _one_hot(policy.act(codes)).double().numpy()
    found = action_probabilities(policy, codes, None if bool(allowed.all()) else allowed).double().numpy()
    return found / found.sum(1, keepdims=True)


def _one_hot(actions: Float[Tensor, "S A"]) -> Float[Tensor, "S A"]:
    is_choice = ((actions == 0) | (actions == 1)).all(1) & (actions.sum(1) == 1)
    if bool(is_choice.all()):
        return actions
    row = int((~is_choice).nonzero()[0, 0])
    raise DataError(
        f"{[round(float(value), 3) for value in actions[row][:5]]} is no choice",
        field="action of the policy",
        row=row,
        remedy="Return one-hot vectors over the choices of the log.",
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A policy in one member of a table: a Markov chain with rewards, K pairs of successive states.

    Attributes:
        origin: `[K]` int64 state before.
        successor: `[K]` int64 state after.
        going: `[K]` chance of going on to it; what is missing to 1 ends the task.
        reward: `[S]` mean reward of a step.
        end: `[S]` chance that the task ends with it.
    """

    origin: NDArray[np.int64]
    successor: NDArray[np.int64]
    going: Array
    reward: Array
    end: Array

    @classmethod
    def of(cls, table: Table, member: int, chances: Array) -> "Chain":
        """The chain of member `member` under action probabilities `[S, A]`."""
        origin, successor, size = table.origin.numpy(), table.successor.numpy(), len(table.codes)
        weight: Array = chances[origin].T * table.chance[member].double().numpy()  # [A, K]
        ends, gain = table.ends[member].double().numpy(), table.reward[member].double().numpy()
        going, end = (weight * (1.0 - ends)).sum(0), (weight * ends).sum(0)
        reward = _collected(origin, (weight * gain).sum(0), size)
        return cls(origin, successor, going, reward, _collected(origin, end, size))

    def back(self, value: Array) -> Array:
        """`[S]`, `sum_s' P(s' | s) value(s')`."""
        return _collected(self.origin, self.going * value[self.successor], len(value))

    def values(self, estimand: Estimand) -> tuple[Array, Array]:
        """`[S]` each: plain discounted sums, and the chance that the task ends within the horizon."""
        if estimand.horizon is None:
            return self._solved(estimand.discount, self.reward), self._solved(1.0, self.end)
        value, end = np.zeros((2, len(self.reward)))
        for _ in range(estimand.horizon):
            value = self.reward + estimand.discount * self.back(value)
            end = self.end + self.back(end)
        return value, end

    def visits(self, start: Array, steps: int) -> Array:
        """`[steps, S]`, chance of being in each state and alive, step by step."""
        out = np.zeros((steps, len(start)))
        for t in range(steps):
            out[t] = start
            start = _collected(self.successor, self.going * start[self.origin], len(start))
        return out

    def matrix(self) -> Array:
        """`[S, S]`, chances of going on."""
        size = len(self.reward)
        return _collected(self.origin * size + self.successor, self.going, size**2).reshape(size, size)

    def _solved(self, discount: float, gain: Array) -> Array:
        system = np.eye(len(gain)) - discount * self.matrix()
        # Least squares where the chain may never end: such states are worth what they repeat, if anything.
        if discount == 1.0:
            return np.linalg.lstsq(system, gain, rcond=None)[0].astype(np.float64)
        return np.linalg.solve(system, gain).astype(np.float64)


def _collected(place: NDArray[np.int64], values: Array, size: int) -> Array:
    """`[size]`, sums of the values that go to each place."""
    return np.bincount(place, values, size).astype(np.float64)
