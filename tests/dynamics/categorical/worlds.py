"""Logs of discrete states whose chances are known: a chain of three states, and a grid of 8,000."""

from collections.abc import Callable

import numpy as np

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig, TerminationConfig

CHAIN = np.array(
    [
        [[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]],
        [[0.0, 0.5, 0.5], [0.6, 0.4, 0.0]],
        [[0.2, 0.0, 0.8], [1.0, 0.0, 0.0]],
    ]
)
"""`[s, a, s']`."""

EARNED = np.array([1.0, -1.0, 3.0])
"""Reward of entering a state; the choice adds its number."""

SIDE, LEVELS = 40, 5
MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


def chain_log(episodes: int = 100, steps: int = 20, *, seed: int = 0, code: Callable = np.eye) -> Dataset:
    """A uniform policy in the chain; `code(3)` are the observations of its states."""
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 3, episodes)
    states, choices = [state], []
    for _ in range(steps):
        choices.append(rng.integers(0, 2, episodes))
        chance = CHAIN[states[-1], choices[-1]]
        states.append((rng.random((episodes, 1)) > chance.cumsum(1)).sum(1))
    paths, acts = np.stack(states, 1), np.stack(choices, 1)
    return dataset_of(np.asarray(code(3))[paths], acts, EARNED[paths[:, 1:]] + acts, choices=2)


def dataset_of(
    observations: np.ndarray, choices_made: np.ndarray, rewards: np.ndarray, *, choices: int
) -> Dataset:
    """`[n, T + 1, d]`, `[n, T]` and `[n, T]` as episodes that were cut."""
    rows = zip(observations, choices_made, rewards, strict=True)
    episodes = tuple(
        Episode(
            observations=obs.astype(np.float32),
            actions=np.eye(choices, dtype=np.float32)[acts],
            rewards=earned.astype(np.float32),
            terminated=False,
            truncated=True,
        )
        for obs, acts, earned in rows
    )
    spec = SpaceSpec.discrete(observations.shape[2], choices)
    return Dataset(episodes, spec, DatasetInfo("states"))


def grid_chances(state: np.ndarray, choice: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Chances of a step and where it leads: 0.8 as chosen, 0.1 to each side; the level turns with 0.1."""
    found = []
    for slip, chance in ((0, 0.8), (1, 0.1), (3, 0.1)):
        for turn, share in ((0, 0.9), (1, 0.1)):
            place = np.clip(state[:, :2] + MOVES[(choice + slip) % 4], 0, SIDE - 1)
            level = (state[:, 2:] + turn) % LEVELS
            found.append((chance * share, np.concatenate((place, level), 1)))
    return found


def grid_reward(state: np.ndarray) -> np.ndarray:
    """Of entering a state: nearer to one corner is better, and so are lower levels."""
    return state[..., :2].sum(-1) / (2 * SIDE) - 0.1 * state[..., 2]


def grid_log(episodes: int, steps: int, *, seed: int = 0) -> Dataset:
    """A uniform policy from uniform states."""
    rng = np.random.default_rng(seed)
    states = [rng.integers(0, [SIDE, SIDE, LEVELS], (episodes, 3))]
    choices = []
    for _ in range(steps):
        choices.append(rng.integers(0, 4, episodes))
        options = grid_chances(states[-1], choices[-1])
        drawn = rng.choice(len(options), episodes, p=[chance for chance, _ in options])
        states.append(np.stack([where for _, where in options])[drawn, np.arange(episodes)])
    paths = np.stack(states, 1)
    return dataset_of(paths, np.stack(choices, 1), grid_reward(paths[:, 1:]), choices=4)


def grid_values(policy: Callable, discount: float) -> np.ndarray:
    """`[x, y, level]`, `V = r + discount P V` until it stands still; `policy(states)` chooses."""
    axes = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(LEVELS), indexing="ij")
    every = np.stack([axis.ravel() for axis in axes], 1)
    options = grid_chances(every, policy(every))
    value = np.zeros((SIDE, SIDE, LEVELS))
    for _ in range(int(np.log(1e-7) / np.log(discount))):
        after = [chance * (grid_reward(to) + discount * value[tuple(to.T)]) for chance, to in options]
        value = np.sum(after, 0).reshape(value.shape)
    return value


def small(**changes) -> DynamicsConfig:
    """A categorical fit of seconds."""
    settings = {
        "kind": "categorical",
        "members": 3,
        "elites": 2,
        "hidden": (32,),
        "max_updates": 300,
        "learning_rate": 3e-3,
        "termination": TerminationConfig(hidden=(8,), max_updates=40),
        "assessment": AssessmentConfig(
            horizon=3, segments=10, particles=10, max_rows=200, bootstrap_draws=20
        ),
    }
    return DynamicsConfig(**(settings | changes))
