"""Tables against their definition: counts, posterior, moments, draws."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.protocols import DynamicsModel, SamplingModel
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.dynamics.tabular.counts import PRIORS, fit_table, likeliest_prior
from mbrl.dynamics.tabular.model import TabularDynamics, TabularTermination

A, B, C = np.array([0.0, 1.0]), np.array([5.0, -2.0]), np.array([9.0, 9.0])


def episode(path, choices, rewards, *, terminated=True) -> Episode:
    return Episode(
        observations=np.stack(path).astype(np.float32),
        actions=np.eye(2, dtype=np.float32)[list(choices)],
        rewards=np.array(rewards, dtype=np.float32),
        terminated=terminated,
        truncated=not terminated,
    )


def log() -> Dataset:
    """From A action 0 leads to B three times of four and back to A once; from B action 0 ends in C."""
    episodes = (
        episode([A, B, C], (0, 0), (1.0, 2.0)),
        episode([A, B, C], (0, 0), (1.0, 4.0)),
        episode([A, A, B, C], (0, 0, 0), (0.0, 1.0, 3.0)),
    )
    return Dataset(episodes, SpaceSpec.discrete(2, 2), DatasetInfo("three states"))


def fitted(
    members: int = 3, prior: float = 1.0, seed: int = 0, dataset: Dataset | None = None
) -> TabularDynamics:
    data = dataset or log()
    return fit_table(data, data, members=members, prior=prior, rng=RngStreams(seed))


def test_a_state_allows_what_any_mask_of_the_log_allows():
    masks = np.array([[True, False], [True, True], [False, False]])
    first, *others = log().episodes
    given = dataclasses.replace(first, infos={"action_mask": masks})
    only_b = dataclasses.replace(
        others[1], infos={"action_mask": np.array([[1, 0], [1, 0], [1, 0], [1, 1]]) > 0}
    )
    data = dataclasses.replace(log(), episodes=(given, only_b))
    # A allowed the first choice alone, whoever came by; B once both; a mask of an end says nothing.
    assert fitted(dataset=data).table.allowed.tolist() == [[True, False], [True, True], [True, True]]
    assert fitted().table.allowed.all()


def test_counts_rewards_and_ends_by_hand():
    model = fitted()
    table = model.table
    assert table.codes.tolist() == [A.tolist(), B.tolist(), C.tolist()]
    assert list(zip(table.origin.tolist(), table.successor.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 2)]
    assert table.count.tolist() == [[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]]
    # An action that was never tried is thought to earn and to end what the others did on the same way.
    members = fitted(members=4000).table
    torch.testing.assert_close(
        members.reward.mean(0), torch.tensor([[0.0, 1.0, 3.0]] * 2), atol=0.05, rtol=0.0
    )
    # Rewards of the way from B to C are 2, 4 and 3, of the others alike; 2/7 is the variance of all steps.
    variance = torch.tensor([2 / 7 / 2, 2 / 7 / 4, (2 + 2 / 7) / 4])
    torch.testing.assert_close(table.reward_variance, variance)
    way, worth = torch.tensor([2, 4, 4]), torch.tensor([[1 + 1, 3 + 1, 3 + 1], [1, 1, 1]])
    torch.testing.assert_close(members.reward.var(0), variance / way + variance / worth, rtol=0.1, atol=0.0)
    assert table.ends.tolist() == [[[0.0, 0.0, 1.0]] * 2] * 3
    assert table.visits.tolist() == [[4.0, 0.0], [3.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(table.chance[:, :, :2].sum(-1), torch.ones(3, 2))
    assert table.chance[:, :, 2].tolist() == [[1.0, 1.0]] * 3


def test_members_are_draws_of_the_hierarchy():
    """To B: p0 ~ Beta(3, 1), then Beta(3 + p0, 1 + 1 - p0) for what was tried, Beta(p0, 1 - p0) else."""
    chance = fitted(members=6000).table.chance[:, :, 1].double()
    shared = np.random.default_rng(0).beta(3.0, 1.0, 200_000)
    for action, n in enumerate((np.array([3.0, 1.0]), np.zeros(2))):
        draw = np.random.default_rng(1).beta(n[0] + shared + 1e-9, n[1] + 1 - shared + 1e-9)
        assert float(chance[:, action].mean()) == pytest.approx(draw.mean(), abs=0.015)
        assert float(chance[:, action].var()) == pytest.approx(draw.var(), rel=0.08)


def test_moments_are_those_of_the_distribution():
    model = fitted()
    assert isinstance(model, DynamicsModel)
    assert isinstance(model, SamplingModel)
    obs, action = torch.tensor(np.stack([A, A, B])).float(), torch.eye(2)[[0, 1, 1]]
    found = model.predict(obs, action)
    p = model.table.chance[:, [0, 1], 1]  # to B
    step = torch.tensor(B - A).float()
    torch.testing.assert_close(found.mean[:, :2], obs[0] + p[..., None] * step)
    torch.testing.assert_close(
        found.variance[:, :2], (p * (1 - p))[..., None] * step**2, atol=1e-5, rtol=1e-4
    )
    stay, go = (model.table.reward[:, [0, 1], k] for k in (0, 1))
    torch.testing.assert_close(found.reward_mean[:, :2], p * go + (1 - p) * stay)
    noise = p * model.table.reward_variance[1] + (1 - p) * model.table.reward_variance[0]
    torch.testing.assert_close(found.reward_variance[:, :2], p * (1 - p) * (go - stay) ** 2 + noise)
    assert found.mean[:, 2].tolist() == [C.tolist()] * 3
    member = torch.tensor([2, 0, 1])
    for part, whole in zip(
        model.predict_member(obs, action, member),
        (found.mean, found.variance, found.reward_mean, found.reward_variance),
        strict=True,
    ):
        torch.testing.assert_close(part, whole[member, torch.arange(3)])


def test_draws_are_states_with_the_chances_of_their_member():
    model = fitted()
    count = 4000
    obs, action = torch.tensor(A).float().expand(count, 2), torch.eye(2)[0].expand(count, 2)
    member = torch.arange(count) % 3
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    following, reward = model.draw_member(obs, action, member, noise)
    to_b = (following == torch.tensor(B).float()).all(-1)
    assert bool((to_b | (following == obs).all(-1)).all())
    for m in range(3):
        assert float(to_b[member == m].float().mean()) == pytest.approx(
            float(model.table.chance[m, 0, 1]), abs=0.04
        )
    expected = model.table.reward[:, 0, 1][member[to_b]].mean()
    assert float(reward[to_b].mean()) == pytest.approx(float(expected), abs=0.05)
    again, _ = model.draw_member(obs, action, member, noise)
    assert torch.equal(again, following)


def test_the_end_is_that_of_the_step_and_what_is_near_a_state_is_that_state():
    model = fitted()
    ends = TabularTermination(model)
    obs, following = torch.tensor(np.stack([A, B, A])).float(), torch.tensor(np.stack([B, C, C])).float()
    action = torch.eye(2)[[0, 0, 1]]
    assert ends(obs, action, following).tolist() == [0.0, 1.0, 1.0]  # the last pair is known from elsewhere
    assert model.state(torch.tensor([[0.1, 1.2], [6.0, -2.0]])).tolist() == [0, 1]


def test_more_steps_agree_more_and_an_untried_action_is_disputed():
    few = fitted(members=50)
    many = fitted(members=50, dataset=dataclasses.replace(log(), episodes=log().episodes * 50))
    obs = torch.tensor(A).float().expand(2, 2)
    spread = [model.predict(obs, torch.eye(2)).mean.std(0)[:, 0] for model in (few, many)]
    assert spread[0][1] > 1.2 * spread[0][0]
    assert spread[1][0] < 0.3 * spread[0][0]
    assert spread[1][1] > 0.5 * spread[0][1]


def test_a_state_that_only_held_out_steps_leave_borrows_from_all():
    data = log()
    other = episode([C + 1, B], (1,), (0.0,), terminated=False)
    whole = dataclasses.replace(data, episodes=(*data.episodes, other))
    model = fit_table(whole, data, members=2, prior=1.0, rng=RngStreams(0))
    table = model.table
    lonely = int(model.state(torch.tensor(C + 1).float()[None])[0])
    columns = slice(int(table.start[lonely]), int(table.start[lonely + 1]))
    assert table.successor[columns].tolist() == [0, 1, 2]
    assert float(table.count[:, columns].sum()) == 0.0
    torch.testing.assert_close(table.chance[:, :, columns].sum(-1), torch.ones(2, 2))
    assert table.ends[1, 0, columns].tolist() == [0.0, 0.0, 1.0]


def test_continuous_actions_and_states_are_refused():
    data = log()
    bent = tuple(dataclasses.replace(e, actions=0.5 * e.actions) for e in data.episodes)
    plain = dataclasses.replace(data, episodes=bent, spec=SpaceSpec(2, 2, (0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(DataError, match="kind=gaussian"):
        fitted(dataset=plain)


def test_the_log_chooses_what_the_prior_is_worth():
    """Dirichlet-multinomial counts of a known worth; and the formula on a table by hand."""
    rng = np.random.default_rng(0)
    base = np.array([0.5, 0.3, 0.2])
    start = 3 * np.arange(401)
    for worth in (1.0, 16.0):
        chances = rng.dirichlet(worth * base, size=(2, 400))
        counts = np.stack([[rng.multinomial(12, p) for p in row] for row in chances]).reshape(2, -1)
        assert likeliest_prior(counts.astype(float), np.tile(base, 400), start) == worth
    same = np.tile(12 * base, 400)[None].round()
    assert likeliest_prior(np.concatenate([same, same]), np.tile(base, 400), start) == PRIORS[-1]
