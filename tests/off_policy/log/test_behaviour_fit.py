"""Behaviour policies whose density is known."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.options import LoadOptions
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.log.behaviour_fit import BehaviourConfig, fit_behaviour, is_one_hot
from mbrl.off_policy.log.policies import action_log_prob
from tests.off_policy.logs import generator, lqg_log, table_log
from tests.off_policy.tabular import random_policy

QUICK = BehaviourConfig(family="gaussian", updates=150, hidden=(16,))


def logged(dataset: Dataset) -> np.ndarray:
    return np.concatenate([e.behaviour_log_prob for e in dataset.episodes]).astype(np.float64)


def noise(episode, draws: torch.Generator) -> torch.Tensor:
    return torch.randn(episode.actions.shape, generator=draws)


def with_actions(dataset: Dataset, change) -> Dataset:
    """The log with the actions of each episode changed, `change(index, episode)`."""
    episodes = [
        dataclasses.replace(e, actions=change(k, e).astype(np.float32))
        for k, e in enumerate(dataset.episodes)
    ]
    return dataclasses.replace(dataset, episodes=tuple(episodes))


@pytest.mark.slow
def test_a_gaussian_behaviour_is_found_and_its_entropy_with_it():
    dataset = lqg_log()
    fit = fit_behaviour(dataset, generator=generator())
    truth = logged(dataset)
    assert fit.family == "gaussian"  # the mixture can only lose on held-out episodes
    assert fit.nll == pytest.approx(-truth.mean(), abs=0.01)
    entropy = 0.5 * np.log(2 * np.pi * np.e * (0.4 / 8) ** 2)  # on the scale [-1, 1], as densities are
    assert fit.nll == pytest.approx(entropy, abs=0.04)
    assert np.abs(fit.log_prob - truth).mean() < 0.06
    assert fit.calibration_error < 1.63 / np.sqrt(len(truth)) + 0.01  # the 1 % point of Kolmogorov's test


@pytest.mark.slow
def test_two_modes_ask_for_a_mixture():
    rng = np.random.default_rng(0)
    dataset = with_actions(
        lqg_log(100),
        lambda k, e: 2.0 * rng.choice([-1.0, 1.0], e.actions.shape) + 0.2 * rng.normal(size=e.actions.shape),
    )
    fit = fit_behaviour(dataset, generator=generator())
    assert fit.family == "mixture"
    entropy = np.log(2) + 0.5 * np.log(2 * np.pi * np.e * (0.2 / 8) ** 2)
    assert fit.nll == pytest.approx(entropy, abs=0.05)
    single = fit_behaviour(dataset, config=BehaviourConfig(family="gaussian"), generator=generator())
    assert single.nll > fit.nll + 1.0
    assert single.calibration_error > 0.1 > fit.calibration_error


@pytest.mark.slow
def test_probabilities_of_finitely_many_actions_are_found():
    mdp, dataset, _, _ = table_log(n=1500)
    fit = fit_behaviour(dataset, generator=generator())
    assert fit.family == "categorical"
    rows = dataset.transitions()
    truth = np.log(random_policy(1, mdp)[rows.observation.argmax(1), rows.action.argmax(1)])
    assert fit.nll == pytest.approx(-truth.mean(), abs=0.01)
    assert np.abs(fit.log_prob - truth).mean() < 0.06
    assert fit.calibration_error < 0.04
    assert fit.boundary_share == 0.0


def test_no_network_scores_an_episode_that_it_has_seen():
    """Other actions in one episode leave the scores of its fold's other episodes as they were, to the bit."""
    dataset = lqg_log(10, 30)
    changed = with_actions(dataset, lambda k, e: e.actions + 3.0 * (k == 4))
    first, second = (fit_behaviour(d, config=QUICK, generator=generator()) for d in (dataset, changed))
    np.testing.assert_array_equal(first.fold, second.fold)
    episode = dataset.transitions().episode
    assert all(len(set(first.fold[episode == k])) == 1 for k in range(10))
    assert set(first.fold) == set(range(5))
    mates = (first.fold == first.fold[episode == 4][0]) & (episode != 4)
    others = first.fold != first.fold[episode == 4][0]
    raised = (first.log_prob == first.log_prob.min()) | (second.log_prob == second.log_prob.min())
    assert mates.any()
    np.testing.assert_array_equal(first.log_prob[mates & ~raised], second.log_prob[mates & ~raised])
    assert (first.log_prob[others & ~raised] != second.log_prob[others & ~raised]).all()


def test_few_episodes_make_few_folds_and_one_is_cut_in_time():
    three = fit_behaviour(lqg_log(3), config=QUICK, generator=generator())
    assert set(three.fold) == {0, 1, 2}
    one = fit_behaviour(lqg_log(1), config=QUICK, generator=generator())
    assert len(set(one.fold[:10])) == len(set(one.fold[10:])) == 1
    assert one.fold[0] != one.fold[-1]


def test_a_bounded_squashed_behaviour_needs_the_jacobian():
    """A wide squashed Gaussian: without the change of variables the likelihood would be off by half a nat."""
    space = SpaceSpec(1, 1, (-8.0,), (8.0,))
    actor = TanhGaussianActor(
        ActorSpec("tanh_gaussian", space, hidden=(4,)), Normaliser.identity(1), generator()
    )
    draws = generator(1)
    dataset = with_actions(
        lqg_log(60), lambda k, e: actor.act(torch.tensor(e.observations[:-1]), noise(e, draws)).numpy()
    )
    rows = dataset.transitions()
    truth = action_log_prob(actor, torch.tensor(rows.observation), torch.tensor(rows.action)).numpy()
    fit = fit_behaviour(dataset, config=QUICK.model_copy(update={"updates": 400}), generator=generator())
    assert fit.nll == pytest.approx(-truth.mean(), abs=0.03)


def test_jacobians_of_the_same_squash_cancel():
    """The ratio of two squashed densities is that before squashing, at a bound too."""
    space = SpaceSpec(1, 1, (-8.0,), (8.0,))
    spec = ActorSpec("tanh_gaussian", space, hidden=(4,))
    actors = [TanhGaussianActor(spec, Normaliser.identity(1), generator(k)) for k in range(2)]
    obs = torch.linspace(-1, 1, 5)[:, None]
    action = torch.tensor([[-8.0], [-3.0], [0.0], [7.9], [8.0]])
    ratio = action_log_prob(actors[0], obs, action) - action_log_prob(actors[1], obs, action)
    x = torch.atanh((action / 8).double().clamp(-1 + 1e-5, 1 - 1e-5))
    before = []
    for actor in actors:
        mean, log_std = actor.moments(obs)
        before.append(torch.distributions.Normal(mean.double(), log_std.double().exp()).log_prob(x)[:, 0])
    torch.testing.assert_close(ratio, (before[0] - before[1]).detach(), rtol=1e-3, atol=1e-3)


def test_the_rows_that_the_fit_finds_absurd_are_raised_to_its_lowest_thousandth():
    dataset = with_actions(
        lqg_log(100), lambda k, e: np.where(np.arange(20)[:, None] + k == 0, 7.9, e.actions)
    )
    fit = fit_behaviour(dataset, config=QUICK, generator=generator())
    assert fit.floored_rows == 2  # of 2000
    assert (fit.log_prob == fit.log_prob.min()).sum() == 2
    assert fit.log_prob[0] == fit.log_prob.min()


def test_actions_at_a_bound_are_counted():
    dataset = with_actions(lqg_log(10), lambda k, e: np.where(np.arange(20)[:, None] < 5, -8.0, e.actions))
    assert fit_behaviour(dataset, config=QUICK, generator=generator()).boundary_share == 0.25


def test_one_hot_actions_are_recognised():
    _, dataset, _, _ = table_log(n=5)
    assert is_one_hot(dataset)
    assert not is_one_hot(lqg_log(2))
    assert not is_one_hot(with_actions(dataset, lambda k, e: np.where(e.actions == 1, 1.0, 1.0)))


def test_choices_are_fitted_among_those_that_were_allowed():
    """Uniform over what is allowed: with the masks the likelihood is exact, without them it cannot be."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(20):
        mask = rng.random((41, 4)) < 0.6
        mask[np.arange(41), rng.integers(4, size=41)] = True
        ids = [int(rng.choice(np.flatnonzero(row))) for row in mask[:-1]]
        observations = rng.normal(size=(41, 2))
        episodes.append({"observations": observations, "actions": np.array(ids), "truncated": True})
        episodes[-1]["infos"] = {"action_mask": mask}
    dataset = Dataset.from_episodes(episodes, choices=4, options=LoadOptions(order="trust"))
    truth = np.concatenate([-np.log(e.infos["action_mask"][:-1].sum(1)) for e in dataset.episodes])
    config = BehaviourConfig(updates=100, hidden=(16,))
    fit = fit_behaviour(dataset, config=config, generator=generator())
    assert fit.family == "categorical"
    assert np.abs(fit.log_prob - truth).mean() < 0.12
    assert np.abs(fit.log_prob[truth == 0]).max() == 0.0  # the only choice that was allowed
    blind = dataclasses.replace(
        dataset, episodes=tuple(dataclasses.replace(e, infos={}) for e in dataset.episodes)
    )
    assert fit_behaviour(blind, config=config, generator=generator()).nll > fit.nll + 0.3
