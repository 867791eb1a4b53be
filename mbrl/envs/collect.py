"""Collects logged episodes from a simulator, with the log-densities that off-policy estimation needs."""

import contextlib
from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy, Policy, StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode
from mbrl.envs.make import Env, make_env
from mbrl.envs.specs import TaskSpec
from mbrl.envs.stepping import EpisodeRecord, run_episodes

_LOG_PROB_ROWS = 4096
"""Rows of one log-density call: bounds the memory of very long episodes."""


def collect(
    task: TaskSpec,
    policy: Policy,
    *,
    rng: RngStreams,
    steps: int | None = None,
    episodes: int | None = None,
    is_deterministic: bool = False,
    num_envs: int = 10,
    info_keys: Sequence[str] = (),
) -> list[Episode]:
    """Runs `policy` in the simulator of `task` and returns what was logged, in float32.

    Episode k is fixed by `(rng.seed, k)`: its start, its noise, and so its bits, up to the rounding of
    batched matrix products, which may depend on how many simulators run side by side. Neither the order of
    the episodes nor the cut at the step budget depends on `num_envs`.

    Args:
        task: the task; it must have a simulator.
        policy: what acts; with noise, the log-densities of a `StochasticPolicy` and the log-probabilities
            of a `DiscretePolicy` are logged.
        rng: streams of this collection; another seed gives other episodes.
        steps: total number of steps; exactly one of `steps` and `episodes` is given.
        episodes: total number of episodes.
        is_deterministic: whether the policy acts without noise.
        num_envs: simulators side by side; changes the speed only.
        info_keys: entries of the simulator's step info to keep, T rows each.

    Returns:
        Episodes with T + 1 observations. `terminated` is the simulator's flag; `truncated` is the time limit
        or the cut at the step budget, and is False where the MDP ended at that very step.
        `behaviour_log_prob` is the log-density with respect to the action scaled to [-1, 1], or the
        log-probability of a choice; None for deterministic actions. Masks that the simulator's infos
        hold are the info `action_mask`, T + 1 rows.

    Raises:
        ConfigError: the task has no simulator, or not exactly one positive budget is given.
        NonFiniteError: the policy returned a NaN or an infinity.
    """
    density = None
    if isinstance(policy, (StochasticPolicy, DiscretePolicy)) and not is_deterministic:
        density = policy
    with open_envs(task, min(num_envs, episodes or num_envs)) as envs:
        records = run_episodes(
            envs,
            policy,
            rng=rng,
            is_deterministic=is_deterministic,
            episodes=episodes,
            steps=steps,
            info_keys=info_keys,
        )
        return [_to_episode(record, density, rng.device) for record in records]


@contextlib.contextmanager
def open_envs(task: TaskSpec, count: int, *, is_first_rendered: bool = False) -> Generator[list[Env]]:
    """Makes `count` simulators of `task` and closes them afterwards.

    Args:
        task: the task.
        count: how many.
        is_first_rendered: whether the first one, which runs episode 0, can render frames.

    Raises:
        ConfigError: `count` is not positive, or the simulator cannot be made.
    """
    if count < 1:
        raise ConfigError(
            f"At least one simulator is needed: num_envs and episodes must be positive, got {count}."
        )
    with contextlib.ExitStack() as stack:
        envs: list[Env] = []
        for index in range(count):
            envs.append(make_env(task, is_rendered=is_first_rendered and index == 0))
            stack.callback(envs[-1].close)
        yield envs


def _to_episode(
    record: EpisodeRecord, density: StochasticPolicy | DiscretePolicy | None, device: torch.device
) -> Episode:
    return Episode(
        observations=record.observations,
        actions=record.actions,
        rewards=record.rewards.astype(np.float32),
        terminated=record.terminated,
        truncated=record.truncated,
        behaviour_log_prob=None if density is None else _log_prob(record, density, device),
        infos=record.infos if record.mask is None else {**record.infos, "action_mask": record.mask},
    )


def _log_prob(
    record: EpisodeRecord, policy: StochasticPolicy | DiscretePolicy, device: torch.device
) -> NDArray[np.float32]:
    """`[T]`; in batches of one episode's rows alone, so that no other episode can touch its bits."""
    obs = torch.from_numpy(record.observations[:-1]).to(device)
    actions = torch.from_numpy(record.actions).to(device)
    mask = None if record.mask is None else torch.from_numpy(record.mask[:-1]).to(device)
    blocks = [slice(first, first + _LOG_PROB_ROWS) for first in range(0, len(record), _LOG_PROB_ROWS)]
    with torch.inference_mode():
        if isinstance(policy, DiscretePolicy):
            shares = [policy.probs(obs[rows], None if mask is None else mask[rows]) for rows in blocks]
            taken = torch.cat(shares).gather(1, actions.argmax(1, keepdim=True))
            return taken.squeeze(1).log().float().cpu().numpy()
        return torch.cat([policy.log_prob(obs[rows], actions[rows]) for rows in blocks]).float().cpu().numpy()
