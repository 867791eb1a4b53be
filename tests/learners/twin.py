"""A task on the action box [0, 4] with networks of known answers, for the learners that share it."""

import torch

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.learners.base import LearnerContext
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

SPACE = SpaceSpec(2, 1, (0.0,), (4.0,))
CONTEXT = LearnerContext(SPACE, Normaliser.identity(2), 100)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transitions(count: int = 8, seed: int = 1) -> TransitionBatch:
    draws = generator(seed)
    return TransitionBatch(
        observation=torch.randn(count, 2, generator=draws),
        action=4 * torch.rand(count, 1, generator=draws),
        reward=torch.randn(count, generator=draws),
        next_observation=torch.randn(count, 2, generator=draws),
        terminated=torch.arange(count) % 3 == 0,
        from_model=torch.zeros(count, dtype=torch.bool),
        next_action=4 * torch.rand(count, 1, generator=draws),
        has_next_action=torch.arange(count) % 4 != 1,
    )


def bandit(count: int, draws: torch.Generator, *, low: float, high: float) -> TransitionBatch:
    """Reward `-(a - 2 - s_0 / 2)^2`, one step long; logged actions lie `low` to `high` above the best."""
    obs = 2 * torch.rand(count, 2, generator=draws) - 1
    best = 2 + 0.5 * obs[:, :1]
    action = best + low + (high - low) * torch.rand(count, 1, generator=draws)
    return TransitionBatch(
        observation=obs,
        action=action,
        reward=-((action - best)[:, 0] ** 2),
        next_observation=obs,
        terminated=torch.ones(count, dtype=torch.bool),
        from_model=torch.zeros(count, dtype=torch.bool),
        next_action=action,
        has_next_action=torch.zeros(count, dtype=torch.bool),
    )


def loop(count: int, draws: torch.Generator, *, terminated: bool) -> TransitionBatch:
    """Reward 1 in a state that leads to itself, or ends at once."""
    return TransitionBatch(
        observation=torch.zeros(count, 2),
        action=4 * torch.rand(count, 1, generator=draws),
        reward=torch.ones(count),
        next_observation=torch.zeros(count, 2),
        terminated=torch.full((count,), terminated),
        from_model=torch.zeros(count, dtype=torch.bool),
        next_action=4 * torch.rand(count, 1, generator=draws),
        has_next_action=torch.ones(count, dtype=torch.bool),
    )


def constant_net(net: StackedMLP, *outputs: float) -> None:
    """Makes every member answer `outputs` everywhere."""
    with torch.no_grad():
        net.flat.zero_()
        net.layers(net.flat)[-1].bias.copy_(torch.tensor(outputs))


def constant_critics(critic: CriticEnsemble, values: list[float]) -> None:
    """Makes critic i answer `values[i]` everywhere."""
    with torch.no_grad():
        critic.net.flat.zero_()
        critic.net.layers(critic.net.flat)[-1].bias.copy_(torch.tensor(values)[:, None, None])


def linear_critics(critic: CriticEnsemble, slopes: list[float], offsets: list[float]) -> None:
    """Makes critic i answer `slopes[i] * a + offsets[i]`, a the scaled action; needs one hidden layer."""
    constant_critics(critic, offsets)
    with torch.no_grad():
        first, last = critic.net.layers(critic.net.flat)
        first.weight[:, 2, 0], first.weight[:, 2, 1] = 1.0, -1.0  # relu(a), relu(-a)
        for i, slope in enumerate(slopes):
            last.weight[i, :2, 0] = torch.tensor([slope, -slope])
