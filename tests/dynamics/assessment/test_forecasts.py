import dataclasses

import numpy as np
import pytest
import torch

from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.forecasts import fit_forecast, judge_forecasts, plain_forecast
from mbrl.dynamics.assessment.open_loop import OpenLoop, Segments, draw_segments, run_open_loop
from mbrl.dynamics.forecast import Forecast
from mbrl.dynamics.prediction import predict_rollout
from mbrl.dynamics.termination import NeverTerminates
from tests.dynamics.systems import linear_ensemble, make_dataset

CENTER = np.array([2.0, -1.0])


def make_loop(share, width, *, count=400, horizon=3, seed=0):
    """Outcomes y of deviation 1 around `CENTER`; particles whose best share and width are given, `[K]` each.

    `m - c = (y - c - e) / share`, e of deviation 0.5 and no function of m; the interval is that of e, in
    units of which `width` is the factor that is missing.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(count, horizon, 2))
    error = 0.5 * rng.normal(size=truth.shape)
    # y = f + e with f and e independent: least squares of y on f has the slope 1, of y on f / share `share`.
    anomaly = truth / np.array(share)[:, None]
    mean = CENTER + anomaly
    outcome = CENTER + truth + error
    half = 1.6448536 * 0.5 / np.array(width)[:, None]
    alive = np.ones((count, horizon), np.bool_)
    loop = OpenLoop(
        error=np.zeros((count, horizon)),
        persistence=np.zeros((count, horizon)),
        linear=np.zeros((count, horizon)),
        mean=mean,
        low=mean - half,
        high=mean + half,
        nrmse=np.zeros((3, horizon)),
        coverage=np.zeros(horizon),
        ended_early=np.zeros(horizon),
        alive=alive,
        episode=np.arange(count) // 10,
    )
    observations = np.zeros((count, horizon + 1, 1), np.float32)
    observations[:, 1:] = outcome[..., :1]
    segments = Segments(
        observations=observations,
        actions=np.zeros((count, horizon, 1), np.float32),
        rewards=outcome[..., 1].astype(np.float32),
        alive=alive,
        episode=loop.episode,
    )
    ones = torch.ones(1, 2)
    bound = torch.full((1,), torch.inf)
    return Forecast(torch.tensor(CENTER), ones, ones, low=-bound, high=bound), loop, segments


def test_the_share_and_the_width_are_those_that_outcomes_were_made_with():
    share, width = (1.0, 0.5, 0.2), (1.0, 2.0, 0.5)
    found = fit_forecast(*make_loop(share, width, count=4000))
    assert found.share.numpy() == pytest.approx(np.stack([share, share], 1), rel=0.03)
    assert found.width.numpy() == pytest.approx(np.stack([width, width], 1), rel=0.06)
    mean, low, high = (torch.tensor([[4.0, 3.0]]) + shift for shift in (0.0, -1.0, 2.0))
    forecast, below, above = found.correct(1, mean, low, high)
    assert forecast[0].tolist() == pytest.approx(CENTER + 0.5 * (np.array([4.0, 3.0]) - CENTER), abs=0.1)
    assert (forecast - below)[0].tolist() == pytest.approx([2.0, 2.0], rel=0.06)
    assert (above - forecast)[0].tolist() == pytest.approx([4.0, 4.0], rel=0.06)
    assert torch.equal(found.correct(9, mean, low, high)[0], found.correct(2, mean, low, high)[0])


def test_nothing_is_believed_of_particles_that_go_the_other_way():
    base, loop, segments = make_loop((1.0,), (1.0,), horizon=1)
    found = fit_forecast(base, dataclasses.replace(loop, mean=2 * CENTER - loop.mean), segments)
    assert found.share.tolist() == [[0.0, 0.0]]
    assert found.correct(0, *(torch.ones(1, 2),) * 3)[0][0].tolist() == CENTER.tolist()


def test_steps_that_few_segments_reach_have_what_the_last_one_before_them_has():
    base, loop, segments = make_loop((1.0, 0.5, 0.2), (1.0, 1.0, 1.0))
    loop.alive[9:, 2] = False
    assert fit_forecast(base, loop, segments).share.shape == (2, 2)
    loop.alive[9:] = False
    assert fit_forecast(base, loop, segments) is base


def test_few_episodes_that_differ_make_wider_intervals():
    base, loop, segments = make_loop((1.0,), (1.0,), horizon=1)
    alike = fit_forecast(base, loop, segments).width[0]
    factor = np.where(segments.episode % 4 == 0, 4.0, 1.0)[:, None, None]
    outcome = CENTER + (loop.mean - CENTER)
    noise = np.stack([segments.observations[:, 1, 0], segments.rewards[:, 0]], 1)[:, None] - outcome
    wild = dataclasses.replace(segments, episode=segments.episode % 4)
    calm = dataclasses.replace(segments, episode=np.arange(400) % 4)
    for part in (wild, calm):  # the same errors, of one wild episode in four or of four that are alike
        part.observations[:, 1:] = (outcome + factor * noise)[..., :1]
        part.rewards[:] = (outcome + factor * noise)[..., 1]
    differ, same = (fit_forecast(base, loop, part).width[0] for part in (wild, calm))
    logs = np.log([4.0, 1.0, 1.0, 1.0])
    expected = np.exp(logs.std(ddof=1) / 2)  # s / sqrt(4)
    assert (differ / same).numpy() == pytest.approx(np.full(2, expected), rel=0.2)
    assert bool((same > alike).all())


def test_figures_are_those_of_segments_that_corrected_nothing():
    base, loop, segments = make_loop((1.0, 0.5, 0.2), (1.0, 2.0, 0.5), count=4000)
    everything = np.ones(1, np.bool_)
    found = judge_forecasts(base, loop, segments, obs_std=np.ones(1), varies=everything)
    assert found.nrmse == pytest.approx(np.full(3, 0.5), rel=0.05)  # what e leaves
    assert found.coverage == pytest.approx(np.full(3, 0.9), abs=0.02)
    # One half in another world: the corrections of one are wrong for the other, and the figures say so.
    is_first = segments.episode % 2 == 0
    loop.mean[is_first] = 2 * CENTER - loop.mean[is_first]
    split = judge_forecasts(base, loop, segments, obs_std=np.ones(1), varies=everything)
    assert split.nrmse[0] > 1.5


def unstable_step(obs, action, rng, noise):
    """Doubles in four steps unless `action` says otherwise."""
    return 1.2 * obs + 0.5 * action + noise * rng.standard_normal(2)


def make_unstable(episodes=60, steps=60, seed=0):
    """An unstable machine under feedback, which keeps it where an open loop does not."""
    rng = np.random.default_rng(seed)
    dataset = make_dataset(episodes=episodes, steps=steps)
    made = []
    for episode in dataset.episodes:
        obs, actions = [rng.normal(size=2)], []
        for _ in range(steps):
            actions.append(-0.8 * obs[-1] + 0.2 * rng.standard_normal(2))
            obs.append(unstable_step(obs[-1], actions[-1], rng, 0.1))
        made.append(
            dataclasses.replace(
                episode, observations=np.array(obs, np.float32), actions=np.array(actions, np.float32)
            )
        )
    spec = dataclasses.replace(dataset.spec, act_dim=2, act_low=(-9.0, -9.0), act_high=(9.0, 9.0))
    return dataclasses.replace(dataset, episodes=tuple(made), spec=spec)


class Unstable:
    """The machine of `make_unstable`, known but for a hundredth of its gain."""

    ensemble_size = 1

    def predict_member(self, obs, action, member):
        del member
        mean = 1.21 * obs + 0.5 * action
        return mean, torch.full_like(mean, 0.1**2), mean[:, 0], torch.full_like(mean[:, 0], 0.1**2)


def test_forecasts_of_an_unstable_machine_end_at_the_spread_of_the_log():
    dataset = make_unstable()
    rows = dataset.transitions()
    obs_std = rows.observation.std(0).astype(np.float64)
    segments = draw_segments(dataset, count=400, horizon=25, generator=torch.Generator().manual_seed(0))
    plain = plain_forecast(rows)
    parts = (Unstable(), NeverTerminates(), LinearModel.fit(rows), segments)
    settings = {"particles": 50, "obs_std": obs_std}
    free, boxed = (
        run_open_loop(*parts, **settings, forecast=box, generator=torch.Generator().manual_seed(1))
        for box in (None, plain)
    )
    assert free.nrmse[0, -1] > 10.0
    assert boxed.nrmse[0, -1] < free.nrmse[0, -1] / 3
    assert boxed.high[..., :2].max() <= 1.2 * rows.observation.max() + 0.1
    found = judge_forecasts(plain, boxed, segments, obs_std=obs_std, varies=np.ones(2, np.bool_))
    assert found.nrmse.max() <= 1.05
    assert found.nrmse[0] == pytest.approx(0.1 / obs_std.mean(), rel=0.1)  # the noise alone
    assert (np.abs(found.coverage - 0.9) <= 0.05).all()


def test_a_rollout_of_a_model_that_is_right_is_left_alone():
    dataset = make_dataset(episodes=60, noise=0.1)
    model = linear_ensemble(noise=0.1)
    rows = dataset.transitions()
    segments = draw_segments(dataset, count=400, horizon=8, generator=torch.Generator().manual_seed(0))
    plain = plain_forecast(rows)
    loop = run_open_loop(
        model,
        NeverTerminates(),
        LinearModel.fit(rows),
        segments,
        particles=50,
        obs_std=rows.observation.std(0).astype(np.float64),
        generator=torch.Generator().manual_seed(1),
        forecast=plain,
    )
    found = fit_forecast(plain, loop, segments)
    assert found.share[:, :2].numpy() == pytest.approx(np.ones((8, 2)), abs=0.05)
    assert found.width[:, :2].numpy() == pytest.approx(np.ones((8, 2)), abs=0.25)
    actions = np.zeros((8, 1))
    free = predict_rollout(model, NeverTerminates(), [0.5, 0.5], actions)
    mine = predict_rollout(model, NeverTerminates(), [0.5, 0.5], actions, forecast=found)
    assert mine.observation == pytest.approx(free.observation, abs=0.05)


def test_futures_may_be_as_far_out_as_they_began():
    box = Forecast(torch.zeros(3), torch.ones(1, 3), torch.ones(1, 3), low=-torch.ones(2), high=torch.ones(2))
    low, high = box.bounds(torch.tensor([[3.0, 0.0], [0.0, -2.0]]))
    assert low.tolist() == [[-1.0, -1.0], [-1.0, -2.0]]
    assert high.tolist() == [[3.0, 1.0], [1.0, 1.0]]
