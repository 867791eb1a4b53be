import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.model_estimate import ModelEstimate, model_diagnostics
from mbrl.off_policy.value.model_value import ModelValueConfig, model_value
from mbrl.rollouts.generate import Box
from tests.off_policy.imagined import TableModel, evaluation, members, wide_box
from tests.off_policy.logs import TABULAR, TablePolicy, empirical, fit
from tests.off_policy.lqg import LQG, LinearPolicy, NoisyLinearPolicy, scalar_task
from tests.off_policy.tabular import MDP, dataset_of, episodes_of, simulate

GAIN = 0.7
DISCOUNTED = Estimand(0.9)
LONG = ModelValueConfig(least_weight=1e-4, max_starts=10_000)


def gain(value: float = GAIN) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def starts_of(task: LQG, n: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.multivariate_normal(task.mean, task.covariance, n))


def evaluate(model: EvaluationModel, policy, starts, estimand=DISCOUNTED, **kwargs) -> ModelEstimate:
    asked = {"box": wide_box(starts.shape[1]), "config": LONG, **kwargs}
    return model_value(model, policy, starts, estimand=estimand, **asked)


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_every_member_finds_its_own_closed_form(std):
    tasks = members(1.0, 0.9, 1.05)
    kind = NoisyLinearPolicy if std else LinearPolicy
    found = evaluate(evaluation(*tasks), kind(gain(), 8.0, std), starts_of(tasks[0], 4000))
    truth = np.array([task.value(np.array([[GAIN]]), std, 0.9) for task in tasks])
    error = found.values.std(1, ddof=1) / np.sqrt(4000)
    assert np.all(np.abs(found.values.mean(1) - truth) < 4 * error)
    assert np.ptp(truth) > 10 * error.max()  # the members are told apart
    estimate = found.estimate()
    between = found.values.mean(1).var(ddof=1)
    within = found.values.mean(0).var(ddof=1) / 4000
    assert estimate.se == pytest.approx(math.sqrt(between + within), rel=1e-12)  # not divided by 3
    assert estimate.ci95[1] - estimate.point == pytest.approx(4.302653 * estimate.se, rel=1e-6)
    assert estimate.family == "model"


def test_a_finite_horizon_counts_its_steps_and_nothing_more():
    """Without noise `s_t = c^t s_0` and `r_t = -(1 + 0.1 K^2) s_t^2`."""
    task = dataclasses.replace(scalar_task(), noise=np.zeros((1, 1)))
    starts = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    found = evaluate(evaluation(task, task), LinearPolicy(gain(), 8.0), starts, Estimand(0.8, horizon=3))
    closed = 0.9 - 0.5 * GAIN
    by_hand = -(1 + 0.1 * GAIN**2) * sum(0.8**t * closed ** (2 * t) for t in range(3))
    np.testing.assert_allclose(found.values, by_hand * np.array([[1.0, 4.0]] * 2), rtol=1e-6)
    assert found.tail_bound == 0.0
    assert found.alive_share.tolist() == [1.0, 1.0, 1.0]


def test_a_known_reward_takes_the_place_of_the_models():
    task = dataclasses.replace(scalar_task(), noise=np.zeros((1, 1)))
    model = dataclasses.replace(evaluation(task, task), reward=lambda s, a, n: 0 * s[:, 0] + 2 * n[:, 0])
    starts = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    found = evaluate(model, LinearPolicy(gain(), 8.0), starts, Estimand(0.8, horizon=3))
    closed = 0.9 - 0.5 * GAIN
    by_hand = 2 * sum(0.8**t * closed ** (t + 1) for t in range(3))
    np.testing.assert_allclose(found.values, by_hand * np.array([[1.0, 2.0]] * 2), rtol=1e-6)


def test_without_draws_a_member_follows_its_mean():
    task = scalar_task()
    assert task.noise.item() > 0
    starts = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    drawn, meant = (
        evaluate(
            dataclasses.replace(evaluation(task, task), samples=samples),
            LinearPolicy(gain(), 8.0),
            starts,
            Estimand(0.8, horizon=3),
        ).values
        for samples in (True, False)
    )
    closed = 0.9 - 0.5 * GAIN
    by_hand = -(1 + 0.1 * GAIN**2) * sum(0.8**t * closed ** (2 * t) for t in range(3))
    np.testing.assert_allclose(meant, by_hand * np.array([[1.0, 4.0]] * 2), rtol=1e-6)
    assert np.abs(drawn / meant - 1).min() > 1e-3


def test_one_member_is_allowed_and_says_nothing_of_the_model():
    estimate = evaluate(
        evaluation(scalar_task()), LinearPolicy(gain(), 8.0), starts_of(scalar_task(), 5)
    ).estimate()
    assert not estimate.valid
    assert "no_epistemic" in estimate.flags
    assert math.isfinite(estimate.point)


def chain() -> MDP:
    """0 -> 1 -> 2 -> end under action 0; action 1 ends at once. The last reward is the largest."""
    transition = np.zeros((3, 2, 4))
    transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 3] = 1.0
    transition[:, 1, 3] = 1.0
    reward = np.array([[1.0, -2.0], [2.0, -2.0], [10.0, -2.0]])
    return MDP(transition, reward, np.array([1.0, 0.0, 0.0]))


def test_the_reward_of_the_terminating_step_is_counted_once():
    """A published rollout masks before it adds: it would return 1 + 0.5 * 2."""
    model = EvaluationModel(TableModel((chain(), chain())), TableModel.termination)
    policy = TablePolicy(torch.tensor([[1.0, 0.0]] * 3))
    found = evaluate(model, policy, torch.eye(3)[:2], Estimand(0.5, horizon=10))
    np.testing.assert_allclose(found.values, [[1 + 0.5 * 2 + 0.25 * 10, 2 + 0.5 * 10]] * 2)
    assert found.alive_share[:4].tolist() == [1.0, 1.0, 0.5, 0.0]
    assert np.isnan(found.disagreement[3:]).all()


def deterministic_mdp(seed: int = 0) -> MDP:
    rng = np.random.default_rng(seed)
    transition = np.eye(5)[rng.integers(0, 5, (4, 3))]
    transition[0, 0] = np.eye(5)[4]  # one of them surely ends
    return MDP(transition, rng.normal(size=(4, 3)), np.full(4, 0.25))


def uniform_log(mdp: MDP, n: int, steps: int) -> Dataset:
    behaviour = np.full((mdp.states, mdp.actions), 1 / mdp.actions)
    log = simulate(mdp, behaviour, n, steps, np.random.default_rng(1))
    return dataset_of(episodes_of(log, mdp, behaviour), mdp)


def test_a_table_has_the_certainty_equivalent_value_which_is_what_fitted_q_evaluation_finds():
    mdp = deterministic_mdp()
    dataset = uniform_log(mdp, 200, 8)
    counted = empirical(dataset, mdp)
    table = np.eye(3)[[1, 2, 0, 1]]
    policy = TablePolicy(torch.tensor(table, dtype=torch.float32))
    model = EvaluationModel(TableModel((counted, counted)), TableModel.termination)
    starts = torch.from_numpy(np.stack([e.observations[0] for e in dataset.episodes]))
    config = ModelValueConfig(least_weight=1e-9)
    found = evaluate(model, policy, starts, Estimand(0.8), config=config).estimate()
    truth = counted.value(table, Estimand(0.8))
    assert found.point == pytest.approx(truth, rel=1e-6)
    assert fit(dataset, policy, Estimand(0.8), TABULAR).estimate().point == pytest.approx(truth, rel=0.03)
    mixed = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.3, 0.4, 0.3]])
    drawn = evaluate(
        model,
        TablePolicy(torch.tensor(mixed, dtype=torch.float32)),
        starts,
        Estimand(0.8),
        config=config.model_copy(update={"rollouts": 20}),
    )
    error = drawn.values[0].std(ddof=1) / np.sqrt(len(starts))
    assert abs(drawn.values[0].mean() - counted.value(mixed, Estimand(0.8))) < 4 * error


def test_an_end_comes_with_its_probability():
    class Sometimes:
        def __call__(self, obs, action, next_obs):
            return torch.full_like(next_obs[:, 0], 0.2)

    model = dataclasses.replace(evaluation(scalar_task()), termination=Sometimes())
    found = evaluate(
        model, LinearPolicy(gain(), 8.0), starts_of(scalar_task(), 4000), Estimand(1.0, horizon=4)
    )
    np.testing.assert_allclose(found.alive_share, 0.8 ** np.arange(4), atol=4 * 0.5 / np.sqrt(4000))


def test_noise_depends_on_the_start_alone_not_on_order_company_chunks_members_or_length():
    task, policy = scalar_task(), NoisyLinearPolicy(gain(), 8.0, 0.3)
    model, starts = evaluation(*members(1.0, 0.9)), starts_of(task, 30)
    whole = evaluate(model, policy, starts, Estimand(0.9, horizon=12)).values
    order = np.random.default_rng(1).permutation(30)
    permuted = evaluate(model, policy, starts[order], Estimand(0.9, horizon=12)).values
    np.testing.assert_allclose(permuted, whole[:, order], rtol=1e-12)
    alone = evaluate(model, policy, starts[3:5], Estimand(0.9, horizon=12)).values
    np.testing.assert_allclose(alone, whole[:, 3:5], rtol=1e-12)
    chunked = LONG.model_copy(update={"chunk": 6})
    np.testing.assert_allclose(
        evaluate(model, policy, starts, Estimand(0.9, horizon=12), config=chunked).values, whole, rtol=1e-12
    )
    swapped = evaluate(evaluation(*members(0.9, 1.0)), policy, starts, Estimand(0.9, horizon=12)).values
    np.testing.assert_allclose(swapped, whole[::-1], rtol=1e-12)
    longer = evaluate(model, policy, starts, Estimand(0.9, horizon=13)).values
    last = np.abs(longer - whole).max()
    assert 0 < last < 0.9**12 * 5  # one more reward, nothing else
    other = evaluate(model, policy, starts, Estimand(0.9, horizon=12), seed=1).values
    assert np.abs(other - whole).min() > 0


def test_of_many_starts_a_part_is_used_whatever_their_order():
    starts = starts_of(scalar_task(), 50)
    model, policy = evaluation(scalar_task()), LinearPolicy(gain(), 8.0)
    few = LONG.model_copy(update={"max_starts": 7})
    found = evaluate(model, policy, starts, config=few)
    first, second = found.values, evaluate(model, policy, starts.flip(0), config=few).values
    assert first.shape == (1, 7)
    np.testing.assert_allclose(second[:, ::-1], first, rtol=1e-12)
    chosen = found.estimate().details["starts"]
    alone = evaluate(model, policy, starts[chosen], config=LONG)
    np.testing.assert_allclose(alone.values, first, rtol=1e-12)
    assert "starts" not in alone.estimate().details


def test_differences_between_policies_and_members_are_paired():
    model, starts = evaluation(*members(1.0, 0.95)), starts_of(scalar_task(), 300)
    better, worse = (NoisyLinearPolicy(gain(k), 8.0, 0.3) for k in (0.8, 0.7))
    first, second = evaluate(model, better, starts).values, evaluate(model, worse, starts).values
    unpaired = evaluate(model, worse, starts, seed=1).values
    assert np.var(first[0] - second[0]) < 0.1 * np.var(first[0] - unpaired[0])
    assert np.var(first[0] - first[1]) < 0.1 * np.var(first[0] - unpaired[1])


def test_the_mean_over_seeds_is_unbiased_and_spreads_as_its_error_says():
    model, policy = evaluation(scalar_task()), NoisyLinearPolicy(gain(), 8.0, 0.3)
    truth = scalar_task().value(np.array([[GAIN]]), 0.3, 0.5)
    points, errors = [], []
    for seed in range(150):
        starts = starts_of(scalar_task(), 20, seed)
        values = evaluate(model, policy, starts, Estimand(0.5), seed=seed).values[0]
        points.append(values.mean())
        errors.append(values.var(ddof=1) / 20)
    spread = float(np.std(points, ddof=1))
    assert abs(np.mean(points) - truth) < 4 * spread / math.sqrt(150)
    assert spread == pytest.approx(math.sqrt(np.mean(errors)), rel=0.2)


def test_rewards_in_other_units_scale_the_estimate():
    policy, starts = NoisyLinearPolicy(gain(), 8.0, 0.3), starts_of(scalar_task(), 20)
    tasks = members(1.0, 0.9)
    small = evaluate(evaluation(*tasks), policy, starts).estimate()
    large = evaluate(evaluation(*tasks, reward_scale=4.0), policy, starts).estimate()
    assert large.point == pytest.approx(4 * small.point, rel=1e-12)
    assert large.se == pytest.approx(4 * small.se, rel=1e-12)


def test_a_roll_out_stops_where_members_disagree_and_a_value_stands_for_the_rest():
    """Members `s' = (0.9 +- 0.09) s` without noise disagree by 0.09 s: beyond 0.08 from s = 0.89 on."""
    tasks = tuple(dataclasses.replace(t, noise=np.zeros((1, 1))) for t in members(1.1, 0.9))
    starts = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    policy = LinearPolicy(gain(0.0), 8.0)
    asked: list[int | None] = []

    def tail(obs, action, to_go):
        asked.append(to_go)
        return 7.0 * obs[:, 0]

    model = evaluation(*tasks, limit=0.08)
    found = evaluate(model, policy, starts, Estimand(1.0, horizon=2), tail=tail)
    kept = [-0.25 - (0.5 * 0.99) ** 2, -0.25 - (0.5 * 0.81) ** 2]
    np.testing.assert_allclose(found.values, [[kept[0], 7.0], [kept[1], 7.0]], rtol=1e-6)
    assert found.stopped.tolist() == [2, 0]
    assert found.alive_share.tolist() == [1.0, 0.5]
    assert found.disagreement[0] == pytest.approx((0.045 + 0.09) / 2)
    assert asked == [2]
    assert found.disagreement_share == pytest.approx(2 / 6)
    assert found.tail_share == pytest.approx(7.0 / abs(found.values.mean()) / 2)
    estimate = found.estimate()
    assert estimate.family == "hybrid"
    assert not estimate.valid  # a third of the steps lies beyond the data
    assert "exploitation_alarm" in estimate.flags
    without = evaluate(model, policy, starts, Estimand(1.0, horizon=2))  # counted, but nothing to stop with
    assert without.stopped.tolist() == [0, 0]
    assert without.disagreement_share == pytest.approx(3 / 8)
    lenient = dataclasses.replace(model, limit=0.1)  # 0.09 and 0.0891 are counted, but stop nothing
    counted = evaluate(lenient, policy, starts, Estimand(1.0, horizon=2), tail=tail)
    assert counted.stopped.tolist() == [0, 0]
    assert counted.tail_share == 0.0
    assert counted.disagreement_share == pytest.approx(3 / 8)


def test_without_a_horizon_a_value_or_a_bound_stands_for_what_follows():
    task = dataclasses.replace(scalar_task(), noise=np.zeros((1, 1)))
    starts = torch.tensor([[1.0]], dtype=torch.float64)
    policy, short = LinearPolicy(gain(), 8.0), ModelValueConfig(max_horizon=5)
    exact, _ = task.solve(np.array([[GAIN]]), 0.0, 0.9)
    box = dataclasses.replace(wide_box(1), reward_low=torch.tensor(-2.0), reward_high=torch.tensor(0.0))
    bounded = evaluate(evaluation(task), policy, starts, config=short, box=box)
    assert bounded.tail_bound == pytest.approx(0.9**5 * 2.0 / 0.1)
    assert "tail_left_out" in bounded.estimate().flags
    whole = evaluate(
        evaluation(task),
        policy,
        starts,
        config=short,
        tail=lambda obs, action, _: -exact[0, 0] * obs[:, 0] ** 2,
    )
    assert whole.values[0, 0] == pytest.approx(-exact[0, 0], rel=1e-6)
    assert whole.tail_bound == 0.0
    assert 0 < whole.tail_share < 0.1


def test_what_leaves_the_data_is_clipped_and_counted():
    task = dataclasses.replace(scalar_task(), a=2 * np.ones((1, 1)), noise=np.zeros((1, 1)))
    starts = torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    varies = torch.ones(2, dtype=torch.bool)
    box = Box(torch.tensor([-1.5]), torch.tensor([1.5]), torch.tensor(-2.0), torch.tensor(0.0), varies)
    found = evaluate(
        evaluation(task), LinearPolicy(gain(0.0), 8.0), starts, Estimand(1.0, horizon=3), box=box
    )
    # 1 -> 2, clipped to 1.5 -> 3, to 1.5; its rewards -1, -2.25 and -2.25 are clipped to -2
    np.testing.assert_allclose(found.values, [[-1 - 2 - 2, -0.01 - 0.04 - 0.16]], rtol=1e-6)
    assert found.clip_rate.tolist() == [0.5, 0.5, 0.5]


def test_a_broken_model_is_not_clipped_into_a_number():
    task = dataclasses.replace(scalar_task(), a=np.full((1, 1), np.inf), noise=np.zeros((1, 1)))
    starts = torch.ones(3, 1, dtype=torch.float64)
    found = evaluate(evaluation(task, task), LinearPolicy(gain(0.0), 8.0), starts, Estimand(1.0, horizon=4))
    estimate = found.estimate()
    assert not estimate.valid
    assert "not finite" in (estimate.why_not or "")
    assert model_diagnostics(estimate)["exploitation_alarm"]
