"""Trajectory optimisers against Riccati, flips worked by hand, and defects known elsewhere."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import SOURCES, Budget, Hints, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.shooting.cem import CEM, CEMConfig
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from mbrl.planning.shooting.mppi import MPPI, PRESETS, MBOPConfig, MPPIConfig, exponential_weights
from mbrl.planning.shooting.shooting import ShootingPlanner, share_out
from tests.planning.worlds import LQR, FormulaLeaf, LinearPrior, World, make_problem, steady, zero_prior

ENOUGH = Budget(sims=10_000_000)


def _plan(planner: ShootingPlanner, obs: Tensor, *, hints: Hints | None = None, seed: int = 0) -> PlanResult:
    noise = RowNoise.draw(len(obs), torch.Generator().manual_seed(seed))
    return planner.plan(obs, budget=Budget(sims=sum(planner.sizes())), noise=noise, hints=hints)


def _each(problem: PlanningProblem, **settings: object) -> list[ShootingPlanner]:
    """One planner of each kind, with settings that all have."""
    return [
        MPPI(problem, MPPIConfig.model_validate(settings)),
        ICEM(problem, ICEMConfig.model_validate(settings)),
        CEM(problem, CEMConfig.model_validate({"particles": None, "outcome": "mean"} | settings)),
    ]


# LQR


SIZES = [(2, 1, 1), (2, 1, 4), (2, 1, 10), (4, 2, 1), (4, 2, 4), (6, 6, 1)]
ICEM_LARGE = {"population": 1000, "iterations": 20, "elites": 100, "shrink": 1.0, "noise_exponent": 0.5}
MPPI_LARGE = {"population": 1000, "iterations": 10, "elites": 100, "inverse_temperature": 2.0}


@pytest.mark.parametrize(("obs_dim", "act_dim", "horizon"), SIZES)
def test_the_first_action_is_that_of_riccati_at_any_horizon(obs_dim: int, act_dim: int, horizon: int):
    lqr = LQR.random(obs_dim, act_dim, seed=obs_dim)
    obs = lqr.states(3, seed=1)
    optimal = -obs @ lqr.k.T
    icem = ICEM(lqr.problem(), ICEMConfig(horizon=horizon, **ICEM_LARGE))
    mppi = MPPI(lqr.problem(), MPPIConfig(horizon=horizon, **MPPI_LARGE))
    for planner, tolerance in ((icem, 0.02), (mppi, 0.10)):
        result = _plan(planner, obs)
        error = (result.action - optimal).norm(dim=1)
        assert bool((error <= tolerance * optimal.norm(dim=1) + 0.01).all())
        assert bool((result.value <= lqr.value(obs) + 1e-9).all())


def test_noise_of_the_process_does_not_move_the_action():
    """Certainty equivalence: the optimal action of a linear-quadratic task does not depend on its noise."""
    lqr = LQR.random(2, 1, seed=2)
    obs = lqr.states(2, seed=1)
    optimal = -obs @ lqr.k.T
    problem = lqr.problem(noise_std=0.02)
    small: dict[str, Any] = {"horizon": 2, "particles": 64, "outcome": "sample", "population": 200}
    icem = ICEM(problem, ICEMConfig(**ICEM_LARGE | small | {"elites": 20, "iterations": 12}))
    mppi = MPPI(problem, MPPIConfig(**MPPI_LARGE | small))
    for planner, tolerance in ((icem, 0.02), (mppi, 0.10)):
        error = (_plan(planner, obs).action - optimal).norm(dim=1)
        assert bool((error <= tolerance * optimal.norm(dim=1) + 0.01).all())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ratio"), [("icem", 1.02), ("mppi", 1.10)])
def test_a_hundred_steps_cost_what_riccati_costs(name: str, ratio: float):
    lqr = LQR.random(2, 1, seed=2)
    obs = lqr.states(2, seed=3)
    icem = ICEM(lqr.problem(), ICEMConfig(horizon=3, population=96, iterations=4, elites=12))
    mppi = MPPI(lqr.problem(), MPPIConfig(horizon=3))
    planner: ShootingPlanner = icem if name == "icem" else mppi
    total, state, hints = torch.zeros(2).double(), obs, None
    for step in range(100):
        result = _plan(planner, state, hints=hints, seed=step)
        state, reward, *_ = lqr.formula(state, result.action, torch.zeros(2))
        total += lqr.discount**step * reward
        rest = None if result.elites is None else result.elites[:, :, 1:]
        hints = Hints(warm=result.plan[:, 1:], elites=rest)
    assert float(total.sum() / lqr.value(obs).sum()) <= ratio


# doubt


def _risky(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Right pays 2 and is doubted by 0.5, left pays 1 and is certain."""
    is_right = action[:, 0] > 0.0
    reward = torch.where(is_right, 2.0, 1.0).double()
    return obs, reward, torch.zeros_like(is_right), 0.5 * is_right.double()


@pytest.mark.parametrize(("share", "goes_right"), [(0.99, True), (1.01, False)])
def test_the_choice_flips_where_the_penalty_eats_the_gain(share: float, goes_right: bool):
    penalty_coef = share * (2.0 - 1.0) / 0.5
    problem = make_problem(_risky, pessimism=Pessimism(penalty_coef=penalty_coef))
    for planner in _each(problem, horizon=1):
        result = _plan(planner, torch.zeros(5, 1).double())
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
    for planner in _each(problem, horizon=1, particles=particles):
        result = _plan(planner, torch.zeros(5, 1).double())
        assert bool(((result.action > 0) == goes_right).all())
        assert result.value.tolist() == pytest.approx([3.0 if goes_right else 2.0] * 5)
        assert (result.value - result.value_lcb).tolist() == pytest.approx([share * goes_right] * 5)


@pytest.mark.parametrize("offset", [1.0, -3.0])
def test_no_plan_halts_if_another_does_not(offset: float):
    """A corridor between doubts, in the middle of which lies a treasure that nobody has ever seen."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        next_obs = obs + torch.stack((torch.full_like(action[:, 0], 0.5), 0.5 * action[:, 0]), 1)
        forth, side = next_obs.T
        doubt = (((forth > 0.75) & (forth < 1.25) & (side.abs() < 0.3)) | (side.abs() > 0.9)).double()
        reward = offset + 100.0 * doubt + 0.1 * forth
        return next_obs, reward, (doubt > 0) & (member == 0), doubt

    discount, horizon = 0.9, 4
    pessimism = Pessimism(halt_threshold=0.5, halt_loss=-min(offset, 0.0) / (1 - discount))
    leaf = FormulaLeaf([lambda obs: torch.full_like(obs[:, 0], offset / (1 - discount))])
    problem = make_problem(
        formula, obs_dim=2, act_dim=1, members=2, discount=discount, leaf=leaf, pessimism=pessimism
    )
    obs = torch.stack((torch.zeros(16), torch.linspace(-0.2, 0.2, 16)), 1).double()
    for planner in _each(problem, horizon=horizon):
        result = _plan(planner, obs)
        state = obs
        for step in range(horizon):
            state, _, _, doubt = formula(state, result.plan[:, step], torch.zeros(16))
            assert not bool(doubt.any())
        assert not bool(result.stats.is_fallback.any())


# scale, edges


def _bowl(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    next_obs = 0.9 * obs + 0.3 * action
    reward = -(next_obs[:, 0] - 0.5).square() - 0.1 * action[:, 0].square()
    return next_obs, reward, *steady(reward)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_the_unit_of_the_reward_does_not_matter(factor: float):
    def scaled(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        next_obs, reward, *rest = _bowl(obs, action, member)
        return next_obs, factor * reward, *rest

    obs = torch.linspace(-1, 1, 5)[:, None].double()
    leaf = FormulaLeaf([lambda obs: -obs[:, 0].square()])
    scaled_leaf = FormulaLeaf([lambda obs: -factor * obs[:, 0].square()])
    plain = _each(make_problem(_bowl, leaf=leaf))
    other = _each(make_problem(scaled, leaf=scaled_leaf, value_scale=factor))
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(_plan(a, obs).plan, _plan(b, obs).plan)


def test_large_values_stay_finite_and_keep_their_differences():
    leaf = FormulaLeaf([lambda obs: 1e4 - obs[:, 0].square()])
    obs = torch.linspace(-1, 1, 5)[:, None]
    for planner in _each(make_problem(_bowl, leaf=leaf, dtype=torch.float32)):
        result = _plan(planner, obs)
        small = _plan(type(planner)(_small_problem(), planner.config), obs)
        assert bool(result.weights.isfinite().all())
        assert float((result.action - small.action).abs().max()) < 0.2


def _small_problem() -> PlanningProblem:
    leaf = FormulaLeaf([lambda obs: -obs[:, 0].square()])
    return make_problem(_bowl, leaf=leaf, dtype=torch.float32)


@pytest.mark.parametrize(("discount", "horizon"), [(1.0, 1), (1.0, 4), (0.0, 3)])
def test_edges_of_discount_and_horizon(discount: float, horizon: int):
    """One step of the bowl: `argmin (0.9 s + 0.3 a - 0.5)^2 + 0.1 a^2` where nothing later counts."""
    obs = torch.tensor([[0.4]]).double()
    for planner in _each(make_problem(_bowl, discount=discount), horizon=horizon, iterations=8):
        result = _plan(planner, obs)
        assert bool(result.value.isfinite().all())
        if discount == 0.0 or horizon == 1:
            best = 0.3 * (0.5 - 0.9 * 0.4) / (0.3**2 + 0.1)
            assert float(result.action) == pytest.approx(best, abs=0.06)


# warm starts, memory, candidates


def test_a_warm_plan_is_the_first_mean_and_rows_without_one_start_from_the_policy():
    problem = make_problem(_bowl, prior=LinearPrior(torch.zeros(1, 1), bias=-0.6))
    obs, warm = torch.zeros(2, 1).double(), torch.full((2, 2, 1), 0.8).double()
    hints = Hints(warm=warm, has_warm=torch.tensor([True, False]))
    planner = CEM(problem, CEMConfig(horizon=4, iterations=1, momentum=0.0, std_start=1e-6, particles=1))
    result = _plan(planner, obs, hints=hints)
    assert result.plan[0, :, 0].tolist() == pytest.approx([0.8, 0.8, -0.6, -0.6], abs=1e-4)
    assert result.plan[1, :, 0].tolist() == pytest.approx([-0.6] * 4, abs=1e-4)
    zero = CEM(problem, planner.config.model_copy(update={"start": "zero", "policy_plans": 1}))
    cold = _plan(zero, obs).plan
    assert float(cold.abs().max()) < 0.1


def test_remembered_elites_compete_again():
    """A needle that no draw finds: only memory can."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = ((action[:, 0] - 0.987).abs() < 1e-6).double()
        return obs, reward, *steady(reward)

    planner = ICEM(make_problem(formula), ICEMConfig(horizon=2, execute="best"))
    obs, needle = torch.zeros(2, 1).double(), torch.full((2, 1, 1, 1), 0.987).double()
    hints = Hints(warm=torch.zeros(2, 1, 1).double(), elites=needle, has_warm=torch.tensor([True, False]))
    result = _plan(planner, obs, hints=hints)
    assert result.value.tolist() == pytest.approx([1.0, 0.0])
    assert result.elites is not None
    assert result.elites.shape == (2, 2, 2, 1)
    assert float(result.elites[0, 0, 0]) == pytest.approx(0.987)
    assert SOURCES[int(result.provenance[0, 1])] == "warm"


def test_injected_actions_are_candidates_of_the_dataset():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = ((action[:, 0] - 0.3).abs() < 1e-6).double()
        return obs, reward, *steady(reward)

    for planner in _each(make_problem(formula), horizon=1, iterations=1, execute="best"):
        hints = Hints(candidates=torch.tensor([[[0.3], [0.5]]]).double())
        result = _plan(planner, torch.zeros(1, 1).double(), hints=hints)
        assert float(result.action) == pytest.approx(0.3)
        assert SOURCES[int(result.provenance[0, 1])] == "dataset"


def test_policy_plans_are_draws_of_the_policy_in_closed_loop():
    """Where every action but the policy's own is worthless, only its draws survive."""
    prior = LinearPrior(torch.tensor([[0.5]]).double(), std=0.01)

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = -((action - 0.5 * obs).abs()[:, 0] > 0.05).double()
        return obs - 0.5, reward, *steady(reward)

    problem = make_problem(formula, prior=prior, discount=1.0)
    config = MPPIConfig(horizon=4, std_start=0.5, std_min=0.5, start="zero", elites=16, execute="best")
    result = _plan(MPPI(problem, config), torch.tensor([[1.5]]).double())
    sources = [
        SOURCES[int(k)] for k, w in zip(result.provenance[0], result.weights[0], strict=True) if w > 0.02
    ]
    assert set(sources) == {"policy"}
    assert float(result.value) == 0.0
    assert (result.plan[0, :, 0] - torch.tensor([0.75, 0.5, 0.25, 0.0])).abs().max() < 0.05


def test_a_perturbed_policy_mixes_with_the_warm_plan():
    """`a = (1 - mix) (pi(s) + std eps) + mix a_warm` (MBOP)."""
    prior = LinearPrior(torch.zeros(1, 1), bias=0.5)
    problem = make_problem(_bowl, prior=prior)
    config = MBOPConfig(
        horizon=3, population=2000, policy_plans=2000, elites=2000, policy_std=0.1, policy_mix=0.4
    )
    hints = Hints(warm=torch.full((2, 3, 1), -0.5).double(), has_warm=torch.tensor([True, False]))
    assert isinstance(problem.step, World)
    _plan(MPPI(problem, config), torch.zeros(2, 1).double(), hints=hints)
    drawn = problem.step.actions[0].view(-1, 2)[-1999:]
    assert drawn.mean(0).tolist() == pytest.approx([0.6 * 0.5 + 0.4 * -0.5, 0.5], abs=0.01)
    assert drawn.std(0).tolist() == pytest.approx([0.06, 0.1], rel=0.1)


# the plan that is followed


def _fork(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Both sides pay, the middle costs dearly."""
    reward = torch.where(action[:, 0].abs() < 0.2, -10.0, 1.0).double()
    return obs, reward, *steady(reward)


def test_the_mean_of_two_ways_around_is_not_followed():
    for planner in _each(make_problem(_fork), horizon=1, iterations=1, start="zero"):
        result = _plan(planner, torch.zeros(8, 1).double())
        assert bool((result.action.abs() >= 0.2).all())
        assert result.value.tolist() == [1.0] * 8


def test_ways_to_execute():
    obs = torch.zeros(3, 1).double()
    for planner in _each(make_problem(_bowl), horizon=2, execute="sample"):
        first, second = _plan(planner, obs), _plan(planner, obs, seed=1)
        assert bool((first.action[:, None] == first.candidates).all(-1).any(1).all())
        assert not torch.equal(first.action, second.action)
    for planner in _each(make_problem(_bowl), horizon=2, iterations=1, execute="best"):
        result = _plan(planner, obs)
        assert torch.equal(result.action, result.candidates[:, 1])


def test_delta_compares_with_the_policy_in_closed_loop():
    """The policy steers away what noise does; a plan that is followed blindly cannot."""
    prior = LinearPrior(torch.tensor([[-0.9]]).double())

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        drift = torch.where(member == 0, 0.3, -0.3)[:, None]
        next_obs = 0.9 * obs + action + drift
        return next_obs, -obs[:, 0].square(), *steady(obs[:, 0])

    problem = make_problem(formula, members=2, prior=prior, discount=1.0)
    result = _plan(MPPI(problem, MPPIConfig(horizon=3)), torch.zeros(1, 1).double())
    closed = -(0.0 + 0.3**2 + 0.3**2)
    assert float(result.delta_lcb) == pytest.approx(float(result.value_lcb) - closed)
    assert float(result.delta_lcb) < 0.0


# budgets


def test_sims_are_shared_out_in_proportion():
    assert share_out((48, 38, 30), None) == (48, 38, 30)
    assert share_out((100, 50, 50), 40) == (20, 10, 10)
    assert share_out((10, 10, 10), 7) == (7,)
    assert share_out((10, 10, 10), 17) == (8, 9)
    assert sum(share_out((256, 240, 240), 1001)) == 1001


def test_population_sizes():
    problem = make_problem(_bowl)
    assert ICEM(problem, ICEMConfig(iterations=8)).sizes() == (48, 38, 30, 24, 19, 16, 16, 16)
    assert MPPI(problem, MPPIConfig()).sizes() == (256, 240, 240)
    assert CEM(problem, CEMConfig()).sizes() == (400,) * 5


class Ticking:
    """A clock that moves by the model's calls and rows."""

    def __init__(self, world: World, *, call: float = 0.0, row: float = 0.0) -> None:
        self.world, self.call, self.row = world, call, row

    def __call__(self) -> float:
        actions = self.world.actions
        return self.call * len(actions) + self.row * sum(len(action) for action in actions)


def _ticking(**speed: float) -> MPPI:
    problem = make_problem(_bowl, prior=LinearPrior(torch.zeros(1, 1), bias=0.25))
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
    assert first.stats.rounds == 2  # 18 plans: 5 ms opening, two iterations, the check of the mean
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


# defects known elsewhere


def test_the_deviation_acts_and_the_warm_plan_is_not_written_to():
    """mbrl-lib's MPPI overwrites scaled noise by unscaled noise, and shifts a view of its past action."""
    problem = make_problem(_bowl)
    warm = torch.full((1, 5, 1), 0.2).double()
    before = warm.clone()
    spread = []
    for std in (0.01, 0.3):
        assert isinstance(problem.step, World)
        problem.step.actions.clear()
        config = MPPIConfig(std_start=std, std_min=0.001, iterations=1, policy_plans=1)
        result = _plan(MPPI(problem, config), torch.zeros(1, 1).double(), hints=Hints(warm=warm))
        spread.append(float(problem.step.actions[5][2:].std()))
        result.plan.zero_()
    assert spread == pytest.approx([0.01, 0.3], rel=0.15)
    assert torch.equal(warm, before)


def test_nan_never_outranks_a_negative_plan():
    """mbrl-lib's CEM replaces NaN by a tiny negative number, better than every plan with negative return."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = -1e3 - action[:, 0].square()
        return obs, torch.where(action[:, 0] > 0.0, math.nan, reward), *steady(reward)

    for planner in _each(make_problem(formula, prior=LinearPrior(torch.zeros(1, 1), bias=-0.1)), horizon=1):
        result = _plan(planner, torch.zeros(4, 1).double())
        assert bool((result.action <= 0.0).all())
        assert bool((result.candidates[result.weights > 0] <= 0.0).all())
        assert result.stats.bad_rows > 0


def test_without_a_finite_plan_the_policy_acts_and_says_so():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = torch.where(obs[:, 0] > 0.5, math.nan, -action[:, 0].square())
        return obs, reward, *steady(reward)

    prior = LinearPrior(torch.zeros(1, 1), bias=0.7)
    for planner in _each(make_problem(formula, prior=prior), horizon=2):
        result = _plan(planner, torch.tensor([[1.0], [0.0]]).double())
        assert result.stats.is_fallback.tolist() == [True, False]
        assert float(result.action[0]) == pytest.approx(0.7)
        assert result.weights[0].tolist() == [1.0] + [0.0] * (result.weights.shape[1] - 1)
        assert abs(float(result.action[1])) < 0.2


def test_weights_subtract_the_maximum():
    """TorchRL's MPPI exponentiates raw values: 1e4 overflows."""
    score = torch.tensor([[1e4, 1e4 - 1.0, -math.inf, 1e4 - 2.0], [-math.inf] * 4]).double()
    raw = exponential_weights(score, inverse_temperature=0.5, floor=None)
    total = 1 + math.exp(-0.5) + math.exp(-1.0)
    assert raw[0].tolist() == pytest.approx([1 / total, math.exp(-0.5) / total, 0.0, math.exp(-1) / total])
    assert raw[1].tolist() == [0.0] * 4
    deviation = math.sqrt(2 / 3)
    scaled = exponential_weights(score, inverse_temperature=2.0, floor=1e-3)
    assert float(scaled[0, 1] / scaled[0, 0]) == pytest.approx(math.exp(-2.0 / deviation))
    equal = exponential_weights(torch.full((1, 3), 7.0), inverse_temperature=1.0, floor=1e-3)
    assert equal.tolist() == [pytest.approx([1 / 3] * 3)]


def test_the_deviation_does_not_collapse():
    """TorchRL's MPPI may; so the second plan would find nothing new."""
    problem = make_problem(_bowl)
    config = MPPIConfig(iterations=12, std_min=0.05, policy_plans=1)
    _plan(MPPI(problem, config), torch.zeros(1, 1).double())
    assert isinstance(problem.step, World)
    last = problem.step.actions[-6]  # the first draw of the last iteration's last step
    assert float(last.std()) == pytest.approx(0.05, rel=0.2)


def test_the_control_cost_prefers_plans_near_zero():
    """`-cost mean (a - mean) / std^2`: with equal returns the weighted mean moves against the mean."""

    def flat(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return obs, torch.zeros_like(obs[:, 0]), *steady(obs[:, 0])

    config = MPPIConfig(horizon=1, iterations=1, policy_plans=1, std_start=0.1, elites=256, standardise=False)
    hints = Hints(warm=torch.full((1, 1, 1), 0.5).double())
    moved = []
    for cost in (0.0, 0.05):
        planner = MPPI(make_problem(flat), config.model_copy(update={"control_cost": cost}))
        moved.append(float(_plan(planner, torch.zeros(1, 1).double(), hints=hints).action))
    assert moved[0] == pytest.approx(0.5, abs=0.02)
    assert moved[1] - moved[0] == pytest.approx(-0.05 * 0.5, rel=0.15)  # the exponential tilt of a Gaussian


def test_presets_are_complete_and_yield_to_what_is_given():
    for name, values in PRESETS.items():
        config = MPPIConfig.model_validate({"preset": name, "horizon": 2})
        assert config.model_dump() == {**MPPIConfig().model_dump(), **values, "preset": name, "horizon": 2}
        assert MPPIConfig.model_validate(config.model_dump()) == config
    assert MBOPConfig().population == 100
    assert MBOPConfig(preset="mbop-acme").policy_std == 0.8


def test_settings_that_make_no_sense_are_refused():
    doubting = make_problem(_bowl, members=2, pessimism=Pessimism(lcb_coef=1.0))
    with pytest.raises(ConfigError, match="ts_inf"):
        MPPI(doubting, MPPIConfig(transition="mean"))
    with pytest.raises(ConfigError, match="std_min"):
        MPPI(make_problem(_bowl), MPPIConfig(std_min=0.9))
    with pytest.raises(ConfigError, match="variance"):
        MPPI(make_problem(_bowl), MPPIConfig(control_cost=1.0, std_min=0.0))
    discrete = zero_prior(1, 2)
    with pytest.raises(ConfigError, match="continuous"):
        CEM(dataclasses.replace(make_problem(_bowl), prior=_OneHot(discrete.gain)), CEMConfig())


class _OneHot(LinearPrior):
    @property
    def is_discrete(self) -> bool:
        return True
