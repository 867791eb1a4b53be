"""What the trees of a state say together: pooling over members and particles, exclusions, turns."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.tree.search import Copies, Search
from tests.planning.tasks import DOUBLE, make_search, states, table_problem

FOREST = Copies(3, 3, is_forest=True)


def _opinions(**settings: object) -> PlanningProblem:
    """One step; three members say 1, 2 and 6 of action 0, and 4 of action 1."""
    reward = torch.zeros(3, 2, 2, dtype=DOUBLE)
    reward[:, 0, 0] = torch.tensor([1.0, 2.0, 6.0])
    reward[:, 0, 1] = 4.0
    return table_problem(
        torch.ones(3, 2, 2, dtype=torch.int64),
        reward,
        values=torch.zeros(2, dtype=DOUBLE),
        terminated=torch.tensor([False, True]),
        **settings,
    )


def _visit(search: Search, *actions: int) -> None:
    for sim, action in enumerate(actions):
        chosen = torch.tensor([[action]])
        search.run_round(chosen, torch.full_like(chosen, sim), select=_never)


def _never(node: Tensor, rows: Tensor | None) -> Tensor:
    raise AssertionError("one-step tasks have nothing below the roots")


def test_a_forest_pools_members_to_a_mean_less_deviations():
    problem = _opinions(pessimism=Pessimism(lcb_coef=0.5))
    search = make_search(problem, states(0), sims=4, copies=FOREST, transition="member_forest")
    _visit(search, 0, 1, 0)
    stats, spread = search.stats(), math.sqrt((2**2 + 1**2 + 3**2) / 3)
    assert stats.visits.tolist() == [[2.0, 1.0]]  # a simulation runs in every tree and counts once
    assert stats.mean[0].tolist() == pytest.approx([3.0, 4.0])
    assert stats.deviation[0].tolist() == pytest.approx([spread, 0.0])
    assert stats.q[0].tolist() == pytest.approx([3.0 - 0.5 * spread, 4.0])
    assert search.root_values().tolist() == pytest.approx([(0.0 + 3.0 + 4.0 + 3.0) / 4.0])


def test_the_trees_of_a_forest_share_one_question_at_the_root():
    problem = _opinions()
    search = make_search(problem, states(0), sims=4, copies=FOREST, transition="member_forest")
    search.run_round(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), select=_never)
    assert [len(asked) for asked in problem.step.asked] == [2]  # two edges, each of all members at once


def test_particles_take_turns_and_a_member_counts_once():
    """Five trees for three members: the first two members have two trees each."""
    problem = _opinions(pessimism=Pessimism(lcb_coef=1.0))
    search = make_search(problem, states(0), sims=9, copies=Copies(5, 3), transition="ts_inf")
    _visit(search, *[0] * 7)
    stats = search.stats()
    assert stats.visits.tolist() == [[7.0, 0.0]]
    by_tree = search.tree.at_root(search.tree.visits)[:, 0].tolist()
    assert by_tree == [2.0, 2.0, 1.0, 1.0, 1.0]  # one after the other, from the first on
    # Visits weigh the mean: trees 0 and 3 of member 0 have three, trees 1 and 4 of member 1 likewise.
    assert float(stats.mean[0, 0]) == pytest.approx((3 * 1.0 + 3 * 2.0 + 6.0) / 7)
    assert float(stats.deviation[0, 0]) == pytest.approx(math.sqrt((2**2 + 1**2 + 3**2) / 3))


def test_candidates_that_the_model_cannot_answer_are_excluded():
    problem = _opinions()
    problem.step.reward[1, 0, 0] = math.nan  # one member is enough
    search = make_search(problem, states(0), sims=4, copies=FOREST, transition="member_forest")
    assert not search.may_exclude
    _visit(search, 0)
    assert search.may_exclude
    assert search.bad_rows == 1
    assert search.valid.tolist() == [[False, True]]
    assert search.choosable.tolist() == [[False, True]]


@pytest.mark.parametrize(("uncertain", "valid"), [((0.0, 9.0), [True, False]), ((9.0, 9.0), [True, True])])
def test_what_halts_is_left_alone_while_something_else_is_there(uncertain, valid):
    problem = _opinions(
        uncertainty=torch.tensor([uncertain, (0.0, 0.0)], dtype=DOUBLE),
        pessimism=Pessimism(halt_threshold=1.0, halt_loss=5.0),
    )
    search = make_search(problem, states(0), sims=4)
    assert search.valid.tolist() == [[True, True]]  # nothing is known yet
    _visit(search, 0, 1)
    assert search.valid.tolist() == [valid]
    assert search.choosable.tolist() == [valid]


def test_only_what_was_tried_may_be_chosen_where_the_rest_halts():
    """Action 1 was tried and halts, action 0 was not tried: the plan may begin with either."""
    problem = _opinions(
        uncertainty=torch.tensor([[0.0, 9.0], [0.0, 0.0]], dtype=DOUBLE),
        pessimism=Pessimism(halt_threshold=1.0, halt_loss=5.0),
    )
    search = make_search(problem, states(0), sims=4)
    _visit(search, 1)
    assert search.valid.tolist() == [[True, False]]
    assert search.choosable.tolist() == [[True, True]]


def test_inactive_simulations_leave_no_trace():
    search = make_search(_opinions(), states(0, 0), sims=4)
    search.run_round(
        torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0, 1], [0, 1]]), select=_never,
        active=torch.tensor([[True, False], [True, True]]),
    )  # fmt: skip
    assert search.stats().visits.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert search.tree.size == 3
