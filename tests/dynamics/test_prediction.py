import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.dynamics.prediction import predict_rollout, predict_steps
from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser

from .systems import CONTROL, MATRIX, EndsBeyond, linear_ensemble, make_dataset

SPACE = make_dataset(episodes=1, steps=2).spec
NEVER = NeverTerminates()
Z = 1.6448536  # 95 % quantile of a normal distribution


def rows(count=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2)), rng.uniform(-1, 1, (count, 1))


def test_a_step_has_the_mean_and_deviation_of_the_mixture():
    offsets, noise, temperature = np.array([-0.3, 0.0, 0.6]), 0.1, 1.5
    obs, action = rows()
    found = predict_steps(
        linear_ensemble(offsets=offsets, noise=noise, temperature=temperature), NEVER, obs, action
    )
    assert found.observation == pytest.approx(obs @ MATRIX.T + action @ CONTROL.T + offsets.mean(), abs=1e-5)
    assert found.disagreement == pytest.approx(np.full((7, 2), offsets.std()), rel=1e-4)
    expected = np.sqrt((temperature * noise) ** 2 + offsets.var())
    assert found.observation_std == pytest.approx(np.full((7, 2), expected), rel=1e-4)
    assert found.reward == pytest.approx(obs[:, 0] + action[:, 0], abs=1e-5)
    assert found.reward_std == pytest.approx(np.full(7, temperature * 0.2), rel=1e-4)
    assert found.termination.tolist() == [0.0] * 7


def test_one_row_is_a_row_of_many_and_many_blocks_are_one():
    obs, action = rows(3000)
    model = linear_ensemble(offsets=(0.0, 0.1))
    many, one = predict_steps(model, NEVER, obs, action), predict_steps(model, NEVER, obs[2500], action[2500])
    assert many.observation.shape == (3000, 2)
    assert one.observation.shape == (2,)
    assert one.reward.shape == one.termination.shape == ()
    assert one.observation == pytest.approx(many.observation[2500], abs=1e-6)
    assert predict_steps(model, NEVER, obs.tolist()[:2], action.tolist()[:2]).reward == pytest.approx(
        many.reward[:2], abs=1e-6
    )


def test_termination_is_averaged_over_the_means_of_the_members():
    # A s = (0.95, -0.2) at s = (1, 0): with offsets -0.3, 0, 0.6 only the last member passes a wall at 1.2.
    model = linear_ensemble(offsets=(-0.3, 0.0, 0.6))
    found = predict_steps(model, EndsBeyond(1.2, share=0.9), [1.0, 0.0], [0.0])
    assert float(found.termination) == pytest.approx(0.3)


def moments(obs, actions, noise):
    """Mean and deviation of `s_{k+1} = A s_k + B a_k + noise w` after each action."""
    mean, covariance, path = np.asarray(obs), np.zeros((2, 2)), []
    for action in actions:
        mean = MATRIX @ mean + CONTROL @ action
        covariance = MATRIX @ covariance @ MATRIX.T + noise**2 * np.eye(2)
        path.append((mean, np.sqrt(np.diag(covariance))))
    return tuple(np.array(column) for column in zip(*path, strict=True))


def test_a_rollout_has_the_moments_of_the_linear_gaussian_system():
    obs, actions = np.array([1.0, -0.5]), rows(6, seed=3)[1]
    found = predict_rollout(linear_ensemble(noise=0.1), NEVER, obs, actions, particles=20_000)
    mean, std = moments(obs, actions, 0.1)
    assert found.observation == pytest.approx(mean, abs=0.005)
    assert found.observation_low == pytest.approx(mean - Z * std, abs=0.012)
    assert found.observation_high == pytest.approx(mean + Z * std, abs=0.012)
    # r_k ~ N(s_0 + a, 0.2^2) at the state before the action, which is itself uncertain.
    before = np.concatenate((obs[None], mean[:-1]))[:, 0], np.concatenate(([0.0], std[:-1, 0]))
    reward, reward_std = before[0] + actions[:, 0], np.hypot(before[1], 0.2)
    assert found.reward == pytest.approx(reward, abs=0.005)
    assert found.reward_high - found.reward_low == pytest.approx(2 * Z * reward_std, abs=0.02)
    narrow = predict_rollout(linear_ensemble(noise=0.1), NEVER, obs, actions, particles=20_000, level=0.5)
    assert narrow.level == 0.5
    width = narrow.observation_high - narrow.observation_low
    assert width == pytest.approx(2 * 0.67449 * std, abs=0.012)


def test_members_stay_apart_along_a_rollout():
    # Each future keeps its member, so after k steps member e is off by sum_{i<k} A^i offset_e.
    offset, horizon = 0.5, 4
    found = predict_rollout(
        linear_ensemble(offsets=(-offset, offset), noise=1e-6), NEVER, [0.0, 0.0], np.zeros((horizon, 1))
    )
    pushed = np.full(2, offset)
    reach = [sum(np.linalg.matrix_power(MATRIX, i) @ pushed for i in range(k + 1)) for k in range(horizon)]
    assert found.observation_high == pytest.approx(np.abs(reach), abs=1e-4)
    assert found.observation_low == pytest.approx(-np.abs(reach), abs=1e-4)


def test_the_end_of_a_task_accumulates():
    found = predict_rollout(linear_ensemble(), EndsBeyond(-1e9, share=0.25), [0.0, 0.0], np.zeros((3, 1)))
    assert found.ended == pytest.approx(1 - 0.75 ** np.arange(1, 4))


def test_many_starts_are_the_starts_by_themselves_and_share_or_own_their_actions():
    obs, (_, actions) = rows(3)[0], rows(5, seed=2)
    model = linear_ensemble(noise=1e-6)
    shared = predict_rollout(model, NEVER, obs, actions)
    assert shared.observation.shape == (3, 5, 2)
    own = predict_rollout(model, NEVER, obs, np.stack([actions, actions, -actions]), horizon=4)
    assert own.observation.shape == (3, 4, 2)
    for start in range(3):
        alone = predict_rollout(model, NEVER, obs[start], actions)
        assert alone.observation == pytest.approx(shared.observation[start], abs=1e-4)
        if start < 2:
            assert own.observation[start] == pytest.approx(alone.observation[:4], abs=1e-4)
    assert own.observation[2] == pytest.approx(moments(obs[2], -actions[:4], 0)[0], abs=1e-4)


def test_a_policy_acts_on_what_each_future_observes():
    class Feedback:
        act_dim = 1

        def act(self, obs, noise=None):
            assert noise is None
            return -0.5 * obs[:, :1]

    closed = MATRIX - 0.5 * CONTROL @ np.array([[1.0, 0.0]])
    found = predict_rollout(linear_ensemble(noise=1e-6), NEVER, [1.0, 1.0], Feedback(), horizon=3)
    expected = [np.linalg.matrix_power(closed, k) @ [1.0, 1.0] for k in (1, 2, 3)]
    assert found.observation == pytest.approx(np.array(expected), abs=1e-4)


def test_networks_are_policies_too():
    actor = build_actor(
        ActorSpec("deterministic", SPACE, (8,)), Normaliser.identity(2), torch.Generator().manual_seed(0)
    )
    found = predict_rollout(linear_ensemble(noise=1e-6), NEVER, [1.0, 1.0], actor, horizon=1)
    action = actor.act(torch.ones(1, 2))[0].numpy()
    assert found.observation[0] == pytest.approx(MATRIX @ [1.0, 1.0] + CONTROL @ action, abs=1e-4)


def test_the_seed_decides_the_futures():
    call = (linear_ensemble(), NEVER, [0.0, 0.0], np.zeros((2, 1)))
    first, again, other = (predict_rollout(*call, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.observation_low, again.observation_low)
    assert not np.array_equal(first.observation_low, other.observation_low)


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        ([0.0, 0.0, 0.0], [0.0], r"field obs: an array of shape \[3\].*shape \[2\] or \[n, 2\]"),
        ([[0.0, 0.0]], [[0.0, 1.0]], r"field action: .*shape \[1\] or \[n, 1\]"),
        ([[0.0, 0.0]], [0.0], "field action: 1 rows of observations, one row of actions"),
        ([[0.0, 0.0], [np.nan, 0.0]], [[0.0]] * 2, "field obs, row 1: a value is not finite"),
        (np.zeros((0, 2)), np.zeros((0, 1)), r"field obs: an array of shape \[0, 2\]"),
        ([["a", "b"]], [[0.0]], "field obs: an array .* type <U1"),
    ],
)
def test_what_does_not_fit_is_named(obs, action, message):
    with pytest.raises(DataError, match=message):
        predict_steps(linear_ensemble(), NEVER, obs, action)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros(1)}, r"field actions: .*shape \[h, 1\] or \[n, h, 1\]"),
        ({"actions": np.zeros((4, 3, 1))}, "field actions: actions of 4 rollouts for one row"),
        ({"actions": np.zeros((3, 1)), "horizon": 4}, "field horizon: 4 steps of 3 actions"),
        ({"particles": 1}, "field particles: 1 futures"),
        ({"level": 1.0}, "field level: an interval of level 1.0"),
    ],
)
def test_what_cannot_be_rolled_out_is_named(changes, message):
    settings = {"actions": np.zeros((3, 1))} | changes
    with pytest.raises(DataError, match=message):
        predict_rollout(linear_ensemble(), NEVER, [0.0, 0.0], settings.pop("actions"), **settings)


def test_a_policy_needs_a_horizon():
    actor = build_actor(
        ActorSpec("deterministic", SPACE, (8,)), Normaliser.identity(2), torch.Generator().manual_seed(0)
    )
    with pytest.raises(DataError, match="field horizon: None steps of a policy"):
        predict_rollout(linear_ensemble(), NEVER, [0.0, 0.0], actor)
