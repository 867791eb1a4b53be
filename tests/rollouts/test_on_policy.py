import dataclasses

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.types import TransitionBatch
from mbrl.nets.actors import ActorSpec, DeterministicActor, TanhGaussianActor
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.on_policy import generalised_advantage
from mbrl.rollouts.on_policy import Judgement, judge_rollouts, judge_steps
from mbrl.rollouts.steps import Rollouts
from tests.run.toy import SPACE


@dataclasses.dataclass
class Sum:
    def value(self, obs):
        return obs.sum(-1)


def judge(kind="tanh_gaussian") -> Judgement:
    make = TanhGaussianActor if kind == "tanh_gaussian" else DeterministicActor
    actor = make(ActorSpec(kind, SPACE, (8,)), Normaliser.identity(3), torch.Generator().manual_seed(0))
    return Judgement.of(actor, Sum(), discount=0.9, trace=0.8)


def imagined() -> Rollouts:
    """Two columns of four steps: the first ends with its second step, the second is cut after its third."""
    generator = torch.Generator().manual_seed(1)
    obs, following = torch.randn(2, 4, 2, 3, generator=generator)
    action = torch.rand(4, 2, 2, generator=generator) - 0.9
    valid = torch.tensor([[True, True], [True, True], [False, True], [False, False]])
    none = torch.zeros_like(valid)
    ended, cut = none.clone(), none.clone()
    ended[1, 0], cut[2, 1] = True, True
    reward = torch.randn(4, 2, generator=generator)
    reward[~valid] = torch.nan
    return Rollouts(
        observation=obs, action=action, reward=reward, uncertainty=reward, next_observation=following,
        next_action=action, terminated=ended, truncated=cut, valid=valid, flagged=cut,
        clipped=torch.zeros(4, 2, 4, dtype=torch.bool), non_finite=none,
    )  # fmt: skip


def test_imagined_steps_are_kept_where_they_are_valid_and_bootstrap_where_they_were_cut():
    rollouts, judgement = imagined(), judge()
    found = judge_rollouts(rollouts, rollouts.reward - 1, judgement)
    assert len(found) == 5
    assert bool(found.advantage.isfinite().all())
    columns = {0: 2, 1: 3}
    for column, length in columns.items():
        rows = (slice(None, length), slice(column, column + 1))
        expected = generalised_advantage(
            rollouts.reward[rows] - 1,
            rollouts.observation[rows].sum(-1),
            rollouts.next_observation[rows].sum(-1),
            rollouts.terminated[rows],
            torch.tensor([True] * (length - 1) + [False])[:, None],
            discount=0.9,
            trace=0.8,
        )[:, 0]
        # The mask puts all rows of a step before those of the next.
        place = rollouts.valid.flatten().cumsum(0).view(4, 2)[:length, column] - 1
        torch.testing.assert_close(found.advantage[place], expected)
        torch.testing.assert_close(found.observation[place], rollouts.observation[:length, column])
    torch.testing.assert_close(found.value, found.observation.sum(-1))
    assert torch.equal(found.log_prob, judgement.policy.log_prob(found.observation, found.action))


def test_a_policy_without_density_or_values_cannot_learn_on_policy():
    with pytest.raises(ConfigError, match="has no density"):
        judge("deterministic")
    with pytest.raises(ConfigError, match="estimates no values"):
        Judgement.of(judge().policy, None, discount=0.9, trace=0.8)


def test_the_steps_of_one_episode_are_one_column():
    steps = TransitionBatch(
        torch.ones(3, 1, 3), torch.zeros(3, 1, 2), torch.ones(3, 1), torch.ones(3, 1, 3),
        *torch.zeros(2, 3, 1, dtype=torch.bool),
    )  # fmt: skip
    valid = torch.ones(3, 1, dtype=torch.bool)
    found = judge_steps(steps, judge(), valid=valid, continues=torch.tensor([[True], [True], [False]]))
    delta, keep = 1 + 0.9 * 3 - 3, 0.9 * 0.8
    assert found.advantage.tolist() == pytest.approx(
        [delta * (1 + keep + keep**2), delta * (1 + keep), delta]
    )
