import numpy as np
import pytest
import torch

from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.open_loop import draw_segments, run_open_loop
from mbrl.dynamics.assessment.trust import error_curve, trusted_horizon
from mbrl.dynamics.termination import NeverTerminates
from tests.dynamics.systems import CONTROL, MATRIX, make_dataset

HORIZON = 12


class LinearTruth:
    """Stands in for an ensemble: one exact linear member `gain * A s + B a` with known noise."""

    ensemble_size = 1

    def __init__(self, gain=1.0, noise=0.0):
        self.gain, self.noise = gain, noise

    def predict_member(self, obs, action, member):
        del member
        matrix = torch.tensor(self.gain * MATRIX, dtype=torch.float32)
        mean = obs @ matrix.T + action @ torch.tensor(CONTROL, dtype=torch.float32).T
        variance = torch.full_like(mean, self.noise**2)
        return mean, variance, mean[:, 0], variance[:, 0]


class Always:
    """Ends half of the episodes at each step."""

    def __call__(self, obs, action, next_obs):
        return torch.full((len(obs),), 0.5)


def run(dataset, model, termination=None, particles=50):
    segments = draw_segments(dataset, count=60, horizon=HORIZON, generator=torch.Generator().manual_seed(0))
    rows = dataset.transitions()
    return segments, run_open_loop(
        model,
        termination or NeverTerminates(),
        LinearModel.fit(rows),
        segments,
        particles=particles,
        obs_std=rows.observation.std(0).astype(np.float64),
        generator=torch.Generator().manual_seed(1),
    )


def trust(result, **limits):
    settings = {"tolerance": 0.3, "least_coverage": 0.8} | limits
    curves = [
        error_curve(e, result.alive, result.episode, draws=100, generator=torch.Generator().manual_seed(0))
        for e in (result.error, result.persistence)
    ]
    return curves, trusted_horizon(curves[0], curves[1].median, result.coverage, **settings)


def test_segments_are_stretches_of_their_episodes():
    dataset = make_dataset(episodes=6, steps=20)
    short = make_dataset(episodes=1, steps=5, seed=3)
    both = type(dataset)((*dataset.episodes, *short.episodes), dataset.spec, dataset.info)
    segments = draw_segments(both, count=1000, horizon=HORIZON, generator=torch.Generator().manual_seed(0))
    assert len(segments) == 6 * (20 - HORIZON + 1) + 1  # every start once; the short episode has one
    assert segments.alive.sum(1).tolist() == [HORIZON] * (len(segments) - 1) + [5]
    for row, index in enumerate(segments.episode):
        episode, steps = both.episodes[index], int(segments.alive[row].sum())
        start = int(np.flatnonzero((episode.observations == segments.observations[row, 0]).all(1))[0])
        assert np.array_equal(
            segments.observations[row, : steps + 1], episode.observations[start : start + steps + 1]
        )
        assert np.array_equal(segments.actions[row, :steps], episode.actions[start : start + steps])


def test_an_unlogged_successor_is_not_judged():
    episode = make_dataset(episodes=1, steps=5).episodes[0]
    cut = type(episode)(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminated=True,
        truncated=False,
        is_final_observation_known=False,
    )
    dataset = make_dataset(episodes=1, steps=5)
    dataset = type(dataset)((cut,), dataset.spec, dataset.info)
    segments = draw_segments(dataset, count=5, horizon=5, generator=torch.Generator().manual_seed(0))
    assert segments.alive.tolist() == [[True, True, True, True, False]]


def test_linear_baseline_recovers_the_system_and_its_open_loop_is_exact():
    dataset = make_dataset(noise=0.0)
    _, result = run(dataset, LinearTruth())
    assert result.linear.max() < 1e-4
    assert result.error.max() < 1e-4
    assert np.abs(result.nrmse[0]).max() < 1e-4


def test_persistence_error_is_the_distance_from_the_start():
    dataset = make_dataset()
    segments, result = run(dataset, LinearTruth())
    std = dataset.transitions().observation.std(0)
    moved = (segments.observations[:, 1:] - segments.observations[:, :1]) / std
    assert result.persistence == pytest.approx(np.sqrt((moved**2).mean(2)), rel=1e-4)
    assert result.nrmse[1] == pytest.approx(np.sqrt((moved**2).mean(0)).mean(1), rel=1e-4)


def test_an_exact_model_is_trusted_to_the_end_and_covers_what_it_claims():
    noise = 0.01
    dataset = make_dataset(episodes=60, noise=noise)
    _, result = run(dataset, LinearTruth(noise=noise), particles=100)
    assert trust(result)[1] == HORIZON
    assert result.coverage.mean() == pytest.approx(0.9, abs=0.025)


def test_particle_intervals_cover_with_few_particles_too():
    noise = 0.05
    _, result = run(make_dataset(episodes=60, noise=noise), LinearTruth(noise=noise), particles=20)
    assert result.coverage.mean() == pytest.approx(0.9, abs=0.03)


def test_a_wrong_gain_is_trusted_to_the_last_step_within_the_tolerance():
    dataset = make_dataset(episodes=60, noise=0.0)
    segments, result = run(dataset, LinearTruth(gain=1.1))
    std = dataset.transitions().observation.std(0).astype(np.float64)
    obs = segments.observations[:, 0].astype(np.float64)
    expected = []
    for k in range(HORIZON):
        obs = obs @ (1.1 * MATRIX).T + segments.actions[:, k] @ CONTROL.T
        expected.append(np.sqrt((((obs - segments.observations[:, k + 1]) / std) ** 2).mean(1)))
    assert result.error == pytest.approx(np.stack(expected, 1), rel=1e-3, abs=1e-5)
    (curve, persistence), trusted = trust(result, least_coverage=0.0)
    within = (curve.high <= 0.3) & (curve.median < persistence.median)
    assert 0 < trusted < HORIZON
    assert within[:trusted].all()
    assert not within[trusted]


def test_ended_early_is_the_mass_that_the_head_has_taken():
    _, result = run(make_dataset(), LinearTruth(), Always())
    assert result.ended_early == pytest.approx(1.0 - 0.5 ** np.arange(1, HORIZON + 1))


def test_dimensions_that_do_not_count_change_nothing():
    dataset = make_dataset(noise=0.0)
    segments = draw_segments(dataset, count=60, horizon=HORIZON, generator=torch.Generator().manual_seed(0))

    def replay(std, varies=None):
        return run_open_loop(
            LinearTruth(gain=1.1),
            NeverTerminates(),
            LinearModel.fit(dataset.transitions()),
            segments,
            particles=20,
            obs_std=np.array(std),
            generator=torch.Generator().manual_seed(1),
            varies=varies,
        )

    only_first = replay([0.5, 1e-9], np.array([True, False]))
    both = replay([0.5, np.inf])
    assert only_first.error == pytest.approx(np.sqrt(2) * both.error)  # a mean over one of two
    assert only_first.nrmse == pytest.approx(2 * both.nrmse)
    none = replay([0.5, 0.5], np.array([False, False]))
    assert np.array_equal(none.error, replay([0.5, 0.5]).error)


def test_rewards_are_those_of_the_particles_and_of_the_log():
    dataset = make_dataset(noise=0.0)
    segments, result = run(dataset, LinearTruth())  # its reward is the first coordinate of s'
    assert result.reward == pytest.approx(segments.observations[:, 1:, 0], abs=1e-4)
    row, step = 5, 3
    episode = dataset.episodes[int(segments.episode[row])]
    start = int(np.flatnonzero((episode.observations == segments.observations[row, 0]).all(1))[0])
    assert segments.rewards[row, step] == episode.rewards[start + step]
