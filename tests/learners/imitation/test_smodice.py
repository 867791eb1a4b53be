"""Weighted cloning on a task that can be worked out: demonstrations say which logged actions are right."""

import pytest
import torch

from mbrl.core.types import DemonstrationBatch, SpaceSpec, TransitionBatch
from mbrl.learners.base import LearnerContext
from mbrl.learners.imitation.smodice import SMODICE, SMODICEConfig
from mbrl.nets.normaliser import Normaliser

SPACE = SpaceSpec(1, 1, (-1.0,), (1.0,))


def steps(action: torch.Tensor, start: float = 0.0) -> TransitionBatch:
    """From `start` to where the action says, 2 a."""
    flags = torch.zeros(len(action), dtype=torch.bool)
    obs = torch.full((len(action), 1), start)
    return TransitionBatch(obs, action, torch.zeros(len(action)), 2 * action, flags, flags)


def batch(draws: torch.Generator) -> DemonstrationBatch:
    """A log of all actions from 0, and of standing still where they led; the expert stays at 1."""
    action = 2 * torch.rand(128, 1, generator=draws) - 1
    away = steps(action)
    there = TransitionBatch(
        away.next_observation, torch.zeros(128, 1), away.reward, away.next_observation, *[away.terminated] * 2
    )
    rows = TransitionBatch(
        *(torch.cat([getattr(away, n), getattr(there, n)]) for n in (
            "observation", "action", "reward", "next_observation", "terminated", "from_model"
        ))
    )  # fmt: skip
    half = torch.full((64, 1), 0.5) + 0.05 * torch.randn(64, 1, generator=draws)
    goes = steps(half)
    stays = TransitionBatch(
        goes.next_observation, torch.zeros(64, 1), goes.reward, goes.next_observation, *[goes.terminated] * 2
    )
    expert = stays
    known = {name: getattr(rows, name) for name in rows.__slots__}
    return DemonstrationBatch(**known, expert=expert, initial_observation=torch.zeros(16, 1))


@pytest.mark.slow
def test_the_clone_takes_the_logged_actions_that_lead_to_where_the_expert_is():
    """The log's mean action is 0; the expert's states, and no action of his from 0, say that 0.5 is right."""
    config = SMODICEConfig(
        hidden=(32,),
        discount=0.9,
        learning_rate=5e-3,
        gradient_penalty=0.0,  # no bound on how sharply the states of the log are told apart
        discriminator_learning_rate=5e-3,
    )
    learner = SMODICE(config, LearnerContext(SPACE, Normaliser.identity(1), 1))
    draws = torch.Generator().manual_seed(0)
    state = learner.init(draws)
    for _ in range(700):
        metrics = learner.update(state, batch(draws), draws)
    action = float(learner.policy(state).act(torch.zeros(1, 1)))
    assert action == pytest.approx(0.5, abs=0.15)
    assert 0 < float(metrics["imitation/effective_share"]) < 0.7
    inside, outside = learner.reward_model(state).reward(torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 1))
    assert inside > outside + 1


def test_batches_without_an_expert_are_refused():
    learner = SMODICE(SMODICEConfig(hidden=(8,)), LearnerContext(SPACE, Normaliser.identity(1), 1))
    state = learner.init(torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match="smodice learns from a DemonstrationBatch"):
        learner.update(state, steps(torch.zeros(4, 1)), torch.Generator())
