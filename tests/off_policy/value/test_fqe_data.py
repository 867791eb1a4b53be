import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.value.fqe_data import (
    DRAW_BLOCK,
    FirstStates,
    PreparedRows,
    draw_rows,
    member_rows,
    reward_scale,
    target_bounds,
)
from mbrl.off_policy.value.value_net import QEnsemble, RewardScale
from tests.off_policy.logs import generator, lqg_log, table_log


def ensemble(dataset: Dataset, estimand: Estimand, *, is_discrete: bool = True) -> QEnsemble:
    return QEnsemble(
        2,
        dataset.spec,
        (4,),
        normaliser=Normaliser.identity(dataset.spec.obs_dim),
        scale=RewardScale(0.5, 2.0),
        estimand=estimand,
        is_discrete=is_discrete,
        layer_norm=False,
        generator=generator(),
    )


def with_reward(dataset: Dataset, reward: float) -> Dataset:
    episodes = [dataclasses.replace(e, rewards=np.full_like(e.rewards, reward)) for e in dataset.episodes]
    return dataclasses.replace(dataset, episodes=tuple(episodes))


def test_members_do_not_see_their_fold():
    _, dataset, _, _ = table_log(n=12)
    fold = np.arange(12) % 3
    for bootstrap in (False, True):
        parts = member_rows(dataset, 5, generator=generator(), bootstrap=bootstrap, fold=fold)
        for member, rows in enumerate(parts):
            seen = np.unique(dataset.transitions().episode[rows.numpy()])
            assert member % 3 not in fold[seen]
            if not bootstrap:
                assert len(seen) == 8


def test_a_resample_repeats_whole_episodes():
    _, dataset, _, _ = table_log(n=12)
    episode, lengths = dataset.transitions().episode, dataset.episode_lengths
    for rows in member_rows(dataset, 3, generator=generator(), bootstrap=True):
        counts = np.bincount(episode[rows.numpy()], minlength=12)
        assert (counts % lengths == 0).all()
        assert (counts // lengths).sum() == 12
    (whole,) = member_rows(dataset, 1, generator=generator(), bootstrap=False)
    assert whole.tolist() == list(range(len(episode)))


def test_rows_are_drawn_from_each_members_own():
    drawn = draw_rows([torch.tensor([3]), torch.tensor([5, 7])], 4, generator())
    assert drawn.shape == (DRAW_BLOCK, 2, 4)
    assert (drawn[:, 0] == 3).all()
    assert set(drawn[:, 1].unique().tolist()) == {5, 7}


def test_the_value_of_the_successor_is_a_mean_over_probabilities():
    """`sum_a pi(a|s') Q(s', a)` of each member's own target network; 0 after a terminal comes by the mask."""
    _, dataset, policy, _ = table_log(n=5)
    values, log = ensemble(dataset, Estimand(0.8)), dataset.transitions()
    after = torch.tensor(log.next_observation)
    rows = PreparedRows.prepare(values, log, policy.probs(after))
    index = torch.tensor([[0, 3, 2], [1, 1, 4]])
    found = rows.next_values(values, values.net, index, None, None)
    q = values.net(after[index])
    torch.testing.assert_close(found, (q * policy.probs(after)[index]).sum(-1))
    assert rows.mask.tolist() == (~log.terminated).astype(float).tolist()
    torch.testing.assert_close(rows.reward, (torch.tensor(log.reward) - 0.5) / 2.0)


def test_the_only_action_of_a_deterministic_policy_is_a_part_of_the_input():
    dataset = lqg_log(3, 4)
    values, log = ensemble(dataset, Estimand(0.8), is_discrete=False), dataset.transitions()
    actions = torch.full((1, len(log), 1), 4.0)
    rows = PreparedRows.prepare(values, log, actions)
    index = torch.tensor([[0, 5], [2, 2]])
    after = torch.tensor(log.next_observation)[index]
    inputs = torch.cat([after, torch.full_like(after, 0.5)], -1)  # 4 of 8 is half of the box
    torch.testing.assert_close(
        rows.next_values(values, values.net, index, None, None), values.net(inputs).squeeze(-1)
    )


def test_first_states_are_thinned_evenly():
    obs = torch.arange(10.0)[:, None]
    _, dataset, _, _ = table_log(n=2)
    starts = FirstStates.prepare(ensemble(dataset, Estimand(1.0, horizon=7)), obs, obs)
    some = starts.some(5)
    assert some.obs[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert some.to_go is not None
    assert some.to_go.tolist() == [7] * 5


def test_targets_stay_within_what_rewards_permit():
    """Scaled rewards of `(2 - 0.5) / 2 = 0.75` over five discounted steps; 0 where episodes end."""
    _, dataset, _, _ = table_log(n=30)
    dataset = with_reward(dataset, 2.0)
    bounds = target_bounds(dataset, ensemble(dataset, Estimand(0.8)))
    assert bounds is not None
    assert dataset.transitions().terminated.any()
    found = bounds.clip(torch.tensor([-1.0, 3.0, 9.0]), None)
    torch.testing.assert_close(found, torch.tensor([0.0, 3.0, 3.75]), atol=1e-4, rtol=0)
    clock = dataclasses.replace(bounds, estimand=Estimand(0.5, horizon=3))
    found = clock.clip(torch.tensor([9.0, 9.0]), torch.tensor([1, 3]))
    torch.testing.assert_close(found, torch.tensor([0.75, 0.75 * 1.75]), atol=1e-4, rtol=0)
    assert target_bounds(dataset, ensemble(dataset, Estimand(1.0, is_proper=True))) is None


def test_the_mean_reward_is_taken_out_only_where_no_episode_ends():
    _, dataset, _, _ = table_log(n=30)
    rows = dataset.transitions()
    found = reward_scale(rows, Estimand(0.8))
    assert (found.mean, found.std) == (0.0, pytest.approx(rows.reward.astype(np.float64).std()))
    endless = lqg_log(3, 4).transitions()
    assert reward_scale(endless, Estimand(0.8)).mean == pytest.approx(endless.reward.mean(dtype=np.float64))
    assert reward_scale(with_reward(dataset, -3.0).transitions(), Estimand(0.8)).std == 3.0
