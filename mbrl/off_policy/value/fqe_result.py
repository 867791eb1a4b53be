"""What a fit of values found: the functions, whether they stood still, and the estimate that they give."""

import dataclasses
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.data.dataset import Dataset
from mbrl.data.transitions import state_masks
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import action_probabilities, draw_actions
from mbrl.off_policy.statistics.ensembles import ensemble_estimate
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.off_policy.value.value_net import QEnsemble

MAX_DRIFT: Final = 0.02
"""Relative movement of the estimate over the last fifth of the updates that counts as standing still."""

MAX_CLIP_SHARE: Final = 0.01
"""Share of clipped targets above which the logged rewards contradict the fit."""

LAST_PART: Final = 0.2
"""Share of the updates that drift and clipped targets are looked at over."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FQEResult:
    """What a fit found.

    Attributes:
        values: the action-value functions.
        policy: whose they are.
        initial: `[k, n]`, each member's value of each episode's first state.
        history: `[looks]`, the estimate in the course of the fit, equally spaced.
        drift: movement over the last fifth, relative to the estimate or the spread of logged returns.
        clip_share: share of the targets of the last fifth that were clipped.
        config: of the fit.
        estimand: what the values are of.
        fold: `[n]`, fold of every episode, member m having seen none of the fold `m % F`; None without.
    """

    values: QEnsemble
    policy: Policy
    initial: Array
    history: Array
    drift: float
    clip_share: float
    config: FQEConfig
    estimand: Estimand
    fold: NDArray[np.int64] | None = None

    @property
    def converged(self) -> bool:
        """Whether the estimate stood still."""
        return self.drift < MAX_DRIFT

    @property
    def least_updates(self) -> int:
        """See `FQEConfig.least_updates`."""
        return self.config.least_updates(self.estimand)

    def estimate(self) -> Estimate:
        """The ensemble's estimate; flagged where it moved, was clipped, or regressed to something else."""
        estimate = ensemble_estimate("fqe", "value", self.initial, self.estimand)
        estimate = dataclasses.replace(
            estimate,
            details={
                **estimate.details,
                "drift": self.drift,
                "clip_share": self.clip_share,
                "history": self.history,
            },
        )
        if not math.isfinite(estimate.point):
            return estimate
        if self.clip_share > MAX_CLIP_SHARE:
            estimate = estimate.flagged(Flag.TARGETS_CLIPPED)
        if not self.converged:
            estimate = estimate.invalidated(
                f"it still moved by {self.drift:.1%} at the end", Flag.NOT_CONVERGED
            )
        if self.config.updates < self.least_updates:
            reason = (
                f"{self.config.updates} updates cannot carry values over the horizon, which takes about "
                f"{self.least_updates}"
            )
            estimate = estimate.invalidated(reason, Flag.TOO_FEW_UPDATES)
        if self.config.loss == "huber":
            estimate = estimate.invalidated("a Huber loss does not estimate a mean", Flag.HUBER)
        return estimate

    def members_on_log(self, dataset: Dataset, *, generator: torch.Generator) -> tuple[Array, Array]:
        """Each member's Q of every logged step `[k, N]` and V of every logged state `[k, N + n]`.

        Args:
            dataset: episodes of the same task.
            generator: draws the actions of a stochastic policy.
        """
        obs = torch.from_numpy(np.concatenate([e.observations for e in dataset.episodes]))
        rows, clocks = dataset.transitions(), [None, None]
        if self.estimand.horizon is not None:
            # Q and V of step t are those of H - t steps to go; an episode has one state more than steps.
            age = np.concatenate([np.arange(len(e) + 1) for e in dataset.episodes])
            clocks = [
                torch.from_numpy(np.maximum(self.estimand.horizon - steps, 0)) for steps in (rows.step, age)
            ]
        action_value = self.values.action_value(
            torch.tensor(rows.observation), torch.tensor(rows.action), clocks[0]
        )
        masks = state_masks(dataset.episodes, dataset.spec.act_dim)
        mask = None if masks is None else torch.from_numpy(np.concatenate(masks))
        value = self.values.value(obs, self.choices(obs, generator, mask), clocks[1])
        return action_value.numpy(), value.numpy()

    def mean_on_log(self, action_value: Array, value: Array, dataset: Dataset) -> tuple[Array, Array]:
        """Q of every logged step `[N]` and V of every logged state `[N + n]`, means over members.

        After a fit over folds an episode's values are those of the members that have not seen it.

        Args:
            action_value: `[k, N]`, see `members_on_log`.
            value: `[k, N + n]`, likewise.
            dataset: the episodes; after a fit over folds the very ones that were fitted.

        Raises:
            ValueError: a fit over folds of other episodes.
        """
        lengths = dataset.episode_lengths
        return self._mean(action_value, lengths), self._mean(value, lengths + 1)

    def _mean(self, values: Array, lengths: NDArray[np.int64]) -> Array:
        """Over the members that have not seen a row's episode; over all without folds."""
        if self.fold is None:
            return values.mean(0)
        if len(lengths) != len(self.fold):
            raise ValueError(f"the fit knows {len(self.fold)} episodes, not {len(lengths)}")
        # Member m has not seen the fold m % F, so it is a judge of that fold alone.
        fold = np.repeat(self.fold, lengths)
        member = np.arange(len(values))[:, None] % (int(self.fold.max()) + 1)
        return values.mean(0, where=member == fold)

    def choices(self, obs: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """Draws, or probabilities, of the policy's actions for `QEnsemble.value`."""
        return policy_choices(self.policy, obs, self.config, generator, mask)


def policy_choices(
    policy: Policy, obs: Tensor, config: FQEConfig, generator: torch.Generator, mask: Tensor | None = None
) -> Tensor:
    """Draws `[j, n, a]` of the policy's actions, or for finitely many their probabilities `[n, a]`.

    Args:
        policy: acts.
        obs: `[n, obs_dim]`, raw units.
        config: how many draws.
        generator: of the draws.
        mask: `[n, a]` choices that are allowed, for finitely many; None for all.
    """
    if isinstance(policy, DiscretePolicy):
        return action_probabilities(policy, obs, mask)
    return draw_actions(policy, obs, count=config.action_samples, generator=generator)


def drift_of(history: Array, dataset: Dataset, estimand: Estimand) -> float:
    """Movement `(max - min) / max(|mean|, std of logged returns)` over the last fifth of the history."""
    late = history[-max(2, math.ceil(LAST_PART * history.size)) :]
    returns = [
        float(e.rewards.astype(np.float64) @ estimand.discount ** np.arange(len(e))) for e in dataset.episodes
    ]
    unit = max(abs(float(late.mean())), float(np.std(returns)))
    return float(late.max() - late.min()) / unit if unit > 0 else 0.0
