"""What all trajectory optimisers share: uncertainty, scales, budgets, the plan that is followed."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import Budget, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.shooting.cem import CEM, CEMConfig
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from mbrl.planning.shooting.sizes import share_out
from tests.planning.shooting.tasks import bowl, one_of_each, plan
from tests.planning.worlds import FormulaLeaf, LinearPrior, World, make_problem, steady, zero_prior


def _risky(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Right pays 2 and is uncertain by 0.5, left pays 1 and is certain."""
    is_right = action[:, 0] > 0.0
    reward = torch.where(is_right, 2.0, 1.0).double()
    return obs, reward, torch.zeros_like(is_right), 0.5 * is_right.double()


@pytest.mark.parametrize(("share", "goes_right"), [(0.99, True), (1.01, False)])
def test_the_choice_flips_where_the_penalty_eats_the_gain(share: float, goes_right: bool):
    penalty_coef = share * (2.0 - 1.0) / 0.5
    problem = make_problem(_risky, pessimism=Pessimism(penalty_coef=penalty_coef))
    for planner in one_of_each(problem, horizon=1):
        result = plan(planner, torch.zeros(5, 1).double())
        assert bool(((result.action > 0) == goes_right).all())
        assert result.uncertainty.tolist() == [0.5 * goes_right] * 5
        assert result.penalty_part.tolist() == pytest.approx([penalty_coef * 0.5 * goes_right] * 5)


def _disputed(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Left pays 2; of right, member 0 says 5 and member 1 says 1: mean 3, deviation 2."""
    right = torch.where(member == 0, 5.0, 1.0)
    reward = torch.where(action[:, 0] > 0.0, right, 2.0).double()
    return obs, reward, *steady(reward)


@pytest.mark.parametrize("particles", [2, 3, 5])
@pytest.mark.parametrize(("share", "goes_right"), [(0.99, True), (1.01, False)])
def test_the_choice_flips_where_dispute_eats_the_gain(share: float, goes_right: bool, particles: int):
    """At `kappa* = (3 - 2) / 2`, however unequal the particles of the members are."""
    problem = make_problem(_disputed, members=2, pessimism=Pessimism(lcb_coef=share * 0.5))
    for planner in one_of_each(problem, horizon=1, particles=particles):
        result = plan(planner, torch.zeros(5, 1).double())
        assert bool(((result.action > 0) == goes_right).all())
        assert result.value.tolist() == pytest.approx([3.0 if goes_right else 2.0] * 5)
        assert (result.value - result.value_lcb).tolist() == pytest.approx([share * goes_right] * 5)


@pytest.mark.parametrize("offset", [1.0, -3.0])
def test_no_plan_halts_if_another_does_not(offset: float):
    """A corridor between uncertain regions, in the middle of which lies a reward that nobody has seen."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        next_obs = obs + torch.stack((torch.full_like(action[:, 0], 0.5), 0.5 * action[:, 0]), 1)
        forth, side = next_obs.T
        uncertainty = (((forth > 0.75) & (forth < 1.25) & (side.abs() < 0.3)) | (side.abs() > 0.9)).double()
        reward = offset + 100.0 * uncertainty + 0.1 * forth
        return next_obs, reward, (uncertainty > 0) & (member == 0), uncertainty

    discount, horizon = 0.9, 4
    pessimism = Pessimism(halt_threshold=0.5, halt_loss=-min(offset, 0.0) / (1 - discount))
    leaf = FormulaLeaf([lambda obs: torch.full_like(obs[:, 0], offset / (1 - discount))])
    problem = make_problem(
        formula, obs_dim=2, act_dim=1, members=2, discount=discount, leaf=leaf, pessimism=pessimism
    )
    obs = torch.stack((torch.zeros(16), torch.linspace(-0.2, 0.2, 16)), 1).double()
    for planner in one_of_each(problem, horizon=horizon):
        result = plan(planner, obs)
        state = obs
        for step in range(horizon):
            state, _, _, uncertainty = formula(state, result.plan[:, step], torch.zeros(16))
            assert not bool(uncertainty.any())
        assert not bool(result.stats.is_fallback.any())


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_the_unit_of_the_reward_does_not_matter(factor: float):
    def scaled(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        next_obs, reward, *rest = bowl(obs, action, member)
        return next_obs, factor * reward, *rest

    obs = torch.linspace(-1, 1, 5)[:, None].double()
    leaf = FormulaLeaf([lambda obs: -obs[:, 0].square()])
    scaled_leaf = FormulaLeaf([lambda obs: -factor * obs[:, 0].square()])
    plain = one_of_each(make_problem(bowl, leaf=leaf))
    other = one_of_each(make_problem(scaled, leaf=scaled_leaf, value_scale=factor))
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(plan(a, obs).plan, plan(b, obs).plan)


def test_large_values_stay_finite_and_keep_their_differences():
    leaf = FormulaLeaf([lambda obs: 1e4 - obs[:, 0].square()])
    obs = torch.linspace(-1, 1, 5)[:, None]
    for planner in one_of_each(make_problem(bowl, leaf=leaf, dtype=torch.float32)):
        result = plan(planner, obs)
        small = plan(type(planner)(_small_problem(), planner.config), obs)
        assert bool(result.weights.isfinite().all())
        assert float((result.action - small.action).abs().max()) < 0.2


def _small_problem() -> PlanningProblem:
    leaf = FormulaLeaf([lambda obs: -obs[:, 0].square()])
    return make_problem(bowl, leaf=leaf, dtype=torch.float32)


@pytest.mark.parametrize(("discount", "horizon"), [(1.0, 1), (1.0, 4), (0.0, 3)])
def test_edges_of_discount_and_horizon(discount: float, horizon: int):
    """One step of the bowl: `argmin (0.9 s + 0.3 a - 0.5)^2 + 0.1 a^2` where nothing later counts."""
    obs = torch.tensor([[0.4]]).double()
    for planner in one_of_each(make_problem(bowl, discount=discount), horizon=horizon, iterations=8):
        result = plan(planner, obs)
        assert bool(result.value.isfinite().all())
        if discount == 0.0 or horizon == 1:
            best = 0.3 * (0.5 - 0.9 * 0.4) / (0.3**2 + 0.1)
            assert float(result.action) == pytest.approx(best, abs=0.06)


def _fork(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Both sides pay, the middle costs dearly."""
    reward = torch.where(action[:, 0].abs() < 0.2, -10.0, 1.0).double()
    return obs, reward, *steady(reward)


def test_the_mean_of_two_ways_around_is_not_followed():
    for planner in one_of_each(make_problem(_fork), horizon=1, iterations=1, start="zero"):
        result = plan(planner, torch.zeros(8, 1).double())
        assert bool((result.action.abs() >= 0.2).all())
        assert result.value.tolist() == [1.0] * 8


def test_ways_to_execute():
    obs = torch.zeros(3, 1).double()
    for planner in one_of_each(make_problem(bowl), horizon=2, execute="sample"):
        first, second = plan(planner, obs), plan(planner, obs, seed=1)
        assert bool((first.action[:, None] == first.candidates).all(-1).any(1).all())
        assert not torch.equal(first.action, second.action)
    for planner in one_of_each(make_problem(bowl), horizon=2, iterations=1, execute="best"):
        result = plan(planner, obs)
        assert torch.equal(result.action, result.candidates[:, 1])


def test_sims_are_shared_out_in_proportion():
    assert share_out((48, 38, 30), None) == (48, 38, 30)
    assert share_out((100, 50, 50), 40) == (20, 10, 10)
    assert share_out((10, 10, 10), 7) == (7,)
    assert share_out((10, 10, 10), 17) == (8, 9)
    assert sum(share_out((256, 240, 240), 1001)) == 1001


def test_policy_plans_are_scored_once():
    assert MPPI(make_problem(bowl), MPPIConfig()).sizes() == (256, 240, 240)


class Ticking:
    """A clock that moves by the model's calls and rows."""

    def __init__(self, world: World, *, call: float = 0.0, row: float = 0.0) -> None:
        self.world, self.call, self.row = world, call, row

    def __call__(self) -> float:
        actions = self.world.actions
        return self.call * len(actions) + self.row * sum(len(action) for action in actions)


def _ticking(**speed: float) -> MPPI:
    problem = make_problem(bowl, prior=LinearPrior(torch.zeros(1, 1), bias=0.25))
    assert isinstance(problem.step, World)
    return MPPI(problem, MPPIConfig(horizon=5, iterations=10), Ticking(problem.step, **speed))


def _in_time(planner: MPPI, milliseconds: float) -> PlanResult:
    budget = Budget(milliseconds=milliseconds)
    return planner.plan(torch.zeros(2, 1).double(), budget=budget, noise=RowNoise(torch.arange(2)))


def test_plans_grow_until_they_fill_the_time():
    """A row takes 10 us: 256 + 9 * 240 plans of 5 steps of 2 states would take 242 ms."""
    planner = _ticking(row=1e-5)
    results = [_in_time(planner, 100.0) for _ in range(6)]
    sims = [result.stats.sims for result in results]
    assert sims == [18, 302, 604, 604, 604, 604]  # 1.3 * 60 ms fit, twice that does not
    assert max(result.stats.milliseconds for result in results) <= 100.0
    assert not any(bool(result.stats.is_fallback.any()) for result in results)


def test_a_deadline_ends_the_iterations_and_keeps_what_they_found():
    planner = _ticking(call=0.001)
    _in_time(planner, 26.0)  # a first run is no measure
    first = _in_time(planner, 26.0)
    assert first.stats.rounds == 2  # 18 plans: 5 ms initial plans, two iterations, the check of the mean
    second = _in_time(planner, 18.5)
    assert second.stats.rounds == 1  # 10 + 1.3 * (5 + 5) fit into 18.5, twice 5 do not
    assert second.stats.is_deadline_hit
    assert second.stats.milliseconds == pytest.approx(15.0)
    for result in (first, second):
        assert not bool(result.stats.is_fallback.any())


def test_a_call_without_iterations_does_not_tell_what_finishing_takes():
    planner = _ticking(call=0.001)
    for milliseconds in (26.0, 26.0, 8.0, 8.0, 8.0, 8.0):
        _in_time(planner, milliseconds)
    result = _in_time(planner, 16.0)  # 5 + 1.3 * (5 + 5) do not fit; without the check of the mean they would
    assert result.stats.rounds == 0
    assert result.stats.milliseconds == pytest.approx(5.0)


def test_no_time_for_an_iteration_is_the_policys_action():
    planner = _ticking(call=0.001)
    for _ in range(2):
        _in_time(planner, 26.0)
    late = _in_time(planner, 8.0)
    assert late.stats.is_fallback.tolist() == [True, True]
    assert (late.stats.rounds, late.stats.sims) == (0, 0)
    assert late.stats.milliseconds == pytest.approx(5.0)
    assert late.action.flatten().tolist() == [0.25, 0.25]
    assert late.value.isfinite().all()  # the policy's own worth was computed
    tight = _in_time(planner, 4.0)
    assert tight.action.flatten().tolist() == [0.25, 0.25]
    assert torch.equal(tight.value, planner.problem.leaf_value(torch.zeros(2, 1).double()))
    assert bool(tight.delta_lcb.isnan().all())
    assert tight.stats.model_calls == 0


def test_nan_never_outranks_a_negative_plan():
    """mbrl-lib's CEM replaces NaN by a tiny negative number, better than every plan with negative return."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = -1e3 - action[:, 0].square()
        return obs, torch.where(action[:, 0] > 0.0, math.nan, reward), *steady(reward)

    for planner in one_of_each(
        make_problem(formula, prior=LinearPrior(torch.zeros(1, 1), bias=-0.1)), horizon=1
    ):
        result = plan(planner, torch.zeros(4, 1).double())
        assert bool((result.action <= 0.0).all())
        assert bool((result.candidates[result.weights > 0] <= 0.0).all())
        assert result.stats.bad_rows > 0


def test_without_a_finite_plan_the_policy_acts_and_says_so():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = torch.where(obs[:, 0] > 0.5, math.nan, -action[:, 0].square())
        return obs, reward, *steady(reward)

    prior = LinearPrior(torch.zeros(1, 1), bias=0.7)
    for planner in one_of_each(make_problem(formula, prior=prior), horizon=2):
        result = plan(planner, torch.tensor([[1.0], [0.0]]).double())
        assert result.stats.is_fallback.tolist() == [True, False]
        assert float(result.action[0]) == pytest.approx(0.7)
        assert result.weights[0].tolist() == [1.0] + [0.0] * (result.weights.shape[1] - 1)
        assert abs(float(result.action[1])) < 0.2


def test_settings_that_make_no_sense_are_refused():
    charging = make_problem(bowl, members=2, pessimism=Pessimism(lcb_coef=1.0))
    with pytest.raises(ConfigError, match="ts_inf"):
        MPPI(charging, MPPIConfig(transition="mean"))
    with pytest.raises(ConfigError, match="std_min"):
        MPPI(make_problem(bowl), MPPIConfig(std_min=0.9))
    with pytest.raises(ConfigError, match="variance"):
        MPPI(make_problem(bowl), MPPIConfig(control_cost=1.0, std_min=0.0))
    discrete = zero_prior(1, 2)
    with pytest.raises(ConfigError, match="continuous"):
        CEM(dataclasses.replace(make_problem(bowl), prior=_OneHot(discrete.gain)), CEMConfig())


class _OneHot(LinearPrior):
    @property
    def is_discrete(self) -> bool:
        return True
