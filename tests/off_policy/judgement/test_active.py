"""Active selection: Gaussian conditioning by the textbook, plans, fewer mistakes than uniform tests."""

import numpy as np
import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.off_policy.judgement.active import (
    Belief,
    action_distance,
    comparable_actions,
    next_candidate,
    plan_episodes,
    plan_trials,
)
from mbrl.off_policy.judgement.ranking import chances_of_best
from tests.off_policy.logs import TablePolicy
from tests.off_policy.lqg import LinearPolicy


def line(count: int = 6, error: float = 2.0) -> Belief:
    """Candidates on a line: the nearer, the more alike."""
    place = np.arange(count, dtype=np.float64)
    return Belief.prior(np.zeros(count), np.full(count, error), np.abs(place[:, None] - place))


def test_the_prior_is_a_matern_kernel_of_the_median_distance() -> None:
    distance = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 4.0, 0.0]])
    belief = Belief.prior(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), distance)
    assert belief.deviation == pytest.approx([1.0, 2.0, 3.0])
    assert belief.covariance[1, 2] == pytest.approx(6.0 * np.exp(-4.0 / 2.0))
    same = Belief.prior(np.zeros(2), np.ones(2), np.zeros((2, 2)))  # they act alike: one value
    np.testing.assert_allclose(same.covariance, 1.0)


def test_conditioning_is_that_of_single_returns() -> None:
    """Counts and means are enough: the same law as of every episode by itself."""
    belief, noise = line(), 3.0
    returns = {0: [1.0, 4.0], 3: [-2.0]}
    counts, means = np.zeros(6, dtype=np.int64), np.zeros(6)
    for index, values in returns.items():
        counts[index], means[index] = len(values), np.mean(values)
    found = belief.given(counts, means, noise)
    rows = [index for index, values in returns.items() for _ in values]
    seen = np.array([value for values in returns.values() for value in values])
    cross = belief.covariance[:, rows]
    inner = belief.covariance[np.ix_(rows, rows)] + noise**2 * np.eye(3)
    np.testing.assert_allclose(found.mean, cross @ np.linalg.solve(inner, seen), rtol=1e-7)
    expected = belief.covariance - cross @ np.linalg.solve(inner, cross.T)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-7)
    nothing = belief.given(np.zeros(6, dtype=np.int64), np.full(6, np.nan), noise)
    np.testing.assert_array_equal(nothing.covariance, belief.covariance)
    np.testing.assert_array_equal(nothing.mean, belief.mean)


def test_a_plan_looks_where_something_may_be_won() -> None:
    distance = 10.0 * (1 - np.eye(3))
    belief = Belief.prior(np.array([5.0, 4.0, -9.0]), np.array([1.0, 1.0, 1.0]), distance)
    # the first stays ahead until its deviation is 1 / 2, after 12 episodes: 1 / sqrt(1 + 12 / 4)
    assert plan_episodes(belief, 12, noise=2.0).tolist() == [12, 0, 0]
    counts = plan_episodes(belief, 40, noise=2.0)
    assert counts.sum() == 40
    assert counts[2] == 0  # nine deviations behind
    bounds = belief.given(counts, belief.mean, 2.0)
    assert np.ptp((bounds.mean + 2.0 * bounds.deviation)[:2]) < 0.1  # both are as tempting
    known = Belief.prior(np.array([5.0, 4.0]), np.array([1e-9, 1.0]), distance[:2, :2])
    assert plan_episodes(known, 5, noise=2.0).tolist() == [0, 5]  # the first is known already
    assert next_candidate(belief) == 0


def test_chances_and_regret_of_two_independent_values() -> None:
    distance = 1e3 * (1 - np.eye(2))
    far = Belief.prior(np.array([0.0, 1.0]), np.array([1.0, 1.0]), distance)
    far = Belief(far.mean, np.diag(np.diag(far.covariance)))
    chances = chances_of_best(far.draws(np.random.default_rng(0)))
    assert chances[1] == pytest.approx(0.7602, abs=0.02)  # Phi(1 / sqrt(2))
    none = np.zeros(2, dtype=np.int64)
    regret = far.regret_after(none, 1.0, np.random.default_rng(0))
    # E max(0, x) of x ~ N(-1, 2): sqrt(2) phi(1 / sqrt(2)) - Phi(-1 / sqrt(2))
    assert regret == pytest.approx(np.sqrt(2) * 0.31069 - 0.23975, abs=0.02)
    many = far.regret_after(np.array([1000, 1000]), 1.0, np.random.default_rng(0))
    assert many < 0.1 * regret


def test_candidates_that_act_alike_have_one_value() -> None:
    same = Belief.prior(np.zeros(2), np.ones(2), np.zeros((2, 2)))
    values = same.draws(np.random.default_rng(0))
    np.testing.assert_allclose(values[0], values[1], atol=1e-7)
    tested = same.given(np.array([4, 0]), np.array([3.0, 0.0]), 1.0)
    assert tested.mean[1] == pytest.approx(tested.mean[0])


def test_returns_from_the_machine_inform_the_plan() -> None:
    names, prior = ("a", "b", "c"), line(3)
    settings = {"estimator": "fqe", "noise": 2.0, "episodes": 4}
    before = plan_trials(names, prior, returns={}, **settings)
    after = plan_trials(names, prior, returns={"b": [6.0, 4.0]}, **settings)
    assert [entry.tested for entry in after.candidates] == [0, 2, 0]
    assert sum(entry.next for entry in after.candidates) == after.episodes == 4
    posterior = prior.given(np.array([0, 2, 0]), np.array([0.0, 5.0, 0.0]), 2.0)
    assert [entry.mean for entry in after.candidates] == pytest.approx(posterior.mean.tolist())
    assert [entry.se for entry in after.candidates] == pytest.approx(posterior.deviation.tolist())
    assert [entry.prior for entry in after.candidates] == [0.0, 0.0, 0.0]
    assert after.candidates[1].p_best > before.candidates[1].p_best
    assert before.regret_then < before.regret_now


def test_it_beats_uniform_tests() -> None:
    """Simple regret of 30 candidates after 30 episodes, on problems drawn from the prior; equal noise."""
    prior, noise, budget = line(30), 2.0, 30
    lost: dict[str, list[float]] = {"uniform": [], "active": []}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        truth = prior.draws(rng, 1)[:, 0]
        for way, losses in lost.items():
            errors = np.random.default_rng(10_000 + seed)
            counts, sums, belief = np.zeros(30, dtype=np.int64), np.zeros(30), prior
            for episode in range(budget):
                index = episode % 30 if way == "uniform" else next_candidate(belief)
                counts[index] += 1
                sums[index] += truth[index] + noise * errors.standard_normal()
                belief = prior.given(counts, sums / np.maximum(counts, 1), noise)
            losses.append(truth.max() - truth[int(np.argmax(belief.mean))])
    gain = np.array(lost["uniform"]) - np.array(lost["active"])
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(gain.size)
    assert np.mean(lost["active"]) < 0.85 * np.mean(lost["uniform"])


def test_distances_are_those_of_scaled_actions() -> None:
    obs = torch.tensor([[1.0], [2.0]])
    space = SpaceSpec(1, 1, (-8.0,), (8.0,))
    first, second = (
        comparable_actions(LinearPolicy(torch.tensor([[gain]]), 8.0), obs, space) for gain in (0.4, 0.8)
    )
    assert action_distance([first, second])[0, 1] == pytest.approx((0.4 + 0.8) / 2 / 8)
    policy, two = TablePolicy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])), SpaceSpec(2, 2, (0.0,) * 2, (1.0,) * 2)
    table = comparable_actions(policy, torch.eye(2), two)
    np.testing.assert_allclose(table, [[0.5, 0.5], [1.0, 0.0]])
