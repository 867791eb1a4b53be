"""The Bellman-inconsistency penalty against loops over elites, samples and rows."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.mobile import InconsistencyPenalty, MOBILEConfig
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LearnerContext
from mbrl.learners.sac import SAC, SACConfig
from mbrl.nets.normaliser import Normaliser
from tests.algorithms.toy import LEARNER, SCALE, SPREAD, HandModel, make_config, make_context, make_training
from tests.run.toy import SPACE, transitions

VALUE = torch.tensor([1.0, -2.0, 0.5])


class Noisy(HandModel):
    """The hand model with deviations of 0.3, 0.2 and 0.1 in s'."""

    def predict(self, obs, action):
        posterior = super().predict(obs, action)
        variance = torch.tensor([0.3, 0.2, 0.1]).square().expand_as(posterior.mean)
        return dataclasses.replace(posterior, variance=variance)


class LinearValue:
    """A learner that keeps the last batch it was given; `V(s, noise) = VALUE . s + noise_0`."""

    def __init__(self):
        self.batch, self.rows = None, []

    def next_value(self, state, next_obs, noise):
        self.rows.append(len(next_obs))
        return next_obs @ VALUE + noise[:, 0]

    def update(self, state, batch, generator):
        self.batch = batch
        return {"loss": batch.reward.sum()}


def penalty(model, **values):
    return InconsistencyPenalty(LinearValue(), model, MOBILEConfig(learner={"name": "sac"}, **values))


def rows(count=40):
    batch = transitions()
    return batch.observation[:count], batch.action[:count]


def test_the_inconsistency_of_a_noiseless_model_is_the_spread_of_its_values():
    obs, action = rows()
    uncertainty = penalty(HandModel(), samples=1).inconsistency(
        None, obs, action, generator=RngStreams(0).at("update")
    )
    # Members stand at -1, 0 and 1 times sum|a| / 10 * SCALE from each other: deviation 1 with ddof 1.
    expected = float(SPREAD.std()) * action.abs().sum(-1) / 10 * (SCALE @ VALUE).abs()
    torch.testing.assert_close(uncertainty, expected)


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_inconsistency_equals_a_loop_over_elites_and_samples(is_shared):
    obs, action = rows(7)
    samples = 4
    uncertainty = penalty(Noisy(), samples=samples, is_noise_shared=is_shared).inconsistency(
        None, obs, action, generator=RngStreams(0).at("update")
    )
    noise = torch.randn(samples, 1 if is_shared else 3, 7, 5, generator=RngStreams(0).at("update"))
    posterior = Noisy().predict(obs, action)
    for row in range(7):
        means = []
        for member in range(3):
            values = []
            for j in range(samples):
                draw = noise[j, 0 if is_shared else member, row]
                successor = posterior.mean[member, row] + posterior.variance[member, row].sqrt() * draw[:3]
                values.append(float(successor @ VALUE + draw[3]))
            means.append(np.mean(values))
        assert float(uncertainty[row]) == pytest.approx(np.std(means, ddof=1), rel=1e-4)


def test_elites_that_agree_are_consistent_with_shared_noise_only():
    obs, _ = rows(200)
    action = torch.zeros(200, 2)  # no spread of the means
    generator = RngStreams(0).at("update")
    assert (penalty(Noisy(), samples=1).inconsistency(None, obs, action, generator=generator) < 1e-5).all()
    uncertainty = penalty(Noisy(), samples=1, is_noise_shared=False).inconsistency(
        None, obs, action, generator=generator
    )
    # sd of V at a sampled successor: sqrt(.3^2 + (2 * .2)^2 + (.5 * .1)^2 + 1)
    assert float(uncertainty.square().mean()) == pytest.approx(0.09 + 0.16 + 0.0025 + 1, rel=0.15)


def test_only_imagined_rows_pay_wherever_they_stand_and_only_they_are_computed():
    from_model = torch.arange(40) % 3 == 1
    batch = dataclasses.replace(_without_next(40), from_model=from_model)
    wrapped = penalty(HandModel(), samples=2, inconsistency_coef=1.5)
    metrics = wrapped.update(None, batch, RngStreams(0).at("update"))
    expected = expected_uncertainty(batch.action)
    seen = wrapped.learner.batch
    torch.testing.assert_close(seen.reward[from_model], (batch.reward - 1.5 * expected)[from_model])
    assert torch.equal(seen.reward[~from_model], batch.reward[~from_model])
    assert sum(wrapped.learner.rows) == 2 * 3 * int(from_model.sum())
    assert float(metrics["critic/inconsistency"]) == pytest.approx(
        float(expected[from_model].mean()), rel=1e-5
    )
    for field in ("observation", "action", "next_observation", "terminated"):
        assert getattr(seen, field) is getattr(batch, field)


def test_many_rows_go_through_the_critics_in_pieces():
    wrapped = penalty(HandModel(), samples=5)
    obs, action = rows(300)
    uncertainty = wrapped.inconsistency(None, obs, action, generator=RngStreams(0).at("update"))
    assert max(wrapped.learner.rows) <= 1024
    assert sum(wrapped.learner.rows) == 5 * 3 * 300
    torch.testing.assert_close(uncertainty, expected_uncertainty(action), rtol=1e-4, atol=1e-5)


def test_a_batch_without_imagined_rows_passes_unchanged():
    wrapped = penalty(HandModel())
    batch = _without_next(20)
    metrics = wrapped.update(None, batch, RngStreams(0).at("update"))
    assert torch.equal(wrapped.learner.batch.reward, batch.reward)
    assert float(metrics["critic/inconsistency"]) == 0


def test_rescaling_rewards_and_values_rescales_the_penalty():
    obs, action = rows()
    wrapped = penalty(HandModel(), samples=1)
    plain = wrapped.inconsistency(None, obs, action, generator=RngStreams(0).at("update"))
    value = wrapped.learner.next_value
    wrapped.learner.next_value = lambda *args: 1000 * value(*args)
    scaled = wrapped.inconsistency(None, obs, action, generator=RngStreams(0).at("update"))
    torch.testing.assert_close(scaled, 1000 * plain, rtol=1e-4, atol=1e-3)


def test_the_target_of_an_imagined_row_is_lowered_by_beta_u():
    learner = SAC(SACConfig(hidden=(8,), has_entropy_backup=False), LearnerContext(SPACE, identity(), 10))
    state = learner.init(RngStreams(0).at("init"))
    config = MOBILEConfig(learner={"name": "sac"}, samples=3, inconsistency_coef=2.0)
    wrapped = InconsistencyPenalty(learner, HandModel(), config)
    batch = dataclasses.replace(_without_next(16), from_model=torch.arange(16) < 8)
    noise, coef = torch.zeros(16, 2), torch.tensor(1.0)
    plain = learner.critic_target(state, batch, noise, coef)
    uncertainty = wrapped.inconsistency(
        state, batch.observation, batch.action, generator=RngStreams(0).at("update")
    )
    seen: list[torch.Tensor] = []
    update = learner.update

    def watched(state, batch, generator):
        seen.append(learner.critic_target(state, batch, noise, coef))
        return update(state, batch, generator)

    learner.update = watched
    wrapped.update(state, batch, RngStreams(0).at("update"))
    assert uncertainty.min() > 0
    torch.testing.assert_close(seen[0][8:], plain[8:])
    half = wrapped.inconsistency(
        learner.init(RngStreams(0).at("init")),
        batch.observation[:8],
        batch.action[:8],
        generator=RngStreams(0).at("update"),
    )
    torch.testing.assert_close(seen[0][:8], plain[:8] - 2.0 * half)


@pytest.mark.slow
def test_targets_are_not_clamped_at_zero(toy):
    """r = -1 for ever at discount 0.9 is worth -10."""
    learner = {**LEARNER, "hidden": [32], "discount": 0.9, "polyak_tau": 0.5, "has_entropy_backup": False}
    rates = {"critic_learning_rate": 1e-2, "actor_learning_rate": 3e-3, "entropy_coef": 0.01}
    training = make_training(
        toy, "mobile", learner=learner | rates, inconsistency_coef=0.0, rollout={"starts": 40, "horizon": 3}
    )
    generator = RngStreams(0).at("update")
    state = training.learner.init(generator)
    data = _without_next(200)
    for step in range(300):
        index = torch.randint(200, (32,), generator=generator)
        half = torch.arange(32) % 2 == 0
        batch = TransitionBatch(
            data.observation[index], data.action[index], -torch.ones(32), data.next_observation[index],
            torch.zeros(32, dtype=torch.bool), half,
        )  # fmt: skip
        metrics = training.learner.update(state, batch, RngStreams(1).at("update", step))
    assert float(metrics["critic/value"]) == pytest.approx(-10, abs=0.5)


@pytest.mark.parametrize("name", ["bc", "bcq"])
def test_a_learner_without_a_bootstrap_value_is_refused(toy, name):
    with pytest.raises(ConfigError, match=rf"mobile compares the values.*'{name}' does not tell.*name=sac"):
        make_training(toy, "mobile", learner={"name": name, "hidden": [8]})


BOOTSTRAPS = {
    "sac": {"has_entropy_backup": False},
    "cql": {},
    "td3_bc": {},
    "rebrac": {},
    "awac": {},
    "iql": {},
}


@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_every_other_learner_is_penalised_by_what_it_bootstraps_on(toy, name):
    """A member's successors lie in a plane where V is linear: u is the spread of V over the members."""
    values = {"name": name, "hidden": [8], "discount": 0.9, **BOOTSTRAPS[name]}
    training = make_training(
        toy, "mobile", learner=values, inconsistency_coef=0.5, samples=1, reward_transform="none"
    )
    state = training.learner.init(RngStreams(0).at("init"))
    obs, action = rows(20)
    uncertainty = training.learner.inconsistency(state, obs, action, generator=RngStreams(0).at("update"))
    noise = torch.randn(1, 1, 20, 5, generator=RngStreams(0).at("update"))[0, 0, :, 3:]
    means = training.learner.model.predict(obs, action).mean
    learner = training.learner.learner
    expected = torch.stack([learner.next_value(state, mean, noise) for mean in means]).std(0)
    assert float(expected.min()) > 0
    torch.testing.assert_close(uncertainty, expected)
    batch = dataclasses.replace(transitions(), from_model=torch.arange(len(transitions())) % 2 == 0)
    metrics = training.learner.update(state, batch, RngStreams(0).at("update"))
    assert float(metrics["critic/inconsistency"]) > 0


def test_one_elite_has_nothing_to_compare(toy):
    class Single(HandModel):
        @property
        def ensemble_size(self):
            return 1

    with pytest.raises(ConfigError, match=r"at least two elites"):
        make_training(dataclasses.replace(toy, model=Single()), "mobile")


def test_real_ratio_one_leaves_the_learner_alone():
    config = make_config("mobile", real_ratio=1, reward_transform="none")
    training = RECIPES.get("mobile").build(config, make_context(None))
    assert isinstance(training.learner, SAC)


def test_values_may_be_lower_by_sustained_penalties(toy):
    low, high = make_training(toy, "mobile", inconsistency_coef=0.0).value_bounds
    assert make_training(toy, "mobile", inconsistency_coef=0.5).value_bounds == pytest.approx(
        (low - 100 * 0.5 * 0.5 * (high - low), high)
    )


def expected_uncertainty(action):
    return action.abs().sum(-1) / 10 * (SCALE @ VALUE).abs()


def identity():
    return Normaliser.identity(3)


def _without_next(count):
    batch = transitions()
    parts = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return TransitionBatch(**{name: part if part is None else part[:count] for name, part in parts.items()})
