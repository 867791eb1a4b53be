"""Leaves by hand: whose step, whose value, whose proposals."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.tree.evaluation import ModelEvaluation, Rows, Transition
from mbrl.planning.tree.proposals import SampledActions, SampledProposals
from tests.planning.tasks import DOUBLE, BoxStep, box_problem
from tests.planning.worlds import FormulaLeaf

OBS = torch.tensor([[0.3, -0.2, 0.1], [1.0, 0.4, -0.6]], dtype=DOUBLE)
ACTION = torch.tensor([[0.5, -0.5], [0.1, 0.9]], dtype=DOUBLE)


def _evaluation(problem: PlanningProblem, transition: Transition, *, sims: int = 3) -> ModelEvaluation:
    proposals = SampledProposals(problem, SampledActions(inner_samples=2))
    return ModelEvaluation(
        problem, proposals, transition=transition, noise=RowNoise(torch.arange(2)), sims=sims
    )


def _rows(*copies: int, sim: int = 0) -> Rows:
    return Rows(torch.tensor([0, 1]), torch.full((2,), sim), torch.tensor(copies))


def _by_member(problem: PlanningProblem) -> Tensor:
    step = problem.step
    assert isinstance(step, BoxStep)
    return torch.einsum("eij,rj->eri", step.transition, OBS) + torch.einsum(
        "eij,rj->eri", step.control, ACTION
    )


def test_trees_follow_their_member_and_the_mean_follows_all():
    problem = box_problem()
    following = _by_member(problem)
    forest = _evaluation(problem, "member_forest")(
        OBS, ACTION, _rows(0, 5)
    )  # copy 5 of three members: the last
    assert torch.allclose(forest.observation, torch.stack((following[0, 0], following[2, 1])))
    mean = _evaluation(problem, "mean")(OBS, ACTION, _rows(0, 0))
    assert torch.allclose(mean.observation, following.mean(0))
    reward = -(OBS.square().sum(1) + 0.1 * ACTION.square().sum(1))
    assert torch.allclose(mean.edge.reward, reward)
    value = -2.25 * mean.observation.square().sum(1)  # the mean of the critics
    assert torch.allclose(mean.value, value)
    assert torch.allclose(mean.edge.discount, torch.full((2,), 0.95, dtype=DOUBLE))


def test_draws_belong_to_the_state_and_the_simulation():
    problem = box_problem()
    noise = RowNoise(torch.arange(2)).normal("tree/outcome", (3, 4)).to(DOUBLE)
    evaluation = _evaluation(problem, "ts_inf")
    leaf = evaluation(OBS, ACTION, _rows(1, 0, sim=2))
    following = _by_member(problem)
    expected = torch.stack((following[1, 0], following[0, 1])) + 0.05 * noise[:, 2, :-1]
    assert torch.allclose(leaf.observation, expected)
    member = (RowNoise(torch.arange(2)).uniform("tree/member", (3,)) * 3).long()[:, 1]
    drawn = _evaluation(problem, "ts1")(OBS, ACTION, _rows(0, 0, sim=1))
    expected = following[member, torch.arange(2)] + 0.05 * noise[:, 1, :-1]
    assert torch.allclose(drawn.observation, expected)


def test_copies_that_share_their_edges_are_asked_once():
    problem = box_problem(uncertainty_coef=1.0)
    shape = (2, 3, 1)  # states, copies, edges of each
    state, copy = (
        torch.arange(2)[:, None, None].expand(shape).flatten(),
        torch.arange(3)[None, :, None].expand(shape).flatten(),
    )
    evaluation = _evaluation(problem, "member_forest")
    rows = Rows(state, torch.zeros(6, dtype=torch.int64), copy)
    apart = evaluation(OBS[state], ACTION[state], rows)
    assert evaluation.model_rows == 6
    shared = evaluation(OBS[state], ACTION[state], rows._replace(shared=1))
    assert evaluation.model_rows == 6 + 2
    assert torch.allclose(shared.observation, apart.observation)
    assert torch.allclose(shared.uncertainty, apart.uncertainty)


def test_nothing_is_asked_beyond_an_end_and_parts_are_booked():
    """Row 1 leaves the limit: no value, no proposals, no discount; u = |a| costs 2 |a|."""
    limit = float(_by_member(box_problem()).mean(0).abs().amax(1).mean())  # between the two
    problem = box_problem(limit=limit, uncertainty_coef=1.0, pessimism=Pessimism(penalty_coef=2.0))
    asked: list[int] = []

    def one(obs: Tensor) -> Tensor:
        asked.append(len(obs))
        return torch.ones_like(obs[:, 0])

    problem = dataclasses.replace(problem, leaf=FormulaLeaf([one]))
    leaf = _evaluation(problem, "mean")(OBS, ACTION, _rows(0, 0))
    beyond = leaf.observation.abs().amax(1) > limit
    assert beyond.sum() == 1
    assert torch.equal(leaf.edge.ended, beyond)
    assert asked == [1]
    assert leaf.value.tolist() == [0.0 if end else 1.0 for end in beyond]
    assert leaf.edge.discount.tolist() == [0.0 if end else 0.95 for end in beyond]
    assert leaf.edge.penalty.tolist() == pytest.approx((2.0 * ACTION.abs().sum(1)).tolist())
    assert leaf.actions is not None
    assert bool((leaf.actions[beyond] == 0).all())
    assert bool((leaf.actions[~beyond] != 0).any())


def test_a_step_without_a_number_is_nan_and_is_not_asked_about():
    problem = box_problem()
    inner = problem.step

    class Broken:
        ensemble_size = 3

        def __call__(self, obs, action, *, member=None, noise=None):
            out = inner(obs, action, member=member, noise=noise)
            return out._replace(next_observation=out.next_observation * torch.tensor([[1.0], [math.inf]]))

    leaf = _evaluation(dataclasses.replace(problem, step=Broken()), "mean")(OBS, ACTION, _rows(0, 0))
    assert leaf.edge.reward.isnan().tolist() == [False, True]
    assert bool(leaf.observation.isfinite().all())
    assert not leaf.is_finite
    assert leaf.take(torch.tensor([0])).is_finite
