"""The one stepping loop: plain simulators side by side, one batched policy call per step."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import ConfigError, NonFiniteError
from mbrl.core.protocols import DiscretePolicy, EpisodicPolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.envs.make import Env

_NOISE_ROWS = 256
"""Noise is drawn in blocks of this many steps; part of the definition of an episode's bits."""

StepHook: TypeAlias = Callable[[int, Env], None]
"""`(episode index, env)`, called after the reset and after every step of an episode."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EpisodeRecord:
    """What one episode was, in the simulator's own precision.

    Attributes:
        index: which episode of the run; with the seed it fixes the start and the noise.
        observations: `[T + 1, obs_dim]` float32, what the policy saw, and the last successor.
        actions: `[T, act_dim]` float32.
        rewards: `[T]` float64.
        terminated: the simulator ended the MDP at the last step.
        truncated: the MDP did not end at the last step: the time limit or the budget cut the episode.
        infos: `[T, ...]` entries of the simulator's step info that were asked for.
        mask: `[T + 1, act_dim]`, the choices that the simulator's infos allowed; None where it has no masks.
    """

    index: int
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool
    infos: dict[str, NDArray[Any]]
    mask: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return self.rewards.shape[0]

    def cut(self, length: int) -> "EpisodeRecord":
        """The first `length` steps; a shorter episode is returned as it is."""
        if length >= len(self):
            return self
        return dataclasses.replace(
            self,
            observations=self.observations[: length + 1],
            actions=self.actions[:length],
            rewards=self.rewards[:length],
            terminated=False,
            truncated=True,
            infos={key: values[:length] for key, values in self.infos.items()},
            mask=None if self.mask is None else self.mask[: length + 1],
        )


class _Budget:
    """Which episodes a run needs, and how long, given how long the episodes before them are by now.

    The lengths of unfinished episodes are lower bounds, so a need only ever shrinks: whatever the number of
    simulators, the run ends with the same episodes and the same cut.
    """

    def __init__(self, *, episodes: int | None, steps: int | None) -> None:
        budgets = [budget for budget in (episodes, steps) if budget is not None]
        if len(budgets) != 1 or budgets[0] < 1:
            raise ConfigError(
                f"Give a positive number of episodes or of steps, not episodes={episodes} and steps={steps}."
            )
        self._episodes, self._steps = episodes, steps
        self._yielded_steps = 0
        self._lengths: dict[int, int] = {}  # of the episodes that were started and not yet yielded
        self._total = 0  # steps of all of these and of the yielded ones
        self.started = 0
        self.next_index = 0  # of the episode to be yielded next

    def steps_needed(self, index: int) -> int:
        """How long episode `index` may have to be; 0 if it is not needed."""
        if self._episodes is not None:
            return sys.maxsize if index < self._episodes else 0
        before = self._yielded_steps + sum(n for k, n in self._lengths.items() if k < index)
        return max((self._steps or 0) - before, 0)

    def start(self) -> int:
        """Index of the next episode."""
        self._lengths[self.started] = 0
        self.started += 1
        return self.started - 1

    def count_step(self, index: int) -> bool:
        """Counts a step of episode `index`; True when the episode is as long as it has to be."""
        self._lengths[index] += 1
        self._total += 1
        if self._steps is None or self._total < self._steps:
            return False
        return self._lengths[index] >= self.steps_needed(index)

    def pass_on(self, record: EpisodeRecord) -> EpisodeRecord:
        """Closes the account of the next episode; returns what is needed of it."""
        del self._lengths[record.index]
        record = record.cut(self.steps_needed(record.index))
        self._yielded_steps += len(record)
        self.next_index += 1
        return record


class _Slot:
    """One simulator and the episode that runs in it."""

    def __init__(self, env: Env, info_keys: Sequence[str]) -> None:
        self.env = env
        self._info_keys = info_keys
        self.index = -1
        self.length = 0

    def reset(self, index: int, rng: RngStreams) -> None:
        first, info = self.env.reset(seed=rng.integer("reset", index))
        self.index, self.length = index, 0
        self.obs = np.array(first, dtype=np.float32)
        self._generator = rng.at("noise", index)
        self._observations = [self.obs]
        self._actions: list[NDArray[np.float32]] = []
        self._rewards: list[float] = []
        self._infos: dict[str, list[Any]] = {key: [] for key in self._info_keys}
        self._masks = [_mask_of(info)]
        self._terminated = False

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """`[act_dim]`, what is allowed now; None where the simulator does not say, or allows nothing."""
        mask = self._masks[-1]
        return mask if mask is not None and bool(mask.any()) else None

    def noise(self, act_dim: int) -> Tensor:
        """`[act_dim]`, this step's row of the episode's own noise."""
        row = self.length % _NOISE_ROWS
        if row == 0:
            device = self._generator.device
            self._noise = torch.randn(_NOISE_ROWS, act_dim, generator=self._generator, device=device)
        return self._noise[row]

    def step(self, action: NDArray[np.float32]) -> bool:
        """Steps the simulator; True when the episode is over."""
        action = action.copy()  # a policy may write its next answer into the same memory
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.obs = np.array(obs, dtype=np.float32)
        self.length += 1
        self._observations.append(self.obs)
        self._actions.append(action)
        self._rewards.append(float(reward))
        self._masks.append(_mask_of(info))
        for key, values in self._infos.items():
            values.append(info[key])
        self._terminated = bool(terminated)
        return self._terminated or bool(truncated)

    def record(self) -> EpisodeRecord:
        masks = [mask for mask in self._masks if mask is not None]
        return EpisodeRecord(
            index=self.index,
            observations=np.stack(self._observations),
            actions=np.stack(self._actions),
            rewards=np.asarray(self._rewards, dtype=np.float64),
            terminated=self._terminated,
            truncated=not self._terminated,
            infos={key: np.asarray(values) for key, values in self._infos.items()},
            mask=np.stack(masks) if len(masks) == len(self._masks) else None,
        )


def run_episodes(
    envs: Sequence[Env],
    policy: Policy,
    *,
    rng: RngStreams,
    is_deterministic: bool,
    episodes: int | None = None,
    steps: int | None = None,
    info_keys: Sequence[str] = (),
    on_step: StepHook | None = None,
) -> Iterator[EpisodeRecord]:
    """Yields episodes 0, 1, 2, ... in that order: `episodes` of them, or `steps` steps, the last one cut.

    Episode k starts from `rng.integer("reset", k)` and draws its noise from `rng.at("noise", k)`, whichever
    simulator runs it. What it then does depends on the number of simulators only through the rounding of a
    batched matrix product: a policy whose rows do not depend on the batch gives the same bits for any number.

    Args:
        envs: the simulators; more of them make the policy calls fewer.
        policy: acts on `[b, obs_dim]`, on the device of `rng`; a `DiscretePolicy` is told what `action_mask`
            of the infos allows, an `EpisodicPolicy` which episodes it acts in and when they are over.
        rng: streams of the run.
        is_deterministic: whether the policy acts without noise.
        episodes: how many episodes to run; exactly one of `episodes` and `steps` is given.
        steps: how many steps to run.
        info_keys: entries of the step info to keep.
        on_step: called after every reset and step.

    Raises:
        ConfigError: not exactly one positive budget is given.
        NonFiniteError: the policy returned a NaN or an infinity.
    """
    budget = _Budget(episodes=episodes, steps=steps)
    idle = [_Slot(env, info_keys) for env in reversed(envs)]
    running: list[_Slot] = []
    finished: dict[int, EpisodeRecord] = {}
    memory = policy if isinstance(policy, EpisodicPolicy) else None
    _forget(memory)
    while True:
        while idle and budget.steps_needed(budget.started) > 0:
            slot = idle.pop()
            slot.reset(budget.start(), rng)
            running.append(slot)
            if on_step is not None:
                on_step(slot.index, slot.env)
        if not running:
            return
        actions = _act(running, policy, device=rng.device, is_deterministic=is_deterministic)
        for slot, action in zip(running, actions, strict=True):
            is_over = slot.step(action)
            is_filled = budget.count_step(slot.index)
            if on_step is not None:
                on_step(slot.index, slot.env)
            if is_over or is_filled:
                finished[slot.index] = slot.record()
                idle.append(slot)
                _forget(memory, [slot.index])
        running = [slot for slot in running if slot.index not in finished]
        while budget.next_index in finished and budget.steps_needed(budget.next_index) > 0:
            yield budget.pass_on(finished.pop(budget.next_index))


def _mask_of(info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """`[act_dim]` flags of Gymnasium's `action_mask`, None without it."""
    mask = info.get("action_mask")
    return None if mask is None else np.asarray(mask).reshape(-1).astype(np.bool_)


def _forget(memory: EpisodicPolicy | None, episodes: Sequence[int] | None = None) -> None:
    if memory is not None:
        memory.reset(episodes)


def _act(
    running: Sequence[_Slot], policy: Policy, *, device: torch.device, is_deterministic: bool
) -> NDArray[np.float32]:
    """One policy call for all running episodes: `[b, act_dim]`."""
    with torch.inference_mode():
        obs = torch.from_numpy(np.stack([slot.obs for slot in running])).to(device)
        noise = None if is_deterministic else torch.stack([slot.noise(policy.act_dim) for slot in running])
        masks = [slot.mask for slot in running]
        if isinstance(policy, DiscretePolicy) and any(mask is not None for mask in masks):
            free = np.ones(policy.act_dim, dtype=np.bool_)
            mask = np.stack([free if mask is None else mask for mask in masks])
            chosen = policy.act(obs, noise, torch.from_numpy(mask).to(device))
        elif isinstance(policy, EpisodicPolicy):
            chosen = policy.act_in_episodes(obs, noise, episodes=[slot.index for slot in running])
        else:
            chosen = policy.act(obs, noise)
        actions = chosen.cpu().numpy()
    if not np.isfinite(actions).all():
        row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
        slot = running[row]
        raise NonFiniteError(
            f"The policy returned the action {actions[row].tolist()} in episode {slot.index} at step "
            f"{slot.length}, for the observation {slot.obs.tolist()}."
        )
    return actions
