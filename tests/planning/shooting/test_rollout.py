"""Scores of plans against sums by hand and a recursion in plain Python."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.shooting.particles import draw_particles
from mbrl.planning.shooting.rollout import Scores, Tally, score_plans
from tests.planning.worlds import FormulaLeaf, make_problem, steady


def _score(
    problem: PlanningProblem,
    obs: Tensor,
    plans: Tensor,
    *,
    transition: str = "ts_inf",
    particles: int = 1,
    outcome: str = "mean",
) -> tuple[Scores, Tally]:
    noise = RowNoise(torch.arange(len(obs)))
    drawn = draw_particles(
        problem, noise, horizon=plans.shape[2], transition=transition, count=particles, outcome=outcome
    )
    tally = Tally.empty(torch.device("cpu"))
    return score_plans(problem, obs, plans.double(), drawn, tally=tally), tally


def _plans(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, :, :, None]


def _walk(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """`s' = s + a`, the reward is s', and the task ends from 2 on; beyond the end everything is NaN."""
    next_obs = obs + action
    next_obs = torch.where(obs >= 2.0, math.nan, next_obs)
    return next_obs, next_obs[:, 0], next_obs[:, 0] >= 2.0, torch.zeros_like(next_obs[:, 0])


def test_the_ending_step_counts_and_nothing_after_it():
    leaf = FormulaLeaf([lambda obs: 100.0 + obs[:, 0]])
    problem = make_problem(_walk, discount=0.5, leaf=leaf)
    plans = _plans([1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0])
    scores, tally = _score(problem, torch.zeros(1, 1).double(), plans)
    assert scores.score[0].tolist() == pytest.approx(
        [1 + 0.5 * 2, 1 + 0.5 * 1.5 + 0.25 * 1.5 + 0.125 * 101.5, 0.125 * 100]
    )
    assert scores.parts[:, 0, 1].tolist() == pytest.approx([1 + 0.75 + 0.375, 0.0, 0.125 * 101.5])
    assert int(tally.bad) == 0
    assert (tally.rows, tally.calls) == (9, 3)


def test_what_is_not_finite_is_excluded_and_counted_once():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = torch.where(action[:, 0] > 0.5, math.inf, action[:, 0])
        return torch.where(action < -0.5, math.nan, obs), reward, *steady(reward)

    scores, tally = _score(make_problem(formula), torch.zeros(1, 1).double(), _plans([1, 0], [-1, 0], [0, 0]))
    assert scores.score[0].tolist() == [-math.inf, -math.inf, 0.0]
    assert int(tally.bad) == 2


def test_a_leaf_that_is_not_finite_is_excluded():
    leaf = FormulaLeaf([lambda obs: torch.where(obs[:, 0] > 0.5, math.nan, 1.0)])
    scores, tally = _score(make_problem(_walk, leaf=leaf), torch.zeros(1, 1).double(), _plans([1.0], [0.0]))
    assert scores.score[0].tolist() == [-math.inf, pytest.approx(0.9)]
    assert int(tally.bad) == 1


def _opinions(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    """Member 0 pays nothing for anything, member 1 pays 3 for positive actions and 1 for others."""
    paid = torch.where(action[:, 0] > 0.0, 3.0, 1.0)
    reward = torch.where(member == 1, paid, 0.0).double()
    return obs, reward, *steady(reward)


def test_members_count_once_whatever_their_particles():
    problem = make_problem(_opinions, members=2, pessimism=Pessimism(lcb_coef=0.5))
    scores, _ = _score(problem, torch.zeros(1, 1).double(), _plans([1.0], [-1.0]), particles=3)
    assert scores.value[0].tolist() == pytest.approx([1.5, 0.5])  # particles at equal weight: 1 and 1/3
    assert scores.score[0].tolist() == pytest.approx([1.5 - 0.5 * 1.5, 0.5 - 0.5 * 0.5])


def test_noise_within_a_member_is_no_disagreement_between_members():
    def noisy(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return 0.0 * obs, obs[:, 0], *steady(obs[:, 0])

    problem = make_problem(noisy, members=2, noise_std=5.0, pessimism=Pessimism(lcb_coef=1.0))
    plain = make_problem(noisy, members=2, noise_std=5.0)
    obs, plans = torch.zeros(20, 1).double(), torch.zeros(20, 1, 3, 1)
    spread = _score(plain, obs, plans, particles=2000, outcome="sample")[0].value
    spread = spread - _score(problem, obs, plans, particles=2000, outcome="sample")[0].score
    noise = 5.0 * math.sqrt(0.9**2 + 0.9**4) / math.sqrt(2000)  # of the mean over all particles
    assert float(spread.mean()) == pytest.approx(noise * math.sqrt(2 / math.pi), rel=0.5)


def test_all_levers_obey_their_recursion():
    """`G = r - lambda u + g (1 - end) [w G' + (1 - w) V(s')]`, with a halt worth `-loss`."""
    pessimism = Pessimism(
        penalty_coef=0.7, halt_threshold=0.9, halt_loss=4.0, soft_horizon_coef=0.8, uncertainty_mean=0.5
    )

    def step(state: float, action: float) -> tuple[float, float, bool, float]:
        next_state = 0.8 * state + action
        return next_state, math.sin(3 * next_state), next_state > 1.6, abs(action)

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        rows = [step(float(o), float(a)) for o, a in zip(obs[:, 0], action[:, 0], strict=True)]
        columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
        return columns[0].double()[:, None], columns[1].double(), columns[2], columns[3].double()

    def worth(state: float, plan: list[float]) -> float:
        if not plan:
            return math.cos(state)
        after, reward, terminated, uncertainty = step(state, plan[0])
        if uncertainty > 0.9:
            return -4.0
        trust = math.exp(-0.8 * uncertainty / 0.5)
        rest = 0.0 if terminated else trust * worth(after, plan[1:]) + (1 - trust) * math.cos(after)
        return reward - 0.7 * uncertainty + 0.95 * rest

    leaf = FormulaLeaf([lambda obs: obs[:, 0].cos()])
    problem = make_problem(formula, discount=0.95, leaf=leaf, pessimism=pessimism)
    plans = torch.rand(3, 40, 5, 1, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    obs = torch.tensor([[0.0], [0.7], [1.5]]).double()
    scores, _ = _score(problem, obs, plans)
    expected = [
        [worth(float(o), p.flatten().tolist()) for p in row] for o, row in zip(obs, plans, strict=True)
    ]
    torch.testing.assert_close(scores.score, torch.tensor(expected).double())
    reward, penalty, bootstrap = scores.parts
    torch.testing.assert_close(scores.value, reward - penalty + bootstrap)
    halting = (plans.abs() > 0.9).any(2)[..., 0]
    assert bool(scores.halts.any())
    assert not bool((scores.halts & ~halting).any())


def test_the_mean_averages_members_before_the_next_step():
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return obs + torch.where(member == 0, -1.0, 3.0)[:, None], obs[:, 0].square(), *steady(obs[:, 0])

    scores, tally = _score(
        make_problem(formula, members=2, discount=1.0),
        torch.zeros(1, 1).double(),
        torch.zeros(1, 1, 3, 1),
        transition="mean",
    )
    assert float(scores.value) == pytest.approx(0 + 1 + 4)
    assert tally.rows == 6


def test_chunks_change_nothing():
    problem = make_problem(_walk)
    obs = torch.linspace(-1, 1, 30)[:, None].double()
    plans = torch.rand(30, 2000, 3, 1, generator=torch.Generator().manual_seed(0)).double()
    together, _ = _score(problem, obs, plans)
    alone, _ = _score(problem, obs[29:], plans[29:])
    assert torch.equal(together.score[29:], alone.score)
