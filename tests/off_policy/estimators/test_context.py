import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.core.types import SpaceSpec
from mbrl.off_policy.estimators.context import EstimatorSettings
from mbrl.off_policy.estimators.marginal_ratio import MWLConfig
from mbrl.off_policy.log.behaviour import BehaviourCache
from mbrl.off_policy.log.behaviour_fit import BehaviourConfig
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.planning.tabular.policy import among_allowed
from tests.off_policy.logs import ask, context_of, generator, linear, lqg_log, table_log, unlogged

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)


def test_a_value_is_fitted_once_for_all_who_ask():
    _, dataset, policy, _ = table_log(n=10)
    context = context_of(policy, dataset, Estimand(0.8), FQE)
    first = context.fit_values(generator(0))
    assert context.fit_values(generator(1)) is first
    assert ask(context, "fqe", seed=2).point == first.estimate().point
    logged = context.members_on_log(generator(3))
    assert context.members_on_log(generator(4)) is logged
    np.testing.assert_array_equal(logged[0], first.members_on_log(dataset, generator=generator())[0])


def test_marginal_ratios_are_fitted_once_for_all_who_ask():
    _, dataset, policy, _ = table_log(n=20)
    context = context_of(policy, dataset, Estimand(0.8), mwl=MWLConfig(kernel="delta", ridge=0.0))
    assert context.marginal_ratio(generator(1)) is context.marginal_ratio(generator(0))


def test_two_policies_that_are_equal_by_name_alone_share_nothing():
    """A context is of one policy: another that lies in the same place in memory is not taken for it."""
    _, dataset, policy, _ = table_log(n=10)
    other = dataclasses.replace(policy, table=policy.table.flip(1))
    first, second = (context_of(p, dataset, Estimand(0.8), FQE) for p in (policy, other))
    assert ask(first, "fqe").point != ask(second, "fqe").point


def test_values_of_unseen_episodes_are_a_fit_of_their_own():
    _, dataset, policy, _ = table_log(n=12)
    context = context_of(policy, dataset, Estimand(0.8), FQE, crossfit=3)
    across = context.fit_values(generator(), is_corrected=True)
    assert across.fold is not None
    assert np.bincount(across.fold).tolist() == [4, 4, 4]
    assert context.values_on_log(generator(), is_corrected=True).members == ()
    plain = context.fit_values(generator())
    assert plain.fold is None
    assert len(context.values_on_log(generator()).members) == 5


@pytest.mark.parametrize("wrong", [1, 6])
def test_folds_need_as_many_members(wrong: int):
    with pytest.raises(ConfigError, match="2 to 5 folds"):
        EstimatorSettings(Estimand(0.8), FQE, crossfit=wrong)


def test_the_values_on_the_log_are_the_means_of_the_members():
    _, dataset, policy, _ = table_log(n=10)
    found = context_of(policy, dataset, Estimand(0.8), FQE).values_on_log(generator())
    mean = np.mean([member.value for member in found.members], 0)
    np.testing.assert_allclose(found.value, mean, rtol=1e-12)
    assert found.why_not is not None  # twenty updates settle nothing
    assert "updates" in found.why_not


@pytest.mark.parametrize(("estimand", "needs"), [(Estimand(0.8), True), (Estimand(0.8, horizon=8), False)])
def test_a_tail_is_needed_where_time_outs_cut_and_no_horizon_is_asked_for(estimand, needs):
    _, dataset, policy, _ = table_log(n=10)
    assert context_of(policy, dataset, estimand).needs_tail == needs


def test_ratios_are_those_of_the_densities():
    dataset, policy = lqg_log(6, 4), linear(0.5, 0.35)
    rows = dataset.transitions()
    own = policy.log_prob(torch.tensor(rows.observation), torch.tensor(rows.action)).double().numpy()
    logged = np.concatenate([e.behaviour_log_prob for e in dataset.episodes]).astype(np.float64)
    found = context_of(policy, dataset, Estimand(0.9, horizon=4)).ratio_arrays()
    np.testing.assert_allclose(found.log_ratio.reshape(-1), own - logged, rtol=1e-12)


def test_a_fitted_behaviour_is_shared_by_contexts_of_the_same_settings():
    dataset, policy = unlogged(lqg_log(6, 4)), linear(0.5, 0.35)
    cache = BehaviourCache(BehaviourConfig(family="gaussian", updates=20, hidden=(4,)))
    first = context_of(policy, dataset, Estimand(0.9, horizon=4), behaviour=cache)
    other = context_of(DeterministicMode(policy), dataset, Estimand(0.9, horizon=4), behaviour=cache)
    assert other.behaviour is first.behaviour


def test_probabilities_are_those_among_the_choices_that_the_log_allowed():
    mdp, dataset, _, _ = table_log(n=40)
    table = torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)
    episodes = []
    for index, episode in enumerate(dataset.episodes):
        mask = np.zeros((len(episode) + 1, mdp.actions), dtype=bool)
        mask[:-1] = episode.actions > 0  # nothing else was allowed
        if index % 2:
            mask[:] = True
        episodes.append(dataclasses.replace(episode, infos={"action_mask": mask}))
    masked = dataclasses.replace(
        dataset, episodes=tuple(episodes), spec=SpaceSpec.discrete(mdp.states, mdp.actions)
    )
    policy = MaskedTable(table)
    context = context_of(policy, masked, Estimand(0.9, horizon=6))
    expected = [0.0 if index % 2 == 0 else -np.log(mdp.actions) for index in range(len(masked))]
    rows = np.repeat(expected, masked.episode_lengths)
    np.testing.assert_allclose(context.log_prob(), rows, atol=1e-7)
    value = context.values_on_log(generator())
    starts = np.cumsum(masked.episode_lengths + 1) - (masked.episode_lengths + 1)
    first = np.cumsum(masked.episode_lengths) - masked.episode_lengths
    # Where one choice alone is allowed V is its Q.
    np.testing.assert_allclose(value.value[starts[::2]], value.action_value[first[::2]], rtol=1e-5)
    assert not np.allclose(value.value[starts[1::2]], value.action_value[first[1::2]], rtol=1e-3)


@dataclasses.dataclass(frozen=True)
class MaskedTable:
    """One-hot states; what a mask forbids has probability 0."""

    table: torch.Tensor

    @property
    def act_dim(self) -> int:
        return self.table.shape[1]

    def probs(self, obs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return among_allowed(self.table[obs.argmax(-1)], mask)

    def act(self, obs, noise=None, mask=None) -> torch.Tensor:
        return torch.nn.functional.one_hot(self.probs(obs, mask).argmax(-1), self.act_dim).float()
