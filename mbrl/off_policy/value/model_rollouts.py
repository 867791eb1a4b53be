"""Roll-outs of a policy in a dynamics ensemble, each member by itself, on common random numbers."""

import dataclasses
import hashlib
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy, SamplingModel
from mbrl.core.rng import RngStreams
from mbrl.core.types import DynamicsPosterior
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import act_with
from mbrl.off_policy.value.evaluation_model import EvaluationModel, TailValue
from mbrl.ops.gaussian import standard_normal_cdf
from mbrl.rollouts.generate import Box

SPARE_COLUMNS: Final = 2
"""Columns of noise for the reward and for the end, beside those of the action and of s'."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RolloutSums:
    """Sums over roll-outs, `[H]` float64 each.

    Attributes:
        live: roll-outs that live at a step.
        disagreement: of the members there.
        exceeded: roll-outs with a disagreement beyond the threshold.
        stopped: roll-outs that ended there because it lies beyond the limit.
        clipped: roll-outs whose s' or reward was clipped.
        ends_alive: `[1]`, roll-outs that live after the last step.
    """

    live: Array
    disagreement: Array
    exceeded: Array
    stopped: Array
    clipped: Array
    ends_alive: Array

    @classmethod
    def zeros(cls, steps: int) -> "RolloutSums":
        """Before the first roll-out."""
        return cls(*np.zeros((5, steps)), ends_alive=np.zeros(1))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Roll-outs that live: `[b]` each, in any order."""

    obs: Tensor
    member: Tensor
    start: Tensor  # row of the noise

    def keep(self, mask: Tensor) -> "_Rows":
        return self if bool(mask.all()) else _Rows(self.obs[mask], self.member[mask], self.start[mask])


class RolloutParts(NamedTuple):
    """`[m, b]` float64 of each member and start, filled step by step.

    Attributes:
        value: discounted rewards.
        tails: what fitted values stand for.
        terminated: 1 where the task ended.
    """

    value: Tensor
    tails: Tensor
    terminated: Tensor


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RolloutRun:
    """All that a roll-out needs besides its start and its noise.

    Attributes:
        model: what is rolled out.
        policy: acts.
        estimand: discount and horizon.
        box: range of the data.
        tail: fitted value of a state and an action, or None.
        steps: longest roll-out.
    """

    model: EvaluationModel
    policy: Policy
    estimand: Estimand
    box: Box
    tail: TailValue | None
    steps: int

    def tail_bound(self) -> float:
        """`discount^H max|r| sum_t discount^t`, 0 where nothing is left out."""
        if self.estimand.horizon is not None or self.tail is not None:
            return 0.0
        largest = max(abs(float(self.box.reward_low)), abs(float(self.box.reward_high)))
        return self.estimand.discount**self.steps * largest * self.estimand.weight_sum

    def roll(self, starts: Tensor, noise: Tensor, sums: RolloutSums) -> RolloutParts:
        """Values, tails and ends of `b` starts with noise `[b, H + 1, d]`; adds to `sums`."""
        members, b = self.model.dynamics.ensemble_size, len(starts)
        value = torch.zeros(members, b, dtype=torch.float64)
        parts = RolloutParts(value, torch.zeros_like(value), torch.zeros_like(value))
        # Every member takes every start, with the same noise: differences between members are the model's.
        rows = _Rows(
            starts.repeat(members, 1),
            torch.arange(members).repeat_interleave(b),
            torch.arange(b).repeat(members),
        )
        for t in range(self.steps):
            rows = self._step(t, rows, noise, parts, sums)
            if len(rows.obs) == 0:
                break
        sums.ends_alive[0] += len(rows.obs)
        if self.estimand.horizon is None and self.tail is not None and len(rows.obs) > 0:
            # Without a horizon g^H Q(s_H, a_H) stands for all that follows the last step.
            action = act_with(self.policy, rows.obs, noise[rows.start, self.steps, : self.policy.act_dim])
            self._end(self.steps, rows, action, self.tail, parts.tails)
        return parts._replace(value=value + parts.tails)

    def _step(self, t: int, rows: _Rows, noise: Tensor, parts: RolloutParts, sums: RolloutSums) -> _Rows:
        """Takes step t of the live roll-outs; returns those that live on."""
        # 1. a_t ~ pi(s_t), and every member's belief of what follows.
        draws = noise[rows.start, t]
        action = act_with(self.policy, rows.obs, draws[:, : self.policy.act_dim])
        posterior = self.model.dynamics.predict(rows.obs, action)
        uncertainty = self.model.measure(posterior).double()
        is_beyond = uncertainty > self.model.limit
        sums.live[t] += len(rows.obs)
        sums.disagreement[t] += float(uncertainty.sum())
        sums.exceeded[t] += int((uncertainty > self.model.threshold).sum())
        row = torch.arange(len(rows.obs))
        # 2. Where the members disagree beyond the data, g^t Q(s_t, a_t) stands for the rest.
        if self.tail is not None and bool(is_beyond.any()):
            self._end(t, rows.keep(is_beyond), action[is_beyond], self.tail, parts.tails)
            sums.stopped[t] += int(is_beyond.sum())
            row = row[~is_beyond]
            rows, action, draws = rows.keep(~is_beyond), action[~is_beyond], draws[~is_beyond]
        # 3. s' and r from the roll-out's own member, within the range of the data.
        next_obs, reward = self._draw(posterior, (rows, action), row, draws)
        is_finite = next_obs.isfinite().all(-1) & reward.isfinite()
        inside, reward_inside = self.box.clip(next_obs, reward)
        sums.clipped[t] += int(((inside != next_obs).any(-1) | (reward_inside != reward)).sum())
        if self.model.reward is not None:
            safe = torch.where(is_finite[:, None], inside, rows.obs)
            reward_inside = self.model.reward(rows.obs, action, safe)
        # 4. The reward counts, that of a step that ends the task too. An infinity would be clipped to a
        # number: what a broken model says stays visible.
        earned = torch.where(is_finite, reward_inside, torch.nan).double()
        parts.value[rows.member, rows.start] += self.estimand.discount**t * earned
        # 5. The task ends with the probability that the model gives it: u < P(end), u = Phi(noise).
        end = self.model.termination(rows.obs, action, inside)
        lives = is_finite & (standard_normal_cdf(draws[:, -1]) >= end)
        parts.terminated[rows.member, rows.start] = (is_finite & ~lives).double()
        return _Rows(inside, rows.member, rows.start).keep(lives)

    def _draw(
        self, posterior: DynamicsPosterior, at: tuple[_Rows, Tensor], row: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`s' = mean_m + std_m noise`, or the mean alone, and r likewise, of each row's own member."""
        member, dynamics = at[0].member, self.model.dynamics
        if isinstance(dynamics, SamplingModel):  # its means are no states
            return dynamics.draw_member(at[0].obs, at[1], member, draws[:, self.policy.act_dim : -1])
        mean, reward_mean = posterior.mean[member, row], posterior.reward_mean[member, row]
        if not self.model.samples:
            return mean, reward_mean
        variance = posterior.variance[member, row]
        reward_std = posterior.reward_variance[member, row].sqrt()
        state_draws = draws[:, self.policy.act_dim : -SPARE_COLUMNS]
        next_obs = torch.addcmul(mean, variance.sqrt(), state_draws)
        return next_obs, torch.addcmul(reward_mean, reward_std, draws[:, -2])

    def _end(self, t: int, rows: _Rows, action: Tensor, tail: TailValue, tails: Tensor) -> None:
        to_go = None if self.estimand.horizon is None else self.estimand.horizon - t
        worth = tail(rows.obs, action, to_go).double()
        tails[rows.member, rows.start] = self.estimand.discount**t * worth


def start_keys(starts: Tensor, seed: int) -> list[int]:
    """A number for each start from the seed, its content and how many equal ones came before.

    So it does not depend on the order of the episodes or on which others are there.
    """
    rng, seen, keys = RngStreams(seed), dict[str, int](), list[int]()
    for row in starts.numpy():
        content = hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()
        seen[content] = seen.get(content, -1) + 1
        keys.append(rng.integer(f"start/{content}", seen[content]))
    return keys


def rollout_noise(keys: list[int], rollout: int, shape: tuple[int, int]) -> Tensor:
    """`[len(keys), *shape]` standard normal draws, each start's from a counter-based generator of its own.

    They are drawn step by step, so a longer roll-out begins like a shorter one.
    """
    out = np.empty((len(keys), *shape), dtype=np.float32)
    for row, key in zip(out, keys, strict=True):
        bits = np.random.Philox(key=np.array([key, rollout], dtype=np.uint64))
        np.random.Generator(bits).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(out)
