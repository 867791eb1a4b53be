"""Whole episodes of several policies in models that trained none of them, as one batch.

Every member of every judge takes every start alone to its end (TS-inf of Chua et al. 2018). Nothing is cut
because members disagree: how far they do is what the spread of their returns says. Random numbers are common:
those of a step depend on the start, neither on the member nor on the policy, so differences between policies
are paired.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.progress import Progress, SilentProgress
from mbrl.core.protocols import DynamicsModel, Policy, RewardFn, SamplingModel, TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import act_with
from mbrl.rollouts.box import Box

CHUNK: Final = 1280
"""Rows that go through a model together: the activations of all its members then stay in the cache."""

_TOLD_STEPS: Final = 25  # steps between two words of progress


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class JudgeModel:
    """One judge.

    Attributes:
        dynamics: its members, each of which is rolled out by itself.
        termination: probability that the task ends.
        reward: known rule in the place of the models' reward, or None.
    """

    dynamics: DynamicsModel
    termination: TerminationFn
    reward: RewardFn | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeQuestion:
    """What is imagined.

    Attributes:
        horizon: most steps of an episode.
        discount: of the return.
        samples: draw s' and the reward from the member's Gaussian; else follow its mean.
        stochastic: let the policy draw its actions; else take its evaluation action.
        seed: of all draws, those of the termination included.
        box: beyond which imagined steps are clipped; None for no limit.
    """

    horizon: int
    discount: float = 1.0
    samples: bool = False
    stochastic: bool = False
    seed: int = 0
    box: Box | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ImaginedEpisodes:
    """Episodes of one policy in one judge.

    Attributes:
        returns: `[m, n]` float64, of each member from each start; NaN where the model broke down.
        lengths: `[m, n]` int64, steps.
        terminated: `[m, n]` bool, whether the task ended before the horizon or with its last step.
        clipped: share of the steps that the box changed.
    """

    returns: Array
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    clipped: float


@dataclasses.dataclass(slots=True)
class _Live:
    """Episodes that go on, policy by policy: `[b]` each."""

    obs: Tensor
    policy: Tensor
    member: Tensor
    start: Tensor
    slot: Tensor  # place in the flat results

    def keep(self, mask: Tensor) -> "_Live":
        if bool(mask.all()):
            return self
        return _Live(self.obs[mask], self.policy[mask], self.member[mask], self.start[mask], self.slot[mask])


@torch.no_grad()
def imagine_episodes(
    judge: JudgeModel,
    policies: Sequence[Policy],
    starts: Float[Tensor, "n obs_dim"],
    question: EpisodeQuestion,
    *,
    progress: Progress | None = None,
) -> list[ImaginedEpisodes]:
    """Episodes of every policy from every start in every member; those that are over leave the batch.

    The reward of the step that ends the task counts. `J = sum_{t < min(T, H)} discount^t r_t`.

    Args:
        judge: in which they are imagined.
        policies: act.
        starts: `[n, obs_dim]`, raw units.
        question: how long, and with which randomness.
        progress: told of steps.

    Returns:
        One for each policy, in order.
    """
    told = progress or SilentProgress()
    count, members, n = len(policies), judge.dynamics.ensemble_size, len(starts)
    total = count * n * members
    index = torch.arange(total)
    # Policy by policy, start by start: a chunk of neighbours then holds as many rows of each member.
    live = _Live(
        starts.repeat_interleave(members, 0).repeat(count, 1),
        index // (n * members),
        index % members,
        index // members % n,
        index,
    )
    returns, lengths = torch.zeros(total, dtype=torch.float64), torch.zeros(total, dtype=torch.int64)
    terminated, clips = torch.zeros(total, dtype=torch.bool), torch.zeros(count, dtype=torch.int64)
    rng = RngStreams(question.seed)
    for t in range(question.horizon):
        if len(live.slot) == 0:
            break
        if t % _TOLD_STEPS == 0:
            told.advance(t, alive=len(live.slot) / total)
        noise = _Noise.at(rng, t, n, starts.shape[1], policies[0].act_dim)
        action = _act(policies, live, noise if question.stochastic else None)
        next_obs, reward, end = _step(judge, live, action, noise, question, clips)
        returns[live.slot] += question.discount**t * reward.double()
        lengths[live.slot] += 1
        # A NaN ends an episode, and stays visible as its return.
        is_sound = reward.isfinite()
        ends = noise.end[live.start] < end
        terminated[live.slot] = ends & is_sound
        live = dataclasses.replace(live, obs=next_obs).keep(is_sound & ~ends)
    told.advance(question.horizon, alive=len(live.slot) / total)
    return _by_policy((returns, lengths, terminated), clips, (count, n, members))


def _by_policy(
    flat: tuple[Tensor, Tensor, Tensor], clips: Tensor, shape: tuple[int, int, int]
) -> list[ImaginedEpisodes]:
    """The flat results of all episodes as `[m, n]` of each policy."""
    returns, lengths, terminated = (column.view(shape) for column in flat)
    return [
        ImaginedEpisodes(
            returns[p].T.numpy().copy(),
            lengths[p].T.numpy().copy(),
            terminated[p].T.numpy().copy(),
            float(clips[p]) / max(1, int(lengths[p].sum())),
        )
        for p in range(shape[0])
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Noise:
    """Draws of one step, one row for each start."""

    action: Tensor
    step: Tensor
    end: Tensor

    @classmethod
    def at(cls, rng: RngStreams, t: int, n: int, obs_dim: int, act_dim: int) -> "_Noise":
        generator = rng.at("episode", t)
        return cls(
            torch.randn(n, act_dim, generator=generator),
            torch.randn(n, obs_dim + 1, generator=generator),
            torch.rand(n, generator=generator),
        )


def _act(policies: Sequence[Policy], live: _Live, noise: _Noise | None) -> Tensor:
    """Actions of all rows; those of a policy stand together."""
    edges = cast("list[int]", torch.searchsorted(live.policy, torch.arange(len(policies) + 1)).tolist())
    parts: list[Tensor] = []
    for policy, first, last in zip(policies, edges[:-1], edges[1:], strict=True):
        if first == last:
            continue
        obs = live.obs[first:last]
        if noise is None:
            parts.append(policy.act(obs))
        else:
            parts.append(act_with(policy, obs, noise.action[live.start[first:last]]))
    return torch.cat(parts)


def _step(
    judge: JudgeModel,
    live: _Live,
    action: Tensor,
    noise: _Noise,
    question: EpisodeQuestion,
    clips: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """s', reward and probability of the end, from each row's own member; counts what the box changed."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(action), CHUNK):
        rows = slice(first, first + CHUNK)
        obs, act = live.obs[rows], action[rows]
        draw = noise.step[live.start[rows]]
        mean, reward = _draw(judge.dynamics, (obs, act, live.member[rows]), draw, samples=question.samples)
        is_finite = mean.isfinite().all(-1) & reward.isfinite()
        if question.box is not None:
            inside, reward_inside = question.box.clip(mean, reward)
            changed = (inside != mean).any(-1) | (reward_inside != reward)
            clips.index_add_(0, live.policy[rows], changed.long())
            mean, reward = inside, reward_inside
        mean = torch.where(is_finite[:, None], mean, obs)  # a known rule must not see a NaN
        if judge.reward is not None:
            reward = judge.reward(obs, act, mean)
        reward = torch.where(is_finite, reward, torch.nan)
        parts.append((mean, reward, judge.termination(obs, act, mean)))
    next_obs, rewards, ends = (torch.cat(column) for column in zip(*parts, strict=True))
    return next_obs, rewards, ends


def _draw(
    model: DynamicsModel, at: tuple[Tensor, Tensor, Tensor], draw: Tensor, *, samples: bool
) -> tuple[Tensor, Tensor]:
    """Successor and reward of each row at `(obs, action, member)`: the member's mean, or a draw."""
    if isinstance(model, SamplingModel):  # its means are no states
        return model.draw_member(*at, draw)
    mean, variance, reward, reward_variance = model.predict_member(*at)
    if not samples:
        return mean, reward
    next_obs = torch.addcmul(mean, variance.sqrt(), draw[:, :-1])
    return next_obs, torch.addcmul(reward, reward_variance.sqrt(), draw[:, -1])
