"""What judges say, and what may be reported of a policy that they selected."""

import numpy as np
import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.off_policy.value.evaluation_model import MeanTermination, ModelPanel
from mbrl.off_policy.value.judge_rollouts import EpisodeQuestion, JudgeModel, imagine_episodes
from mbrl.off_policy.value.judged import JudgedValue, choose_best, honest_value
from tests.off_policy.imagined import LinearGaussian, members, wide_box
from tests.off_policy.lqg import LQG, LinearPolicy, scalar_task


def judged_of(returns: np.ndarray, judges: int = 2) -> JudgedValue:
    m, n = returns.shape
    judge = np.arange(m) * judges // m
    return JudgedValue(returns, judge, np.full((m, n), 10), np.zeros((m, n), dtype=bool))


def closed_form(task: LQG, gain: float, start: float, horizon: int, discount: float = 1.0) -> float:
    """Return of the noiseless scalar task: `s_t = (a - b k)^t s_0`, `r_t = -(q + r k^2) s_t^2`."""
    factor = float(task.a[0, 0] - task.b[0, 0] * gain)
    stage = float(task.state_cost[0, 0] + gain**2 * task.action_cost[0, 0])
    return -sum(stage * discount**t * factor ** (2 * t) * start**2 for t in range(horizon))


def policy(gain: float) -> LinearPolicy:
    return LinearPolicy(torch.tensor([[gain]], dtype=torch.float64), 8.0)


def test_every_member_is_rolled_out_alone_to_the_horizon_as_the_closed_form_says():
    tasks = members(1.0, 1.1)
    starts = torch.tensor([[1.0], [-0.5], [2.0]], dtype=torch.float64)
    judge = JudgeModel(LinearGaussian(tasks), NeverTerminates())
    found = imagine_episodes(judge, [policy(0.2), policy(1.0)], starts, EpisodeQuestion(7, discount=0.9))
    for gain, part in zip((0.2, 1.0), found, strict=True):
        wanted = [[closed_form(task, gain, float(s), 7, 0.9) for s in starts[:, 0]] for task in tasks]
        assert part.returns == pytest.approx(np.array(wanted), rel=1e-12)
        assert (part.lengths == 7).all()
        assert not part.terminated.any()


def test_draws_have_the_mean_that_noise_costs():
    task = scalar_task()
    starts = torch.zeros(4000, 1, dtype=torch.float64)
    judge = JudgeModel(LinearGaussian((task,)), NeverTerminates())
    (found,) = imagine_episodes(judge, [policy(0.5)], starts, EpisodeQuestion(3, samples=True, seed=3))
    factor, stage, w = 0.9 - 0.25, 1.0 + 0.1 * 0.25, 0.01
    wanted = -stage * (w + (w + factor**2 * w))  # E s_1^2 + E s_2^2
    assert found.returns.mean() == pytest.approx(wanted, rel=0.05)


def test_a_known_reward_takes_the_place_of_the_models():
    task = scalar_task()
    starts = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    judge = JudgeModel(LinearGaussian((task,)), NeverTerminates(), lambda s, a, n: s[:, 0] * 0 + n[:, 0])
    (found,) = imagine_episodes(judge, [policy(0.5)], starts, EpisodeQuestion(3))
    factor = 0.9 - 0.25
    wanted = np.array([[1.0, -0.5]]) * (factor + factor**2 + factor**3)
    assert found.returns == pytest.approx(wanted)


def test_an_end_keeps_its_reward_and_other_episodes_go_on_unchanged():
    task = scalar_task()
    starts = torch.tensor([[1.0], [-0.5], [2.0]], dtype=torch.float64)

    def small(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        del obs, action
        return (next_obs[:, 0].abs() < 0.6).to(next_obs.dtype)

    judge = JudgeModel(LinearGaussian((task,)), small)
    (found,) = imagine_episodes(judge, [policy(0.5)], starts, EpisodeQuestion(50))
    # |s| shrinks by 0.65 a step: 1 ends with the second step, -.5 with the first, 2 with the third
    assert found.lengths.tolist() == [[2, 1, 3]]
    assert found.terminated.all()
    wanted = [closed_form(task, 0.5, s, steps) for s, steps in ((1.0, 2), (0.5, 1), (2.0, 3))]
    assert found.returns[0] == pytest.approx(np.array(wanted))


def test_policies_side_by_side_are_worth_what_they_are_worth_alone():
    judge = JudgeModel(LinearGaussian(members(1.0, 1.05, 0.9)), NeverTerminates())
    starts = torch.randn(9, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    question = EpisodeQuestion(6, samples=True, stochastic=True, seed=5, box=wide_box(1))
    many = imagine_episodes(judge, [policy(g) for g in (0.1, 0.7)], starts, question)
    alone = imagine_episodes(judge, [policy(0.7)], starts, question)[0]
    assert np.array_equal(many[1].returns, alone.returns)
    assert many[0].clipped == 0.0


def test_a_model_that_breaks_down_is_worth_nan_and_is_not_chosen():
    wild = LinearGaussian(members(float("inf")))
    judge = JudgeModel(wild, NeverTerminates())
    starts = torch.ones(2, 1, dtype=torch.float64)
    question = EpisodeQuestion(5, box=wide_box(1))
    (found,) = imagine_episodes(judge, [policy(0.0)], starts, question)
    assert np.isnan(found.returns).all()
    assert not found.terminated.any()  # the model ended, not the task
    assert choose_best([float("nan"), 3.0, 4.0, 4.0]) == 2
    assert choose_best([float("nan"), float("nan")]) == 1


def test_an_exploited_member_is_seen_by_others_and_by_the_bound():
    """The own model's members hold a dynamics that no gain can upset; the truth and the judges do not."""
    truth, start = scalar_task(), np.array([[1.0]])
    own = members(0.2, 0.25)  # over-fitted: the state comes to rest whatever is done
    judges = [members(0.95, 1.05), members(0.98, 1.02)]
    gains = (1.0, 0.0, -0.5)  # the truth wants control, the own model none
    starts = torch.tensor(start)
    horizon = 20

    def value(tasks: tuple[LQG, ...]) -> list[JudgedValue]:
        judge = JudgeModel(LinearGaussian(tasks), NeverTerminates())
        found = imagine_episodes(judge, [policy(g) for g in gains], starts, EpisodeQuestion(horizon))
        return [JudgedValue.join([part]) for part in found]

    true = [closed_form(truth, g, 1.0, horizon) for g in gains]
    by_own = value(own)
    joined = [
        JudgedValue(
            np.concatenate([a.returns, b.returns]),
            np.array([0, 0, 1, 1]),
            np.concatenate([a.lengths, b.lengths]),
            np.concatenate([a.terminated, b.terminated]),
        )
        for a, b in zip(value(judges[0]), value(judges[1]), strict=True)
    ]
    for index, gain in enumerate(gains):
        wanted = np.mean([closed_form(t, gain, 1.0, horizon) for tasks in judges for t in tasks])
        assert joined[index].mean == pytest.approx(float(wanted))
    assert choose_best([one.lower() for one in by_own]) != int(np.argmax(true))
    assert choose_best([one.lower() for one in joined]) == int(np.argmax(true))
    chosen = choose_best([one.lower() for one in by_own])
    assert by_own[chosen].mean > true[chosen] + 1.0  # it believes what it exploits
    assert abs(joined[chosen].mean - true[chosen]) < 0.5 * abs(by_own[chosen].mean - true[chosen])


def test_bound_and_interval_are_the_documented_formulas():
    returns = np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 9.0]])
    found = judged_of(returns)
    member = np.array([3.0, 5.0]).std(ddof=1)
    start = np.array([1.5, 3.5, 7.0]).std(ddof=1)
    assert found.mean == 4.0
    assert found.lower(pessimism=2.0) == pytest.approx(4.0 - 2.0 * np.sqrt(member**2 + start**2 / 3))
    assert found.lower("mean") == 4.0
    assert found.lower("least_member") == 3.0
    error = np.sqrt(member**2 / 2 + start**2 / 3)
    assert found.interval[1] == pytest.approx(4.0 + 12.706204736 * error)  # t of one degree of freedom
    assert found.by_judge.tolist() == [3.0, 5.0]


def exchangeable(rng: np.random.Generator, policies: int = 20) -> list[JudgedValue]:
    """Policies of equal worth 0: noise of each member and each start, independent between policies."""
    return [
        judged_of(
            rng.normal(size=(10, 1)) + 3.0 * rng.normal(size=(1, 60)) + rng.normal(size=(10, 60)),
        )
        for _ in range(policies)
    ]


def test_the_best_of_equals_is_reported_without_the_optimism_of_a_maximum():
    rng = np.random.default_rng(0)
    honest, naive, means, naive_means = 0, 0, [], []
    draws = 300
    for _ in range(draws):
        judged = exchangeable(rng)
        found = honest_value(judged, "mean", 0.0)
        assert found is not None
        chosen = judged[choose_best([one.mean for one in judged])]
        honest += found.low <= 0.0 <= found.high
        naive += chosen.interval[0] <= 0.0 <= chosen.interval[1]
        means.append(found.mean)
        naive_means.append(chosen.mean)
    assert abs(np.mean(means)) < 3 * np.std(means) / np.sqrt(draws)
    assert np.mean(naive_means) > 0.5
    assert honest / draws >= 0.92
    assert naive / draws < 0.8  # of a nominal 0.95


def test_halves_share_neither_members_nor_starts():
    """What one half gains from noise of its own the other does not see."""
    returns = np.zeros((4, 6))
    lucky = returns.copy()
    lucky[:2, 0::2] = 100.0  # judge 0 on the even starts: the first half
    found = honest_value([judged_of(returns), judged_of(lucky)], "mean", 0.0)
    assert found is not None
    assert found.picks == (1, 0)
    assert found.mean == 0.0
    assert found.optimism == pytest.approx(25.0)
    assert honest_value([judged_of(np.zeros((1, 6)), 1)], "mean", 0.0) is None


def test_a_panel_is_its_members_side_by_side():
    first, second = LinearGaussian(members(1.0, 1.1)), LinearGaussian(members(0.5))
    panel = ModelPanel((first, second))
    obs, action = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(2))
    whole = panel.predict(obs, action)
    assert panel.ensemble_size == len(whole.mean) == 3
    assert torch.equal(whole.mean[:2], first.predict(obs, action).mean)
    assert torch.equal(whole.mean[2:], second.predict(obs, action).mean)
    member = torch.tensor([0, 1, 2, 2, 1, 0])
    mean, variance, reward, reward_variance = panel.predict_member(obs, action, member)
    row = torch.arange(6)
    assert torch.equal(mean, whole.mean[member, row])
    assert torch.equal(variance, whole.variance[member, row])
    assert torch.equal(reward, whole.reward_mean[member, row])
    assert torch.equal(reward_variance, whole.reward_variance[member, row])


def test_heads_of_several_judges_are_averaged():
    def never(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        del action, next_obs
        return obs.new_zeros(len(obs))

    def always(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        del action, next_obs
        return obs.new_ones(len(obs))

    rows = torch.zeros(2, 1)
    assert MeanTermination((never, always, never, always))(rows, rows, rows).tolist() == [0.5, 0.5]
