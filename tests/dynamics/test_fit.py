import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.dynamics.config import AssessmentConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.dynamics.termination import NeverTerminates, TerminationHead

from .systems import CONTROL, MATRIX, make_dataset, small_config


def posterior_disagreement(obs, action, episode, generator):
    """A measure of its own: layers below do not know the registry."""
    del obs, action, episode, generator
    return {
        "spread": lambda posterior, obs, action, outcome, episode: posterior.mean.std(0, correction=0).mean(
            -1
        )
    }


def fit(dataset, seed=0, **changes):
    config = small_config(**changes)
    return fit_dynamics(dataset, config, RngStreams(seed), measures=posterior_disagreement)


@pytest.fixture(scope="module")
def walled():
    return make_dataset(episodes=40, steps=30, wall=1.0)


@pytest.fixture(scope="module")
def fitted(walled):
    return fit(walled)


@pytest.fixture(scope="module")
def precise():
    """A longer fit of a linear system with known noise."""
    dataset = make_dataset(episodes=80, steps=60, noise=0.05)
    return dataset, fit(dataset, max_updates=450)


def test_a_linear_system_is_recovered_with_its_noise(precise):
    _, found = precise
    rng = np.random.default_rng(9)
    obs, action = rng.normal(0, 0.5, (500, 2)), rng.uniform(-1, 1, (500, 1))
    posterior = found.model.predict(torch.tensor(obs).float(), torch.tensor(action).float())
    expected = obs @ MATRIX.T + action @ CONTROL.T
    error = posterior.mean.mean(0).numpy() - expected
    assert np.sqrt((error**2).mean()) < 0.4 * 0.05  # well below the noise of a single row
    deviation = posterior.variance.sqrt().mean(1)
    assert float(deviation.min()) > 0.8 * 0.05
    assert float(deviation.max()) < 1.25 * 0.05


def test_intervals_cover_what_they_claim_on_episodes_kept_for_that(precise):
    report = precise[1].report
    assert report.calibration.coverage(0.9) == pytest.approx(0.9, abs=0.04)
    assert report.one_step.nrmse < report.one_step.nrmse_persistence
    assert report.trusted_horizon == 8
    assert report.warnings == () or "rank" in report.warnings[0]  # pure noise leaves nothing to rank


def test_interrupted_and_resumed_fits_have_the_same_bits(walled):
    states = []
    straight = fit_dynamics(
        walled,
        small_config(),
        RngStreams(1),
        measures=posterior_disagreement,
        on_epoch=lambda running: states.append((running.stage, running.state_dict())),
    )
    stages = [stage for stage, _ in states]
    assert {"ensemble", "termination", "done"} == set(stages)
    for cut in (1, stages.index("termination")):

        def restore(running, state=states[cut][1]):
            running.load_state_dict(state)
            return True

        resumed = fit_dynamics(
            walled,
            small_config(),
            RngStreams(1),
            measures=posterior_disagreement,
            restore=restore,
        )
        (meta, tensors), (other_meta, other) = straight.to_tensors(), resumed.to_tensors()
        assert meta == other_meta
        assert all(torch.equal(tensors[name], other[name]) for name in tensors)


def test_a_state_that_does_not_fit_is_refused_and_leaves_a_fresh_fit(walled):
    other = DynamicsFit(walled, small_config(hidden=(7,)), RngStreams(1))

    def restore(running):
        with pytest.raises(ValueError, match="shapes"):
            running.load_state_dict(other.state_dict())
        return False

    configs = small_config(max_updates=20)
    tried, fresh = (
        fit_dynamics(walled, configs, RngStreams(1), measures=posterior_disagreement, restore=how)
        for how in (restore, None)
    )
    assert all(
        torch.equal(value, fresh.to_tensors()[1][name]) for name, value in tried.to_tensors()[1].items()
    )


def test_a_checkpoint_holds_nothing_that_needs_a_pickle(walled, tmp_path):
    running = DynamicsFit(walled, small_config(), RngStreams(2))
    running.run_epoch()
    torch.save(running.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = DynamicsFit(walled, small_config(), RngStreams(2))
    other.load_state_dict(state)
    running.run_epoch()
    other.run_epoch()
    assert torch.equal(running.ensemble.net.flat, other.ensemble.net.flat)


def test_no_episode_is_on_both_sides_and_statistics_are_those_of_training(walled):
    running = DynamicsFit(walled, small_config(), RngStreams(0))
    train = {id(episode) for episode in running.split.train.episodes}
    assert train.isdisjoint(id(episode) for episode in running.split.holdout.episodes)
    rows = running.split.train.transitions()
    delta = rows.next_observation.astype(np.float64) - rows.observation
    assert running.ensemble.targets.std[:2].numpy() == pytest.approx(delta.std(0), rel=1e-5)
    assert running.ensemble.inputs.mean[:2].numpy() == pytest.approx(rows.observation.mean(0), abs=1e-5)


def test_elites_are_the_members_with_the_least_error_and_only_they_predict(walled):
    running = DynamicsFit(walled, small_config(), RngStreams(0))
    while running.stage != "done":
        running.run_epoch()
    found = running.finish(posterior_disagreement)
    best = found.report.training.member_best
    assert set(found.report.training.elites) == set(np.argsort(best)[:3].tolist())
    assert found.model.ensemble_size == 3
    assert torch.equal(found.model.net.flat, running.ensemble.net.flat[list(found.report.training.elites)])


def test_units_of_a_dimension_change_neither_elites_nor_relative_predictions(walled, fitted):
    factor = np.array([1.0, 1024.0], np.float32)  # a power of two: rounding stays the same
    episodes = tuple(
        dataclasses.replace(episode, observations=episode.observations * factor)
        for episode in walled.episodes
    )
    other = fit(dataclasses.replace(walled, episodes=episodes))
    assert other.report.training.elites == fitted.report.training.elites
    obs, action = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(5, 1)
    scaled = other.model.predict(obs * torch.tensor(factor), action)
    torch.testing.assert_close(
        scaled.mean / torch.tensor(factor), fitted.model.predict(obs, action).mean, rtol=1e-3, atol=1e-4
    )


def test_the_head_is_learned_only_where_something_terminated(fitted):
    assert isinstance(fitted.termination, TerminationHead)
    assert fitted.report.termination.train_terminated > 0
    free = fit(make_dataset(), max_updates=50)
    assert isinstance(free.termination, NeverTerminates)
    assert free.report.termination.is_learned is False
    assert free.report.termination.predicted_rate == 0.0


def hide_terminal_successors(dataset):
    episodes = tuple(
        dataclasses.replace(
            episode,
            observations=np.concatenate((episode.observations[:-1], episode.observations[-2:-1])),
            is_final_observation_known=False,
        )
        if episode.terminated
        else episode
        for episode in dataset.episodes
    )
    return dataclasses.replace(dataset, episodes=episodes)


def test_rows_with_unknown_successors_teach_no_dynamics_and_a_head_without_s(walled):
    hidden = hide_terminal_successors(walled)
    running = DynamicsFit(hidden, small_config(max_updates=50), RngStreams(0))
    known = running.split.train.transitions().successors_known()
    assert running._trainer._arrays.inputs.shape[0] == len(known) < running.split.train.num_transitions
    while running.stage != "done":
        running.run_epoch()
    head = running.finish(posterior_disagreement).termination
    assert isinstance(head, TerminationHead)
    assert head.reads_successor is False


def test_thresholds_are_quantiles_of_the_measure(fitted):
    quantiles = fitted.thresholds["spread"]
    assert set(quantiles) == {0.95, *AssessmentConfig().truncation_quantiles}
    values = [quantiles[q] for q in sorted(quantiles)]
    assert values == sorted(values)
    assert values[0] > 0


def test_reward_scale_is_the_deviation_and_never_zero(walled, fitted):
    running = DynamicsFit(walled, small_config(), RngStreams(0))
    assert fitted.reward_scale == pytest.approx(running.split.train.transitions().reward.std(), rel=1e-5)
    constant = tuple(
        dataclasses.replace(episode, rewards=np.full_like(episode.rewards, -3.0))
        for episode in walled.episodes
    )
    flat = fit(dataclasses.replace(walled, episodes=constant), max_updates=50)
    assert flat.reward_scale == pytest.approx(3.0)


def test_few_rows_are_enough_and_no_rows_are_an_error():
    few = fit(make_dataset(episodes=12, steps=6), max_updates=100)
    assert few.report.training.train_rows + few.report.training.holdout_rows == 72
    with pytest.raises(DataError):
        fit(make_dataset(episodes=1, steps=2))
