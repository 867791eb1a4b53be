"""Logged steps as minimax weight learning sees them: points with successors, first states, what they pay."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.transitions import state_masks
from mbrl.off_policy.log.censoring import why_not_known
from mbrl.off_policy.log.landmarks import LandmarkBasis, Points
from mbrl.off_policy.log.layout import Array, pad_log
from mbrl.off_policy.log.policies import action_probabilities, draw_actions
from mbrl.off_policy.value.value_net import discounted_steps

_CHUNK: Final = 8192  # rows whose features are held at once


class StepFeatures(NamedTuple):
    """Features of some steps.

    Attributes:
        rows: which.
        psi: `[k, r]`, `psi(s, a)`.
        phi: `[k, r]`, `psi(s, a) - g psi(s', pi)` where the value goes on, else `psi(s, a)`.
    """

    rows: slice
    psi: Array
    phi: Array


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MarginalSteps:
    """k steps of n episodes.

    Attributes:
        now: (s, a); with a horizon the step is a part of the state.
        following: (s', a'), one for each draw a' of the policy.
        first: (s_0, a_0), likewise.
        going_on: `[k]`, g where the value of the successor counts, else 0.
        payload: `[k, 2]`, the reward, and the mass of the step with that of an absorbing state after it.
        episode: `[k]`, of each step.
        rows: `[k]`, where they lie in the log.
        returns: `[n]`, of what was logged.
        weight: of a step in a mean over episodes, 1 / n; more where steps were left out.
        estimand: discount and horizon.
        is_discrete: actions are one-hot vectors or probabilities.
    """

    now: Points
    following: list[Points]
    first: list[Points]
    going_on: Array
    payload: Array
    episode: NDArray[np.int64]
    rows: NDArray[np.int64]
    returns: Array
    weight: float
    estimand: Estimand
    is_discrete: bool

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        policy: Policy,
        estimand: Estimand,
        *,
        max_rows: int,
        action_samples: int,
        generator: torch.Generator,
    ) -> "MarginalSteps":
        """The steps of a log, with what the policy does at their ends.

        Args:
            dataset: logged episodes.
            policy: whose visits are wanted.
            estimand: discount and horizon.
            max_rows: steps that are used; of more a random part.
            action_samples: draws of a stochastic policy over continuous actions at each state.
            generator: of the part and of the draws.

        Raises:
            EstimandError: the log shows none of the late steps that the horizon includes.

        """
        arrays, whole = pad_log(dataset.episodes, None, estimand=estimand), dataset.transitions()
        unseen = why_not_known(arrays)
        if estimand.horizon is not None and unseen is not None:
            raise EstimandError(f"{unseen}: there are no later steps that weights could be put on.")
        rows, share = _choose_rows(whole, estimand, max_rows, generator)
        log = whole.select(rows)
        first = np.stack([episode.observations[0] for episode in dataset.episodes])

        masks = state_masks(dataset.episodes, dataset.spec.act_dim)
        first_mask = None if masks is None else np.stack([mask[0] for mask in masks])

        def chosen(
            obs: NDArray[np.float32], step: NDArray[np.int64], mask: NDArray[np.bool_] | None
        ) -> list[Points]:
            # Several draws: E_pi psi(s', a') is an integral over actions,
            # and one draw of it would add noise to moments.
            actions = _choices(policy, torch.tensor(obs), action_samples, generator, mask)
            return [Points(_state(obs, step, estimand), action) for action in actions]

        going_on, mass = _ends(log, estimand)
        return cls(
            now=Points(_state(log.observation, log.step, estimand), log.action.astype(np.float64)),
            following=chosen(log.next_observation, log.step + 1, log.next_action_mask),
            first=chosen(first, np.zeros(len(first), dtype=np.int64), first_mask),
            going_on=going_on,
            payload=np.stack([log.reward.astype(np.float64), mass], 1),
            episode=log.episode,
            rows=rows,
            returns=arrays.returns(),
            # Steps that were left out are made up for by those that stand for them.
            weight=1.0 / (share * len(dataset)),
            estimand=estimand,
            is_discrete=isinstance(policy, DiscretePolicy),
        )

    @property
    def episodes(self) -> int:
        """N."""
        return len(self.returns)

    def features(self, basis: LandmarkBasis) -> Iterator[StepFeatures]:
        """Features of all steps, some at a time."""
        for rows in _slices(len(self.now)):
            psi = basis(self.now.select(rows))
            # Mean over the policy's draws at s'.
            after = np.mean([basis(points.select(rows)) for points in self.following], 0)
            yield StepFeatures(rows, psi, psi - self.going_on[rows, None] * after)

    def starts(self, basis: LandmarkBasis) -> Iterator[tuple[slice, Array]]:
        """Features of first states, `[k, r]`, some at a time."""
        for rows in _slices(self.episodes):
            yield rows, np.mean([basis(points.select(rows)) for points in self.first], 0)


def _choose_rows(
    log: Transitions, estimand: Estimand, max_rows: int, generator: torch.Generator
) -> tuple[NDArray[np.int64], float]:
    """Steps before the horizon, of many a random part, and what share that part is."""
    rows = np.arange(len(log))
    if estimand.horizon is not None:
        rows = rows[log.step < estimand.horizon]
    if len(rows) <= max_rows:
        return rows, 1.0
    kept = torch.randperm(len(rows), generator=generator)[:max_rows]
    # In the order of the log, so that rows of an episode stay together.
    return rows[np.sort(kept.numpy())], max_rows / len(rows)


def _ends(log: Transitions, estimand: Estimand) -> tuple[Array, Array]:
    """`[k]` discount of the successor's value, and mass of each step.

    A cut takes nothing away: the successor of the last logged step counts like any other. A terminal is
    absorbing: no successor counts, and the mass of the steps after it, `sum_j g^j`, is added in closed form.
    """
    # With a horizon the last step has no successor, like a terminal, but also no mass behind it.
    is_last = np.zeros(len(log), np.bool_) if estimand.horizon is None else log.step + 1 == estimand.horizon
    going_on = np.where(log.terminated | is_last, 0.0, estimand.discount)
    return going_on, np.where(log.terminated, _mass_of_end(log.step, estimand), 1.0)


def _mass_of_end(step: NDArray[np.int64], estimand: Estimand) -> Array:
    """`sum_{k >= 0} g^k` over a step and the absorbing steps after it, to the horizon; 1 where endless."""
    # Undiscounted and endless: the mass of an absorbing state has no sum.
    if math.isinf(estimand.weight_sum):
        return np.ones(len(step))
    if estimand.horizon is None:
        return np.full(len(step), estimand.weight_sum)
    return discounted_steps(torch.from_numpy(estimand.horizon - step), estimand.discount).numpy()


def _state(obs: NDArray[np.float32], step: NDArray[np.int64], estimand: Estimand) -> Array:
    """States; with a horizon the step is a part of them."""
    # With a horizon what is still to come depends on the step, so that states alone are not Markov.
    columns = [obs] if estimand.horizon is None else [obs, step[:, None]]
    return np.concatenate(columns, 1, dtype=np.float64)


def _choices(
    policy: Policy, obs: Tensor, count: int, generator: torch.Generator, mask: NDArray[np.bool_] | None
) -> Array:
    """`[j, n, a]`, draws of the policy's actions; for finitely many actions their probabilities, j = 1."""
    if isinstance(policy, DiscretePolicy):
        # Finitely many actions are integrated exactly: the features are linear in their probabilities.
        allowed = None if mask is None else torch.tensor(mask)
        return action_probabilities(policy, obs, allowed)[None].double().numpy()
    return draw_actions(policy, obs, count=count, generator=generator).double().numpy()


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
