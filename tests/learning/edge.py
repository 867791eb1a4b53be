"""States that are met as bootstrap targets only: with the true dynamics, and yet values run away.

Sims et al. 2024 (arXiv:2402.12527): rollouts of one step from logged states, no model error at all.
"""

import torch

from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.learners.base import LearnerContext
from mbrl.learners.sac import SAC, SACConfig
from mbrl.nets.normaliser import Normaliser

SEEDS = 5
DISCOUNT = 0.95
HIGHEST_REWARD = 0.2
UPDATES = 500
SPACE = SpaceSpec(obs_dim=3, act_dim=3, act_low=(-1.0,) * 3, act_high=(1.0,) * 3)


def step(obs: torch.Tensor, action: torch.Tensor, *, from_model: bool) -> TransitionBatch:
    """The world: `s' = s + a / 2`, `r = 0.2 - |s_0 - 0.2|`. Endless, and logged for s in [-0.5, 0.5]^3."""
    flags = torch.zeros(len(obs), dtype=torch.bool)
    reward = HIGHEST_REWARD - (obs[:, 0] - 0.2).abs()
    return TransitionBatch(obs, action, reward, obs + 0.5 * action, flags, torch.full_like(flags, from_model))


def learned_value(seed: int, critics: int) -> float:
    """Mean value of the last batch after training on one-step rollouts in the true dynamics."""
    rng = RngStreams(seed)
    generator = rng.at("data")
    obs = torch.rand(2000, 3, generator=generator) - 0.5
    logged = step(obs, 0.4 * torch.rand(2000, 3, generator=generator) - 0.2, from_model=False)
    real = DatasetSource(logged)
    imagined = ModelBuffer(1500, real.layout)
    source = MixtureSource([(real, 0.05), (imagined, 0.95)])
    config = SACConfig(
        hidden=(64, 64),
        critics=critics,
        discount=DISCOUNT,
        actor_learning_rate=1e-3,
        critic_learning_rate=1e-3,
        polyak_tau=0.05,
        has_entropy_backup=False,
        entropy_coef=0.01,
        entropy_coef_learning_rate=0.0,
    )
    learner = SAC(config, LearnerContext(SPACE, Normaliser.identity(3), UPDATES))
    state, value = learner.init(rng.at("init")), torch.tensor(0.0)
    for update in range(UPDATES):
        if update % 100 == 0:
            imagined.push(imagine(learner.policy(state), obs, rng.at("rollout", update)))
        batch = source.sample(64, rng.at("batch", update))
        value = learner.update(state, batch, rng.at("update", update))["critic/value"]
    return float(value)


def imagine(policy: Policy, obs: torch.Tensor, generator: torch.Generator) -> TransitionBatch:
    start = obs[torch.randint(len(obs), (500,), generator=generator)]
    return step(start, policy.act(start, torch.randn(500, 3, generator=generator)), from_model=True)
