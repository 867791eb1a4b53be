"""One candidate's value by parts and its plan, on trees whose numbers are known."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.problem.problem import Pessimism
from mbrl.planning.tree.search import Copies, Search
from mbrl.planning.tree.summary import follow_plan, member_values, plan_edges, pool_parts
from tests.planning.tasks import DOUBLE, make_search, states, table_problem


def _two_members(**settings: object) -> Search:
    """States 0 to 3 in a row, two actions that both go on; members disagree about action 1 in state 0."""
    following = torch.tensor([[1, 1], [2, 2], [3, 3], [3, 3]]).expand(2, 4, 2)
    reward = torch.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 0.0], [0.0, 0.0]], dtype=DOUBLE).repeat(2, 1, 1)
    reward[1, 0, 1] = 6.0
    problem = table_problem(
        following, reward, values=torch.tensor([0.0, 8.0, 16.0, 0.0], dtype=DOUBLE), discount=0.5, **settings
    )
    copies = Copies(2, 2, is_forest=True)
    return make_search(problem, states(0), sims=8, copies=copies, transition="member_forest", max_depth=3)


def _run(search: Search, action: int, below: int) -> None:
    def select(node: Tensor, rows: Tensor | None) -> Tensor:
        return torch.full_like(node, below)

    search.run_round(torch.tensor([[action]]), torch.tensor([[search.rounds]]), select=select)


def test_members_are_told_apart_and_what_was_not_asked_is_nan():
    search = _two_members()
    _run(search, 1, 0)
    values = member_values(search)
    assert values[0, :, 1].tolist() == pytest.approx([2.0 + 0.5 * 8.0, 6.0 + 0.5 * 8.0])
    assert bool(values[0, :, 0].isnan().all())


def test_parts_are_the_means_over_members_and_add_up():
    uncertainty = torch.full((4, 2), 2.0, dtype=DOUBLE)
    search = _two_members(uncertainty=uncertainty, pessimism=Pessimism(penalty_coef=0.5))
    _run(search, 1, 0)
    _run(search, 1, 1)  # below it action 1: 5 - 1 + 0.5 V(2)
    parts = pool_parts(search, torch.tensor([1]))
    assert float(parts.reward) == pytest.approx((2.0 + 6.0) / 2 + 0.5 * 5.0 / 2)
    assert float(parts.penalty) == pytest.approx(1.0 + 0.5 * 1.0 / 2)
    assert float(parts.bootstrap) == pytest.approx(0.5 * (8.0 + 0.5 * 16.0) / 2)
    assert float(parts.uncertainty) == pytest.approx(2.0)
    total = parts.reward - parts.penalty + parts.bootstrap
    assert float(total) == pytest.approx(float(search.stats().mean[0, 1]))
    nothing = pool_parts(search, torch.tensor([0]))
    assert [float(part) for part in nothing] == [0.0] * 4


def test_the_plan_follows_visits_and_of_equals_the_better():
    search = _two_members()
    for below in (0, 0, 1):
        _run(search, 1, below)
    plan, length = follow_plan(search, torch.tensor([1]))
    assert length.tolist() == [2]
    # The first run makes the node, then action 0 and action 1 are taken once each; 1 pays more.
    assert plan[0].argmax(-1).tolist() == [1, 1]
    edges = plan_edges(search, torch.tensor([1]))[0]
    # Member 0 says 2, member 1 says 6: both are as far from their mean, and the first of them speaks.
    assert int(edges[0]) == 1
    _run(search, 1, 0)
    more, _ = follow_plan(search, torch.tensor([1]))
    assert more[0, :2].argmax(-1).tolist() == [1, 0]  # visited twice now


def test_the_plan_does_not_enter_what_is_too_uncertain():
    uncertainty = torch.zeros(4, 2, dtype=DOUBLE)
    uncertainty[1, 0] = 9.0
    pessimism = Pessimism(halt_threshold=1.0, halt_loss=0.0)
    search = _two_members(uncertainty=uncertainty, pessimism=pessimism)
    for below in (0, 0, 0, 1):
        _run(search, 1, below)
    plan, length = follow_plan(search, torch.tensor([1]))
    assert plan[0, 1].argmax() == 1  # though the other was visited more often
    assert int(length) == 2


def test_a_plan_without_visits_has_its_first_step_alone():
    search = _two_members()
    _run(search, 0, 0)
    plan, length = follow_plan(search, torch.tensor([0]))
    assert (plan.shape, length.tolist()) == ((1, 1, 2), [1])
    assert not math.isnan(float(plan.sum()))
