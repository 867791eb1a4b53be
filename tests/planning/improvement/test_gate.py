"""The gate opens for gains that are real, and for no others."""

import dataclasses

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget
from mbrl.planning.improvement.gate import Gate, GatedPlanner, calibrate_gate
from mbrl.planning.improvement.rollout import RolloutPlanner, RolloutPlannerConfig
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics

BOX = ActionBox(SPACE)
STATES = 120


def make_problem(bonus: float) -> PlanningProblem:
    """A policy that does nothing, and a model that pays `bonus` for every unit of action."""
    prior = PolicyPrior(LinearPolicy(gain=0.0), BOX)
    step = LearnedStep(LinearModel((0.0, 0.0), (bonus, bonus)), NeverTerminates(), BOX)
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    return PlanningProblem(step, prior, leaf, 1, 0.9, dtype=torch.float64)


def gate(believed: float, real: float, *, seed: int = 0, episodes: int = 12) -> Gate:
    planner = RolloutPlanner(make_problem(believed), RolloutPlannerConfig(horizon=1, has_tail=False))
    generator = torch.Generator().manual_seed(seed)
    return calibrate_gate(
        planner,
        make_problem(real),
        torch.zeros(STATES, 1),
        torch.arange(STATES) % episodes,
        horizon=1,
        budget=Budget(sims=9),
        generator=generator,
    )


def test_gains_that_another_model_confirms_open_it_for_all():
    found = gate(2.0, 1.0)
    assert found.threshold == 0.0
    assert found.is_open
    assert found.asked == len(found.estimated) == STATES
    # Twice as much was believed as there is: estimate and outcome are proportional.
    ratio = torch.tensor(found.realised) / torch.tensor(found.estimated)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.5), rtol=1e-4, atol=1e-4)
    assert found.correlation == pytest.approx(1.0)
    assert found.points[0].low is not None
    assert found.points[0].low > 0.0


def test_gains_that_are_losses_elsewhere_keep_it_closed():
    found = gate(2.0, -1.0)
    assert found.threshold is None
    assert not found.is_open
    assert all(point.realised < 0.0 for point in found.points)
    assert "Closed" in found.verdict


def test_nothing_to_gain_keeps_it_closed():
    found = gate(-1.0, 1.0)
    assert found.threshold is None
    assert found.points == ()
    assert "nowhere" in found.verdict


def test_few_episodes_prove_nothing():
    assert gate(2.0, 1.0, episodes=3).threshold is None


def test_gains_that_are_noise_open_it_rarely(monkeypatch):
    """Realised gains without a mean: the four looks together err in one case of twenty at most."""
    opened = 0
    trials = 200
    for seed in range(trials):
        noise = torch.randn(STATES, generator=torch.Generator().manual_seed(seed))
        monkeypatch.setattr(
            "mbrl.planning.improvement.gate.followed_gain", lambda *_, values=noise, **__: values
        )
        opened += gate(2.0, 1.0, seed=seed, episodes=60).is_open
    # 5 % of 200 are 10; three binomial deviations above it are 19, and bootstrap bounds are a little short.
    assert opened <= 19


def test_only_gains_above_the_threshold_are_acted_upon():
    planner = RolloutPlanner(make_problem(2.0), RolloutPlannerConfig(horizon=1, has_tail=False))
    obs, noise = torch.zeros(STATES, 1, dtype=torch.float64), RowNoise(torch.arange(STATES))
    free = planner.plan(obs, budget=Budget(sims=9), noise=noise)
    level = float(free.delta_lcb.median())
    opened = gate(2.0, 1.0).model_copy(update={"threshold": level})
    result = GatedPlanner(planner, opened).plan(obs, budget=Budget(sims=9), noise=noise)
    passes = free.delta_lcb > level
    assert 0 < int(passes.sum()) < STATES
    torch.testing.assert_close(result.action[passes], free.action[passes])
    assert not result.action[~passes].any()  # the policy does nothing
    closed = opened.model_copy(update={"threshold": None})
    assert not GatedPlanner(planner, closed).plan(obs, budget=Budget(sims=9), noise=noise).action.any()


class Silent:
    """Compares nothing."""

    def __init__(self, planner: RolloutPlanner) -> None:
        self.planner, self.problem = planner, planner.problem

    def plan(self, obs, *, budget, noise, hints=None):
        found = self.planner.plan(obs, budget=budget, noise=noise, hints=hints)
        return dataclasses.replace(found, delta_lcb=torch.full_like(found.delta_lcb, torch.nan))


def test_a_planner_that_compares_nothing_is_told_apart_from_one_that_sees_no_gain():
    planner = Silent(RolloutPlanner(make_problem(2.0), RolloutPlannerConfig(horizon=1, has_tail=False)))
    found = calibrate_gate(
        planner, make_problem(1.0), torch.zeros(40, 1), torch.arange(40) % 8,
        horizon=1, budget=Budget(sims=9), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert (found.threshold, found.compared, found.asked) == (None, 0, 40)
    assert "compares nothing" in found.verdict
    assert gate(-1.0, 1.0).compared == STATES
