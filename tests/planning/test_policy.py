"""A planner as a policy: its draws, its memory, what estimators make of it."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import UndefinedRatioError
from mbrl.core.protocols import EpisodicPolicy, Policy, StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.dynamics.termination import NeverTerminates
from mbrl.envs.make import Env
from mbrl.envs.stepping import run_episodes
from mbrl.nets.action_box import ActionBox
from mbrl.off_policy.log.policies import action_log_prob, is_stochastic
from mbrl.planning.base import Budget, Hints, PlanResult, PlanStats
from mbrl.planning.policy import PlannerPolicy, hash_rows
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics

BOX = ActionBox(SPACE)


def problem() -> PlanningProblem:
    prior = PolicyPrior(LinearPolicy(), BOX)
    step = LearnedStep(LinearModel(), NeverTerminates(), BOX)
    return PlanningProblem(step, prior, CriticLeaf(QuadraticCritics(), prior, BOX), 1, 0.9)


@dataclasses.dataclass
class Echo:
    """Plans three steps: a draw, then two actions that name the state; remembers the hints."""

    problem: PlanningProblem = dataclasses.field(default_factory=problem)
    hints: list[Hints | None] = dataclasses.field(default_factory=list)
    length: int = 3
    elites: bool = False

    def plan(self, obs, *, budget, noise, hints=None):
        del budget
        self.hints.append(hints)
        rows = len(obs)
        first = 2.0 * noise.uniform("a", (1,)).float() - 1.0
        plan = torch.stack([first, 0.1 * obs, 0.2 * obs], 1)
        zero, flags = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
        stats = PlanStats(1, 1, rows, 1, 0.0, False, flags, 0, 1, 0)
        table = torch.zeros(rows, 1, dtype=torch.int64)
        return PlanResult(
            first, plan, torch.full((rows,), self.length), first[:, None], torch.ones(rows, 1), table, table,
            *[zero] * 7, stats, *[torch.zeros(rows, 3)] * 2,
            elites=torch.stack([plan, -plan], 1) if self.elites else None,
        )  # fmt: skip


def test_the_evaluation_action_is_a_function_of_the_state_and_noise_moves_it():
    policy = PlannerPolicy(Echo(), BOX, Budget(sims=1))
    obs = torch.linspace(-1, 1, 600)[:, None]
    whole = policy.act(obs)
    assert torch.equal(whole, policy.act(obs))
    assert torch.equal(policy.act(obs[300:301]), whole[300:301])
    assert len(whole.unique()) == 600
    noise = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    drawn = policy.act(obs, noise)
    assert torch.equal(drawn[7:8], policy.act(obs[7:8], noise[7:8]))
    assert not torch.equal(drawn, whole)
    assert bool((whole.abs() <= 2.0).all())
    assert float(whole.abs().max()) > 1.5


def test_equal_rows_hash_alike_and_others_do_not():
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    hashes = hash_rows(torch.cat([rows, rows[:1], rows[:1].roll(1, 1)]))
    assert hashes[0] == hashes[1000]
    assert len(hashes.unique()) == 1001


def test_the_previous_plan_is_offered_shifted_and_forgotten_on_reset():
    planner = Echo()
    policy = PlannerPolicy(planner, BOX, Budget(sims=1))
    assert isinstance(policy, EpisodicPolicy)
    policy.act_in_episodes(torch.tensor([[1.0], [2.0]]), episodes=[4, 7])
    policy.act_in_episodes(torch.tensor([[3.0], [5.0]]), episodes=[7, 9])
    assert planner.hints[0] is None
    hints = planner.hints[1]
    assert hints is not None
    assert hints.warm is not None
    assert hints.has_warm is not None
    assert hints.has_warm.tolist() == [True, False]
    assert torch.allclose(hints.warm[0, :, 0], torch.tensor([0.2, 0.4]))
    policy.reset([7, 9])
    policy.act_in_episodes(torch.tensor([[1.0]]), episodes=[7])
    assert planner.hints[2] is None
    policy.act(torch.tensor([[1.0]]))
    assert planner.hints[3] is None
    planner.length = 1  # nothing is left of a plan of one step
    policy.act_in_episodes(torch.tensor([[1.0]]), episodes=[7])
    policy.act_in_episodes(torch.tensor([[1.0]]), episodes=[7])
    assert planner.hints[4] is not None
    assert planner.hints[5] is None


def test_a_longer_and_a_shorter_plan_are_offered_together():
    planner = Echo()
    policy = PlannerPolicy(planner, BOX, Budget(sims=1))
    policy.act_in_episodes(torch.tensor([[1.0]]), episodes=[0])
    planner.length = 2
    policy.act_in_episodes(torch.tensor([[2.0]]), episodes=[1])
    policy.act_in_episodes(torch.tensor([[0.0], [0.0]]), episodes=[0, 1])
    hints = planner.hints[-1]
    assert hints is not None
    assert hints.warm is not None
    assert torch.allclose(hints.warm[..., 0], torch.tensor([[0.1, 0.2], [0.2, 0.2]]))


def test_elites_come_back_shifted_to_the_episodes_that_left_them():
    planner = Echo(elites=True)
    policy = PlannerPolicy(planner, BOX, Budget(sims=1))
    policy.act_in_episodes(torch.tensor([[1.0], [2.0]]), episodes=[0, 1])
    policy.act_in_episodes(torch.tensor([[0.0], [0.0]]), episodes=[1, 5])
    hints = planner.hints[-1]
    assert hints is not None
    assert hints.elites is not None
    assert hints.elites.shape == (2, 2, 2, 1)
    assert torch.allclose(hints.elites[0, 1, :, 0], torch.tensor([-0.2, -0.4]))
    assert float(hints.elites[1].abs().max()) == 0.0


class _Env:
    """Ends after as many steps as its reset's episode says; observes the step."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        del seed, options
        self.t, self.resets = 0, self.resets + 1
        return np.array([0.0], np.float32), {}

    def step(self, action):
        del action
        self.t += 1
        return np.array([float(self.t)], np.float32), 1.0, self.t == 2 + self.resets, False, {}

    def render(self):
        return None

    def close(self) -> None:
        return None


def test_episodes_side_by_side_keep_their_own_plans_and_lose_them_at_their_ends():
    planner = Echo()
    policy = PlannerPolicy(planner, BOX, Budget(sims=1))
    envs: list[Env] = [_Env()]  # pyright: ignore[reportAssignmentType]
    records = list(run_episodes(envs, policy, rng=RngStreams(0), is_deterministic=True, episodes=2))
    assert [len(record) for record in records] == [3, 4]
    known = [hints is not None for hints in planner.hints]
    assert known == [False, True, True, False, True, True, True]


def test_it_has_no_density_so_ratios_are_refused():
    policy: Policy = PlannerPolicy(Echo(), BOX, Budget(sims=1))
    assert not isinstance(policy, StochasticPolicy)
    assert not is_stochastic(policy)
    with pytest.raises(UndefinedRatioError):
        action_log_prob(policy, torch.zeros(2, 1), torch.zeros(2, 1))


def test_every_plan_is_told():
    told: list[PlanResult] = []
    policy = PlannerPolicy(Echo(), BOX, Budget(sims=1), on_plan=told.append)
    policy.act(torch.zeros(300, 1))
    assert [len(result.action) for result in told] == [256, 44]
