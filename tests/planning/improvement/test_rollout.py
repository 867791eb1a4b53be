"""Policy roll-outs against sums by hand."""

import dataclasses

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import SOURCES, Budget, Hints
from mbrl.planning.improvement.candidates import draw_candidates
from mbrl.planning.improvement.rollout import (
    RolloutPlanner,
    RolloutPlannerConfig,
    followed_gain,
    paired_difference,
)
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.problem.values import CriticLeaf
from mbrl.planning.shooting.rollout import Returns
from tests.planning.linear import DECAY, GAIN, SPACE, LinearModel, LinearPolicy, QuadraticCritics, ends_beyond

BOX = ActionBox(SPACE)
DISCOUNT = 0.9


def make_problem(model=None, policy=None, termination=None, **changes) -> PlanningProblem:
    prior = PolicyPrior(policy or LinearPolicy(), BOX)
    problem = PlanningProblem(
        LearnedStep(model or LinearModel(), termination or NeverTerminates(), BOX),
        prior,
        CriticLeaf(QuadraticCritics(), prior, BOX),
        1,
        DISCOUNT,
        dtype=torch.float64,
    )
    return dataclasses.replace(problem, **changes)


def return_by_hand(obs: float, action: float, *, horizon: int, shift: float = 0.0, tail: bool) -> float:
    """`sum_t g^t (-s_t^2)`, the first action given (environment units), the policy's after it."""
    total = 0.0
    for t in range(horizon):
        total += DISCOUNT**t * -(obs**2)
        obs = DECAY * obs + GAIN * action + shift
        action = min(max(-0.4 * obs, -2.0), 2.0)
    return total + (DISCOUNT**horizon * -(obs**2 + action**2) if tail else 0.0)


@pytest.mark.parametrize("has_tail", [True, False])
def test_the_gain_is_the_difference_of_two_sums(has_tail):
    problem = make_problem()
    planner = RolloutPlanner(problem, RolloutPlannerConfig(horizon=7, has_tail=has_tail))
    obs = torch.tensor([[1.5], [-0.7]], dtype=torch.float64)
    given = torch.tensor([[[-0.5]], [[0.6]]], dtype=torch.float64)  # in [-1, 1]
    result = planner.plan(
        obs, budget=Budget(sims=1), noise=RowNoise(torch.arange(2)), hints=Hints(candidates=given)
    )
    for row in range(2):
        state = float(obs[row, 0])
        own, other = (
            return_by_hand(state, action, horizon=7, tail=has_tail)
            for action in (-0.4 * state, 2.0 * float(given[row, 0, 0]))
        )
        assert float(result.delta_lcb[row]) == pytest.approx(max(other - own, 0.0), abs=1e-9)
        assert float(result.value[row]) == pytest.approx(max(other, own), abs=1e-9)
        expected = float(given[row, 0, 0]) if other > own else -0.4 * state / 2.0
        assert float(result.action[row, 0]) == pytest.approx(expected, abs=1e-9)


def test_an_error_that_a_member_makes_of_all_candidates_alike_costs_no_gain():
    # Members differ by far in what states are worth, and not at all in which action is the better one.
    parts = torch.tensor([[10.0, 12.0, -90.0, -88.0]])  # [1, (particles 2) (states 1) (candidates 2)]
    none = torch.zeros(3, 4)
    returns = Returns(torch.cat((parts, none[:2])), none[0], none[0] > 0.0, none)
    mean, spread = paired_difference(returns, torch.eye(2), states=1)
    bound = mean - 3.0 * spread
    torch.testing.assert_close(bound, torch.tensor([[0.0, 2.0]]))


def test_the_bound_falls_by_deviations_of_the_difference():
    parts = torch.tensor([[0.0, 1.0, 0.0, 3.0]])
    none = torch.zeros(3, 4)
    returns = Returns(torch.cat((parts, none[:2])), none[0], none[0] > 0.0, none)
    mean, spread = paired_difference(returns, torch.eye(2), states=1)
    bound = mean - 0.5 * spread
    torch.testing.assert_close(bound, torch.tensor([[0.0, 2.0 - 0.5 * 1.0]]))


def test_members_that_disagree_about_a_gain_leave_the_policy_in_charge():
    # One member is paid for large actions, the other charged: the mean gain is 0, the bound below it.
    model = LinearModel(shifts=(0.0, 0.0), bonuses=(4.0, -4.0))
    problem = make_problem(model, LinearPolicy(gain=0.0))
    obs = torch.zeros(4, 1, dtype=torch.float64)
    planner = RolloutPlanner(problem, RolloutPlannerConfig(horizon=1, has_tail=False))
    result = planner.plan(obs, budget=Budget(sims=9), noise=RowNoise(torch.arange(4)))
    assert not result.action.any()
    assert not result.delta_lcb.any()
    bold = RolloutPlanner(
        make_problem(LinearModel(bonuses=(4.0,)), LinearPolicy(gain=0.0)),
        RolloutPlannerConfig(horizon=1, has_tail=False),
    )
    assert bool(bold.plan(obs, budget=Budget(sims=9), noise=RowNoise(torch.arange(4))).action.all())


def test_rewards_stop_where_an_episode_ends():
    problem = make_problem(termination=ends_beyond(0.0))  # every step ends it
    planner = RolloutPlanner(problem, RolloutPlannerConfig(horizon=20))
    obs = torch.tensor([[2.0]], dtype=torch.float64)
    result = planner.plan(obs, budget=Budget(sims=4), noise=RowNoise(torch.arange(1)))
    assert float(result.value[0]) == pytest.approx(-4.0)


def test_candidates_stay_as_near_as_the_log_and_dimensions_without_a_spread_stay_put():
    obs = torch.zeros(2000, 1, dtype=torch.float64)
    problem = make_problem(policy=LinearPolicy(gain=0.0), action_spread=torch.tensor([0.05]))
    drawn = draw_candidates(
        problem, obs, hints=Hints(), noise=RowNoise(torch.arange(2000)), draws=3, clone_draws=2, radius=1.0
    )
    names = [SOURCES[index] for index in drawn.source[0].tolist()]
    assert names == ["policy", "flat_policy", "flat_policy", "flat_policy"]
    assert not drawn.action[:, 0].any()
    std = drawn.action[:, 1:].std(0)[:, 0].tolist()
    assert std == pytest.approx([0.0125, 0.025, 0.05], rel=0.1)
    still = dataclasses.replace(problem, action_spread=torch.tensor([0.0]))
    put = draw_candidates(
        still, obs, hints=Hints(), noise=RowNoise(torch.arange(2000)), draws=3, clone_draws=0, radius=1.0
    )
    assert not put.action.any()


def test_the_clone_and_the_plan_before_propose_actions():
    problem = make_problem(clone=PolicyPrior(LinearPolicy(gain=1.0), BOX, proposal_std=1e-9))
    obs = torch.tensor([[0.5], [0.8]], dtype=torch.float64)
    hints = Hints(warm=torch.full((2, 3, 1), 0.3, dtype=torch.float64), has_warm=torch.tensor([True, False]))
    drawn = draw_candidates(
        problem, obs, hints=hints, noise=RowNoise(torch.arange(2)), draws=1, clone_draws=1, radius=1.0
    )
    assert [SOURCES[index] for index in drawn.source[0].tolist()] == [
        "policy", "warm", "clone", "flat_policy",
    ]  # fmt: skip
    torch.testing.assert_close(drawn.action[:, 1, 0], torch.tensor([0.3, -0.16], dtype=torch.float64))
    torch.testing.assert_close(drawn.action[:, 2, 0], torch.tensor([0.25, 0.4], dtype=torch.float64))


def test_an_improved_action_really_gains_in_the_system_itself():
    """One step of policy iteration: in the true model the estimated gains are the true ones."""
    problem = make_problem(policy=LinearPolicy(gain=0.0))
    obs = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    planner = RolloutPlanner(problem, RolloutPlannerConfig(horizon=60, draws=30, radius=3.0))
    result = planner.plan(obs, budget=Budget(sims=30), noise=RowNoise(torch.arange(9)))
    real = followed_gain(problem, obs, result.action, horizon=60, noise=RowNoise(torch.arange(9)))
    torch.testing.assert_close(real, result.delta_lcb, rtol=1e-3, atol=1e-3)
    assert bool((real[[0, 1, 2, 6, 7, 8]] > 0.1).all())
    assert bool((real >= 0).all())


def test_without_a_limit_of_time_a_clock_changes_nothing():
    """As planners are built for a run: with a clock, and a budget of candidates alone."""
    obs, config = torch.tensor([[1.5], [-0.7]], dtype=torch.float64), RolloutPlannerConfig(horizon=5)
    ticks = iter(range(1000))
    results = [
        RolloutPlanner(make_problem(), config, clock).plan(
            obs, budget=Budget(sims=9), noise=RowNoise(torch.arange(2))
        )
        for clock in (None, lambda: float(next(ticks)))
    ]
    assert [result.stats.sims for result in results] == [9, 9]
    assert torch.equal(results[0].action, results[1].action)
