import numpy as np
import torch

from mbrl.core.history import History, resting_action
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.stacking.history import with_history
from mbrl.envs.history import HistoryPolicy
from mbrl.envs.stepping import run_episodes

from .test_stepping import Countdown

SPACE = SpaceSpec(obs_dim=2, act_dim=1, act_low=(0.25,), act_high=(9.0,))


class Recorder:
    """Acts by the sum of the newest frame and keeps what it was shown."""

    act_dim = 1

    def __init__(self):
        self.seen = []

    def act(self, obs, noise=None):
        del noise
        self.seen.append(obs.clone())
        return obs[:, :2].sum(1, keepdim=True) / 1000.0 + 0.25


def live(inner, length=3):
    return HistoryPolicy(inner, History(length, length - 1), resting_action(SPACE))


def test_a_policy_sees_in_a_simulator_what_the_dataset_of_these_episodes_holds():
    inner = Recorder()
    envs = [Countdown() for _ in range(3)]
    records = list(run_episodes(envs, live(inner), rng=RngStreams(0), is_deterministic=True, episodes=8))
    log = Dataset.from_episodes(
        [
            {
                "observations": record.observations,
                "actions": record.actions,
                "terminated": record.terminated,
                "truncated": record.truncated,
            }
            for record in records
        ],
        act_low=SPACE.act_low[0],
        act_high=SPACE.act_high[0],
    )
    stacked = with_history(log, 3)
    logged = np.concatenate([episode.observations[:-1] for episode in stacked.episodes])
    seen = torch.cat(inner.seen).numpy()
    assert len(logged) == len(seen) == sum(map(len, records))
    order = [np.lexsort(rows.T) for rows in (logged, seen)]
    assert np.array_equal(logged[order[0]], seen[order[1]])


def test_an_episode_that_is_over_is_forgotten():
    inner = Recorder()
    policy, frame = live(inner), torch.tensor([[5.0, 6.0]])
    first = policy.act_in_episodes(frame, episodes=[7])
    policy.act_in_episodes(frame + 1, episodes=[7])
    assert inner.seen[-1][0].tolist() == [6.0, 7.0, 5.0, 6.0, 5.0, 6.0, float(first), 0.25]
    policy.reset([7])
    policy.act_in_episodes(frame, episodes=[7])
    assert torch.equal(inner.seen[-1], inner.seen[0])
    policy.act_in_episodes(frame + 1, episodes=[7])
    policy.reset()
    policy.act(frame)  # remembers nothing
    policy.act_in_episodes(frame, episodes=[7])
    assert torch.equal(inner.seen[-1], inner.seen[0])
    assert torch.equal(inner.seen[-2], inner.seen[0])
