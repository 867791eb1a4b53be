"""What a first action is worth in the simulator when a policy follows: true gains, for audits of planners.

A branch starts where the policy's own episode stands at some step, takes another action there, and goes on as
the policy does. Simulators are brought there by repeating the episode from its seed, action by action, so
whatever can be seeded can be branched, and all branches of a state meet the same randomness.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import open_envs
from mbrl.envs.make import Env
from mbrl.envs.specs import TaskSpec
from mbrl.envs.stepping import EpisodeRecord, run_episodes

_TOLERANCE = 1e-4
"""By which a repeated observation may differ, relative to its size."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Road:
    """A policy's own episodes, and states on them.

    Attributes:
        records: the episodes.
        points: index of the episode and step of each state.
        obs: `[b, obs_dim]` float32, the states.
    """

    records: tuple[EpisodeRecord, ...]
    points: tuple[tuple[int, int], ...]
    obs: NDArray[np.float32]


def travel(
    task: TaskSpec, policy: Policy, *, rng: RngStreams, episodes: int, states: int, num_envs: int = 10
) -> Road:
    """Runs a policy without noise, and draws states of its road, all steps alike.

    Args:
        task: with a simulator.
        policy: acts.
        rng: streams of the episodes.
        episodes: how many.
        states: drawn without repetition, at most; in order of the road.
        num_envs: simulators side by side.
    """
    with open_envs(task, min(num_envs, episodes)) as envs:
        records = tuple(run_episodes(envs, policy, rng=rng, is_deterministic=True, episodes=episodes))
    steps = [(k, t) for k, record in enumerate(records) for t in range(len(record))]
    order = torch.randperm(len(steps), generator=rng.at("states"))[:states].sort().values
    points = tuple(steps[int(index)] for index in order)
    return Road(records, points, np.stack([records[k].observations[t] for k, t in points]))


def branch_returns(
    task: TaskSpec,
    policy: Policy,
    road: Road,
    actions: NDArray[np.float32],
    *,
    rng: RngStreams,
    horizon: int,
    num_envs: int = 32,
) -> NDArray[np.float64]:
    """Undiscounted returns of first actions with the policy after them.

    Args:
        task: of the road.
        policy: of the road; acts without noise.
        road: states.
        actions: `[b, n, act_dim]`, environment units.
        rng: streams of the road.
        horizon: steps that count, the first among them; an episode may end sooner.
        num_envs: simulators side by side; changes the speed only.

    Returns:
        `[b, n]`.

    Raises:
        ConfigError: a simulator does not repeat its episodes.
    """
    found = np.zeros(actions.shape[:2])
    todo = [(i, j) for i in range(actions.shape[0]) for j in range(actions.shape[1])]
    with open_envs(task, min(num_envs, len(todo))) as envs:
        for group in _groups(todo, len(envs)):
            starts = [(road, i, actions[i, j]) for i, j in group]
            returns = _branch(envs[: len(group)], policy, starts, rng, horizon)
            for (i, j), value in zip(group, returns, strict=True):
                found[i, j] = value
    return found


def _branch(
    envs: Sequence[Env],
    policy: Policy,
    starts: Sequence[tuple[Road, int, NDArray[np.float32]]],
    rng: RngStreams,
    horizon: int,
) -> list[float]:
    """The branches of one group, side by side."""
    totals, seen = [0.0] * len(envs), list[NDArray[np.float32]]()
    for env, (road, index, _) in zip(envs, starts, strict=True):
        seen.append(_bring(env, road, index, rng))
    running = list(range(len(envs)))
    action = [first for _, _, first in starts]
    for _ in range(horizon):
        going: list[int] = []
        for k in running:
            obs, reward, terminated, truncated, _info = envs[k].step(action[k])
            totals[k] += float(reward)
            seen[k] = np.array(obs, dtype=np.float32)
            if not (terminated or truncated):
                going.append(k)
        running = going
        if not running:
            break
        with torch.inference_mode():
            chosen = policy.act(torch.from_numpy(np.stack([seen[k] for k in running])).to(rng.device))
        for k, row in zip(running, chosen.cpu().numpy(), strict=True):
            action[k] = row.copy()
    return totals


def _bring(env: Env, road: Road, index: int, rng: RngStreams) -> NDArray[np.float32]:
    """A simulator to one of the road's states.

    Raises:
        ConfigError: it gets elsewhere.
    """
    episode, step = road.points[index]
    record = road.records[episode]
    obs, _ = env.reset(seed=rng.integer("reset", record.index))
    for action in record.actions[:step]:
        obs, *_ = env.step(action)
    there, wanted = np.array(obs, dtype=np.float32), road.obs[index]
    if not np.allclose(there, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ConfigError(
            f"The simulator does not repeat its episodes: after {step} steps of episode {episode} it stands "
            f"at {there.tolist()}, and stood at {wanted.tolist()}. Remedy: a simulator whose reset(seed=...) "
            "fixes everything."
        )
    return there


def _groups(items: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
