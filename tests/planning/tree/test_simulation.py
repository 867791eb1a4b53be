"""Simulate, expand, backward on a chain whose numbers are known."""

import math

import pytest
import torch
from torch import Tensor

from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.tree.evaluation import Rows
from mbrl.planning.tree.search import Search
from mbrl.planning.tree.simulation import backward, backward_max, choose_outcome, expand, simulate
from mbrl.planning.tree.tree import MASKED, UNVISITED, VISITS
from tests.planning.tasks import DOUBLE, make_search, states, table_problem

DISCOUNT = 0.5


def _chain(*, pessimism: Pessimism | None = None) -> PlanningProblem:
    """States 0 to 4 in a row; action 0 goes on and pays `10 + state`, action 1 ends with -1; V(s) = 100 s."""
    following = torch.tensor([[min(s + 1, 4), 5] for s in range(5)] + [[5, 5]])
    reward = torch.tensor([[10.0 + s, -1.0] for s in range(5)] + [[0.0, 0.0]], dtype=DOUBLE)
    return table_problem(
        following,
        reward,
        values=100.0 * torch.arange(6, dtype=DOUBLE),
        terminated=torch.arange(6) == 5,
        uncertainty=torch.full((6, 2), 2.0, dtype=DOUBLE),
        discount=DISCOUNT,
        pessimism=pessimism,
    )


def _ahead(node: Tensor, rows: Tensor | None) -> Tensor:
    """Action 0 below the roots."""
    return torch.zeros_like(node)


def _grow(search: Search, times: int) -> None:
    """So many simulations of action 0 of every state, one below the other."""
    for sim in range(times):
        action = torch.zeros(len(search.root.value), 1, dtype=torch.int64)
        search.run_round(action, torch.full_like(action, sim), select=_ahead)


def test_simulations_walk_to_the_first_slot_that_is_unvisited_ended_or_at_the_limit():
    search = make_search(_chain(), states(0, 1), sims=4, max_depth=3)
    tree = search.tree
    for depth in (1, 2, 3, 3):
        path = simulate(tree, torch.tensor([0, 1]), torch.tensor([0, 0]), select=_ahead, max_depth=3)
        assert len(path.steps) == depth
        if depth < 3 or tree.size < 6:
            assert tree.child[path.slot].tolist() == [UNVISITED] * 2
        _grow(search, 1)
    assert tree.size == 6  # the limit of depth was evaluated once and is not expanded
    ended = simulate(tree, torch.tensor([0]), torch.tensor([1]), select=_ahead, max_depth=3)
    assert tree.child[ended.slot].tolist() == [UNVISITED]
    search.run_round(torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64), select=_ahead)
    again = simulate(tree, torch.tensor([0]), torch.tensor([1]), select=_never, max_depth=3)
    assert len(again.steps) == 1
    assert bool(tree.is_end[tree.child[again.slot]].all())


def _never(node: Tensor, rows: Tensor | None) -> Tensor:
    raise AssertionError("nothing lies below an end")


def test_simulations_of_unequal_length_keep_their_own_parent_and_slot():
    search = make_search(_chain(), states(0, 1), sims=4)
    tree = search.tree
    active = torch.tensor([[True], [False]])
    zero = torch.zeros(2, 1, dtype=torch.int64)
    search.run_round(zero, zero, select=_ahead, active=active)  # state 0 has a node, state 1 has none
    path = simulate(tree, torch.tensor([0, 1]), torch.tensor([0, 0]), select=_ahead, max_depth=9)
    assert [None if step.rows is None else step.rows.tolist() for step in path.steps] == [None, [0]]
    assert path.parent.tolist() == [2, 1]
    assert path.slot.tolist() == [int(tree.first_edge(torch.tensor(2))), 2]


def test_expansion_asks_only_for_what_is_unvisited():
    problem = _chain()
    search = make_search(problem, states(0, 1), sims=4)
    _grow(search, 1)
    search.tree.is_open.zero_()  # as if nothing went on below
    asked = len(problem.step.asked)
    path = simulate(search.tree, torch.tensor([0, 1]), torch.tensor([0, 1]), select=_never, max_depth=9)
    rows = Rows(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([0, 0]))
    assert len(expand(search.tree, path, rows, search._evaluate)) == 0
    assert [len(part) for part in problem.step.asked[asked:]] == [1]
    assert search.tree.observation[4].tolist() == [5.0]  # of state 1, action 1: the end
    assert search.tree.sim[2:5].tolist() == [0, 0, 1]


def test_slots_without_a_number_are_masked_and_returned():
    problem = _chain()
    problem.step.reward[0, 1, 0] = math.nan
    search = make_search(problem, states(0, 1), sims=4)
    path = simulate(search.tree, torch.tensor([0, 1]), torch.tensor([0, 0]), select=_ahead, max_depth=9)
    rows = Rows(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    masked = expand(search.tree, path, rows, search._evaluate)
    assert masked.tolist() == [2]
    assert int(search.tree.child[2]) == MASKED
    assert search.tree.probs[2] == 0.0
    assert search.tree.size == 1
    before = search.tree.sums[:2].clone()
    backward(search.tree, path)
    assert torch.equal(search.tree.sums[1], before[1])  # nothing came back to the second root
    assert search.tree.visits[:3].tolist() == [1.0, 0.0, 0.0]


def test_returns_go_back_with_discounts_and_penalties_by_parts():
    """`G = r - lambda u + g G'` up from V of the leaf, at each node added to what came before."""
    search = make_search(_chain(pessimism=Pessimism(penalty_coef=0.25)), states(0), sims=4)
    tree = search.tree
    _grow(search, 2)
    # The root's own V is 0. First 10 + g 100, then 10 + g (11 + g 200); a penalty of 0.5 at each step.
    assert tree.sums[0].tolist() == pytest.approx([10 + 15.5, 0.5 + 0.75, 0.5 * 100 + 0.25 * 200, 3.0])
    # The node behind it: V = 100, then 11 + g 200.
    assert tree.sums[1].tolist() == pytest.approx([11.0, 0.5, 100 + 0.5 * 200, 2.0])
    mean = (100 + 11 - 0.5 + 100) / 2
    assert float(tree.value(torch.tensor(1))) == pytest.approx(mean)
    assert float(tree.q[0]) == pytest.approx(10 - 0.5 + DISCOUNT * mean)
    assert float(tree.q[tree.first_edge(torch.tensor(1))]) == pytest.approx(11 - 0.5 + DISCOUNT * 200)
    assert tree.visits[0] == 2.0
    assert tree.sums[2, VISITS] == 1.0


def _run(search: Search, *, below: int) -> None:
    """Action 0 of the root, then `below`."""
    zero = torch.zeros(1, 1, dtype=torch.int64)
    search.run_round(zero, zero + search.rounds, select=lambda node, rows: torch.full_like(node, below))


def test_a_maximum_keeps_the_leaf_value_until_an_edge_is_better():
    """Below state 1, V = 100: action 1 ends with -1 and changes nothing, action 0 is worth 11 + 0.5 200."""
    search = make_search(_chain(), states(0), sims=4, backward=backward_max)
    tree, inner = search.tree, torch.tensor(1)
    _run(search, below=0)
    assert float(tree.value(inner)) == 100.0
    _run(search, below=1)
    assert float(tree.value(inner)) == 100.0
    assert float(tree.q[0]) == 10 + DISCOUNT * 100
    _run(search, below=0)
    assert float(tree.value(inner)) == 111.0
    assert tree.sums[1].tolist() == [3 * 11.0, 0.0, 3 * DISCOUNT * 200, 3.0]  # parts, times three visits
    assert float(tree.q[0]) == 10 + DISCOUNT * 111
    assert float(tree.value(torch.tensor(0))) == 10 + DISCOUNT * 111  # better than the root's own 0
    assert tree.visits[0] == 3.0
    assert tree.sums[0, VISITS] == 4.0


def test_a_maximum_charges_penalties_and_leaves_masked_slots_out():
    problem = _chain(pessimism=Pessimism(penalty_coef=4.0))  # 8 a step
    problem.step.reward[0, 1, 1] = math.nan
    search = make_search(problem, states(0), sims=4, backward=backward_max)
    tree = search.tree
    for below in (0, 0, 1):
        _run(search, below=below)
    assert float(tree.value(torch.tensor(1))) == pytest.approx(11 - 8 + DISCOUNT * 200)
    assert float(tree.q[0]) == pytest.approx(10 - 8 + DISCOUNT * 103)
    assert tree.visits[0] == 2.0  # the third came back with nothing
    assert search.bad_rows == 1


def test_outcomes_are_drawn_while_visits_permit_and_then_the_least_visited_is_taken():
    search = make_search(_chain(), states(0), sims=4, outcomes=3, widening=0.5)
    tree, edge = search.tree, torch.tensor([0])
    chosen = []
    for visits, outcomes in ((0, ()), (1, (1,)), (3, (2, 1)), (4, (1, 3)), (9, (5, 4)), (16, (9, 4, 3))):
        tree.visits[0] = visits
        tree.child[:3] = torch.tensor([1] * len(outcomes) + [UNVISITED] * (3 - len(outcomes)))
        tree.slot_visits[:3] = torch.tensor([*outcomes, *[0.0] * (3 - len(outcomes))], dtype=DOUBLE)
        chosen.append(int(choose_outcome(tree, edge)))
    # floor(n^0.5) = 0 0-th draw; 1: a second; 1 < 2: least; 2: a third; 3: a third; all three there: least
    assert chosen == [0, 1, 1, 2, 2, 2]
