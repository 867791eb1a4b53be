"""Constraints and costs of plans, by hand and in worlds where the best plan is known with and without."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import PLANNERS, Budget, PlanResult
from mbrl.planning.improvement.gate import pass_gate
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.limits import allowed_only, rank_within, with_limits
from mbrl.planning.problem.problem import Limits, PlanningProblem
from tests.planning.worlds import FormulaLeaf, LinearPrior, make_problem, steady

WALL = 0.5


def test_the_order_is_within_the_limits_first_then_by_excess_then_by_score():
    score = torch.tensor([[9.0, 8.0, 1.0, 7.0, -math.inf, 0.0]])
    excess = torch.tensor([[0.5, 0.2, 0.0, 0.2, 0.0, 0.0]])
    ranked = rank_within(score, excess)
    assert ranked.argsort(descending=True).tolist() == [[2, 5, 1, 3, 0, 4]]
    assert ranked[0, [2, 5, 4]].tolist() == [1.0, 0.0, -math.inf]
    assert rank_within(score, torch.zeros(1, 6)).equal(score)


def test_excess_counts_shares_and_costs_and_then_steps():
    limits = Limits(share=0.25, cost=10.0)
    shares, costs = torch.tensor([0.25, 0.5, 0.0, math.nan]), torch.tensor([10.0, 10.0, 15.0, math.nan])
    found = limits.excess(shares, costs, torch.zeros(4))
    assert found.tolist() == pytest.approx([0.0, 0.25, 0.5, 0.0], abs=1e-5)
    fewer, more = limits.excess(torch.ones(2), torch.zeros(2), torch.tensor([3.0, 4.0]))
    assert float(fewer) < float(more) < 0.76


def test_nothing_moves_towards_elites_beyond_the_limits():
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])
    found = allowed_only(weights, torch.tensor([[0.1, 0.0, 0.0], [0.1, 0.2, 0.0]]))
    assert found.tolist() == [[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]]


def _slide(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """A point mass pushed along a line; the goal lies at 1, and members differ in how far a push goes."""
    following = obs + (0.3 + 0.02 * member.to(obs.dtype))[:, None] * action
    reward = -(following[:, 0] - 1.0).square()
    return following, reward, *steady(reward)


def _kept(obs: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return (following[:, 0] <= WALL).to(obs.dtype)


def _wall(*, share: float = 0.0, prior: LinearPrior | None = None) -> PlanningProblem:
    leaf = FormulaLeaf([lambda obs: -5.0 * (obs[:, 0] - 1.0).square()])
    problem = make_problem(
        _slide, members=4, leaf=leaf, prior=prior or LinearPrior(torch.zeros(1, 1), std=0.5)
    )
    return with_limits(problem, Limits(share), constraint=_kept)


def _plan(name: str, problem: PlanningProblem, obs: Tensor, **settings: object) -> PlanResult:
    entry = PLANNERS.get(name)
    planner = entry.build(problem, entry.config.model_validate(settings), None)
    return planner.plan(obs, budget=Budget(96), noise=RowNoise(torch.arange(len(obs))))


SETTINGS: list[tuple[str, dict[str, object]]] = [
    ("mppi", {}),
    ("mppi", {"execute": "sample"}),
    ("icem", {"execute": "best"}),
    ("cem", {"horizon": 4, "particles": None, "outcome": "mean"}),
    ("rollout", {"horizon": 1, "draws": 48, "radius": 3.0, "lcb_coef": 0.0}),
    ("sampled_gumbel", {"max_depth": 2}),
    ("sampled_gumbel", {"max_depth": 2, "node_value": "max", "transition": "mean"}),
    ("dpw", {"max_depth": 2}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_the_unconstrained_optimum_crosses_the_wall_and_the_constrained_one_does_not(
    name: str, settings: dict[str, object]
):
    obs = torch.tensor([[0.0], [0.2], [0.3], [0.35], [0.4]]).double()
    problem = _wall()
    free = _plan(name, dataclasses.replace(problem, limits=None), obs, **settings)
    farthest = obs + 0.36 * free.action
    assert float(farthest[1:].amax()) > WALL
    held = _plan(name, problem, obs, **settings)
    assert bool((obs + 0.36 * held.action <= WALL + 1e-6).all())
    assert bool((held.limited[:, 0] == 0.0).all())
    assert float(held.action.mean()) > 0.0  # it still goes where it may


@pytest.mark.parametrize("name", ["mppi", "rollout", "sampled_gumbel"])
@pytest.mark.parametrize(("share", "is_allowed"), [(0.2, False), (0.25, True)])
def test_the_share_counts_members_exactly(name: str, share: float, is_allowed: bool):
    """Of four members one breaks the rule wherever the action is above 0, and going there pays."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        jump = ((member == 3) & (action[:, 0] > 0.0)).to(obs.dtype)
        reward = action[:, 0] + 0.0 * obs[:, 0]
        return obs + 10.0 * jump[:, None], reward, *steady(reward)

    problem = make_problem(formula, members=4, prior=LinearPrior(torch.zeros(1, 1), bias=-0.2, std=0.5))
    problem = with_limits(problem, Limits(share), constraint=_kept)
    settings: dict[str, object] = {"horizon": 1} if name != "sampled_gumbel" else {"max_depth": 1}
    if name == "rollout":
        settings |= {"lcb_coef": 0.0, "draws": 48, "radius": 3.0}
    result = _plan(name, problem, torch.zeros(3, 1).double(), **settings)
    assert bool(((result.action > 0.0) == is_allowed).all())
    assert result.limited[:, 0].tolist() == [0.25 * is_allowed] * 3


def test_a_dead_end_behind_a_harmless_step_is_seen():
    """What moves fast now is beyond the wall one step later, whatever is done then."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        speed = obs[:, 1] + 0.5 * action[:, 0]
        place = obs[:, 0] + obs[:, 1]
        reward = speed
        return torch.stack((place, speed), 1), reward, *steady(reward)

    prior = LinearPrior(torch.zeros(1, 2), std=0.5)
    problem = make_problem(formula, obs_dim=2, members=2, prior=prior)
    problem = with_limits(problem, Limits(), constraint=_kept)
    obs = torch.tensor([[0.0, 0.3]]).double()  # next 0.3, then 0.6 + a / 2: only a < -0.2 stays below 0.5
    for name, settings in (("sampled_gumbel", {"max_depth": 2}), ("mppi", {"horizon": 2})):
        result = _plan(name, problem, obs, **settings)
        assert float(result.action) <= -0.2 + 1e-6
        assert float(result.limited[0, 0]) == 0.0


def test_where_nothing_keeps_to_the_limits_the_least_broken_is_taken_and_told():
    obs = torch.tensor([[3.0]]).double()
    for name, settings in (("mppi", {"horizon": 1}), ("sampled_gumbel", {"max_depth": 1})):
        assert float(_plan(name, _wall(), obs, **settings).limited[0, 0]) == 1.0


def test_costs_have_a_price_and_a_limit():
    """`-(a - 0.8)^2` at a cost of `a` a step: a price p takes p / 2 off, a limit keeps the sum."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = -(action[:, 0] - 0.8).square() + 0.0 * obs[:, 0]
        return obs, reward, *steady(reward)

    def cost(obs: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return action[:, 0]

    problem, obs = make_problem(formula, discount=1.0), torch.zeros(2, 1).double()
    priced = with_limits(problem, Limits(), cost=cost, price=0.6)
    found = _plan("icem", priced, obs, horizon=2)
    torch.testing.assert_close(found.action, torch.full((2, 1), 0.5).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.limited[:, 1], torch.ones(2).double(), rtol=0, atol=2e-3)
    limited = _plan("icem", with_limits(problem, Limits(cost=0.6), cost=cost), obs, horizon=2)
    assert bool((limited.limited[:, 1] <= 0.6 + 1e-5).all())
    assert float(limited.limited[:, 1].min()) > 0.4
    with pytest.raises(Exception, match="cost_limit"):
        _plan("sampled_gumbel", with_limits(problem, Limits(cost=0.6), cost=cost), obs)


def test_a_gate_does_not_bring_back_what_a_limit_forbids():
    forward = LinearPrior(torch.zeros(1, 1), bias=1.0, std=0.5)
    problem, obs = _wall(prior=forward), torch.tensor([[0.4], [-2.0]]).double()
    result = _plan("mppi", problem, obs)
    assert result.policy_limited[:, 0].tolist() == [1.0, 0.0]
    mode = forward.act(obs)
    passed = pass_gate(result, mode, threshold=None, limits=problem.limits)
    assert torch.equal(passed.action[0], result.action[0])
    assert torch.equal(passed.action[1], mode[1])
    assert passed.stats.is_fallback.tolist() == [False, True]
    assert float(passed.limited[0, 2]) < float(result.policy_limited[0, 2]) == 5.0
