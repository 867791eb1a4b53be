"""What an update of fitted Q evaluation reads, made ready once: rows, first states, bounds of targets."""

import dataclasses
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset, Transitions
from mbrl.nets.stack import StackedMLP
from mbrl.off_policy.value.value_net import QEnsemble, RewardScale, discounted_steps

DRAW_BLOCK: Final = 64
"""Updates whose rows are drawn together."""


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedRows:
    """Everything that an update reads, ready for the network: gathering is all that is left."""

    features: Tensor  # [n, d] of (s, a)
    action: Tensor  # [n, a], for discrete actions
    next_obs: Tensor  # [n, o] normalised; with the only action of a deterministic policy, the whole input
    next_choices: Tensor | None  # [j, n, a] scaled draws, or [n, a] probabilities; None if in `next_obs`
    reward: Tensor  # [n], scaled
    mask: Tensor  # [n], 1 where the value goes on

    @classmethod
    def prepare(
        cls,
        values: QEnsemble,
        transitions: Transitions,
        choices: Tensor,
    ) -> "PreparedRows":
        """The rows of a log.

        Args:
            values: whose inputs they become.
            transitions: n steps.
            choices: draws `[j, n, a]` of the policy at the successors, or `[n, a]` probabilities.
        """
        obs, action = torch.tensor(transitions.observation), torch.tensor(transitions.action)
        next_raw = torch.tensor(transitions.next_observation)
        next_obs, next_choices = values.normaliser(next_raw), None
        if values.is_discrete:
            next_choices = choices
        elif choices.shape[0] == 1:
            next_obs = torch.cat([next_obs, values.action_box.scale(choices[0])], -1)
        else:
            next_choices = values.action_box.scale(choices)
        reward = (
            torch.tensor(transitions.reward, dtype=torch.float64) - values.scale.mean
        ) / values.scale.std
        mask = torch.from_numpy(~transitions.terminated).float()
        return cls(values.features(obs, action), action, next_obs, next_choices, reward.float(), mask)

    def __len__(self) -> int:
        return self.reward.shape[0]

    def predictions(self, values: QEnsemble, index: Tensor, to_go: Tensor | None) -> Tensor:
        """`[k, b]`, differentiable, in units of `QEnsemble.unit`."""
        out = values.net(values.with_clock(_rows(self.features, index), to_go))
        return (out * self.action[index]).sum(-1) if values.is_discrete else out.squeeze(-1)

    def next_values(
        self,
        values: QEnsemble,
        target: StackedMLP,
        index: Tensor,
        to_go: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """`[k, b]`, of each member's own target network; a generator where actions are drawn from a pool."""
        inputs = _rows(self.next_obs, index)
        if self.next_choices is not None and not values.is_discrete:
            count = self.next_choices.shape[0]
            draw = torch.randint(count, index.shape, generator=generator, device=index.device)
            inputs = torch.cat([inputs, self.next_choices[draw, index]], -1)
        # After a step one step less is to go.
        inputs = values.with_clock(inputs, None if to_go is None else to_go - 1)
        with torch.no_grad():
            out = target(inputs)
        if values.is_discrete and self.next_choices is not None:
            value = (out * self.next_choices[index]).sum(-1)
        else:
            value = out.squeeze(-1)
        return value if to_go is None else value * values.unit(to_go - 1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """`values[index]` `[..., d]` of rows `[n, d]`; faster than indexing."""
    return values.index_select(0, index.flatten()).view(*index.shape, -1)


@dataclasses.dataclass(frozen=True, slots=True)
class FirstStates:
    """First states of all episodes with what the policy does there."""

    obs: Tensor
    choices: Tensor
    to_go: Tensor | None

    @classmethod
    def prepare(cls, values: QEnsemble, obs: Tensor, choices: Tensor) -> "FirstStates":
        """Raw observations with draws or probabilities of the policy there."""
        horizon = values.estimand.horizon
        return cls(obs, choices, None if horizon is None else torch.full((len(obs),), horizon))

    def values(self, values: QEnsemble) -> Tensor:
        """`[k, n]`, each member's V."""
        return values.value(self.obs, self.choices, self.to_go)

    def some(self, count: int) -> "FirstStates":
        """About `count` of them, equally spaced."""
        step = max(1, len(self.obs) // count)
        choices = self.choices[::step] if self.choices.dim() == 2 else self.choices[:, ::step]
        return FirstStates(self.obs[::step], choices, None if self.to_go is None else self.to_go[::step])


def member_rows(
    dataset: Dataset,
    members: int,
    *,
    generator: torch.Generator,
    bootstrap: bool,
    fold: NDArray[np.int64] | None = None,
) -> list[Tensor]:
    """For each member the rows that it is fitted to, with repetition.

    Args:
        dataset: the log.
        members: how many.
        generator: of the resamples.
        bootstrap: every member sees its own resample of the episodes, else all.
        fold: `[episodes]` 0..F-1; member m then sees no episode of the fold `m % F`. None hides nothing.
    """
    n, episode = int(dataset.units.max()) + 1, torch.from_numpy(dataset.transitions().unit.copy())
    everything = torch.arange(len(episode))
    parts: list[Tensor] = []
    for member in range(members):
        seen = torch.arange(n)
        if fold is not None:
            seen = torch.from_numpy(np.flatnonzero(fold != member % (int(fold.max()) + 1)))
        if bootstrap:
            seen = seen[torch.randint(len(seen), (len(seen),), generator=generator)]
        # An episode that was drawn twice brings all of its rows twice.
        counts = torch.bincount(seen, minlength=n)
        parts.append(torch.repeat_interleave(everything, counts[episode]))
    return parts


def draw_rows(members: list[Tensor], batch_size: int, generator: torch.Generator) -> Tensor:
    """`[block, k, b]` row indices for a block of updates."""
    shape = (DRAW_BLOCK, batch_size)
    device = generator.device
    drawn = [part[torch.randint(len(part), shape, generator=generator, device=device)] for part in members]
    return torch.stack(drawn, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class TargetBounds:
    """Least and largest scaled reward of a step (0 too where episodes can end), and the estimand."""

    low: float
    high: float
    estimand: Estimand

    def clip(self, target: Tensor, to_go: Tensor | None) -> Tensor:
        """Targets within `[low, high] * sum_t discount^t`, in scaled units."""
        if to_go is None:
            total = self.estimand.weight_sum
            return target.clamp(self.low * total, self.high * total)
        total = discounted_steps(to_go, self.estimand.discount).to(target.dtype)
        return torch.minimum(torch.maximum(target, self.low * total), self.high * total)


def target_bounds(dataset: Dataset, values: QEnsemble) -> TargetBounds | None:
    """What the logged rewards permit; None where the sum of discounts is endless."""
    if math.isinf(values.estimand.weight_sum):
        return None
    # Q lies within [r_min, r_max] sum_t g^t; an absorbing end adds rewards of 0. The slack is for rounding.
    transitions, scale = dataset.transitions(), values.scale
    low, high = (
        (float(end) - scale.mean) / scale.std for end in (transitions.reward.min(), transitions.reward.max())
    )
    if bool(transitions.terminated.any()):
        low, high = min(0.0, low), max(0.0, high)
    slack = 1e-5 * max(abs(low), abs(high), 1e-3)
    return TargetBounds(low - slack, high + slack, values.estimand)


def reward_scale(transitions: Transitions, estimand: Estimand) -> RewardScale:
    """Deviation of the rewards, and their mean where no episode ends (it would change the ranking there)."""
    # r - mean moves every Q by mean sum_t g^t, but only if no episode ends before.
    reward = transitions.reward.astype(np.float64)
    std = float(reward.std()) or float(np.abs(reward).mean()) or 1.0
    is_endless = not transitions.terminated.any() and math.isfinite(estimand.weight_sum)
    return RewardScale(float(reward.mean()) if is_endless else 0.0, std)
