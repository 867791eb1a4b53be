"""Trees on tasks with known values: dynamic programming, exhaustive expectimax, cliffs."""

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Budget, PlanResult
from mbrl.planning.deadline import Rounds
from mbrl.planning.noise import RowNoise
from mbrl.planning.tree.planner import Choice, TreeConfig, TreePlanner
from mbrl.planning.tree.proposals import DiscreteProposals
from mbrl.planning.tree.search import Search
from mbrl.planning.tree.tree import DISCOUNT, MIXED, PENALTY, REWARD, Tree
from tests.planning.tasks import DOUBLE, iterate_values, plan, random_tables, states, table_problem


class FullWidth:
    """Takes the least visited action everywhere."""

    outcomes, widening, is_end_final = 1, 0.5, True

    def rounds(self, sims: int) -> int:
        return sims

    def run(self, search: Search, *, sims: int, noise: RowNoise, rounds: Rounds) -> Choice:
        tree = search.tree
        for sim in rounds(sims):
            action = search.stats().visits.argmin(-1, keepdim=True)
            search.run_round(
                action,
                torch.full_like(action, sim),
                select=lambda node, rows: tree.below(tree.visits)[node - tree.trees].argmin(-1),
            )
        visits = search.stats().visits
        return Choice(visits.argmax(-1), visits / visits.sum(-1, keepdim=True), sims)


def _plan_full_width(problem, obs: Tensor, *, sims: int, max_depth: int) -> PlanResult:
    config = TreeConfig(max_depth=max_depth, transition="mean", keep_tree=True)
    planner = TreePlanner(
        problem, config, proposals=DiscreteProposals(problem), strategy=FullWidth(), clock=None
    )
    return planner.plan(obs, budget=Budget(sims=sims), noise=RowNoise(torch.arange(len(obs))))


def back_up_maxima(tree: Tree) -> Tensor:
    """Values of the roots if every node took its best visited edge: `max_a r + discount max ...`."""
    best = tree.raw_value.clone()
    for node in range(tree.trees + tree.size - 1, -1, -1):
        inner = node >= tree.trees
        width = tree.inner_width if inner else tree.root_width
        first = int(tree.first_edge(torch.tensor(node))) if inner else node * width
        visits = tree.visits[first : first + width]
        if not bool((visits > 0).any()):
            continue
        span = slice(first * tree.outcomes, (first + width) * tree.outcomes)
        parts, child = tree.parts[span], tree.child[span]
        worth = parts[:, REWARD] - parts[:, PENALTY] + parts[:, MIXED]
        worth = worth + parts[:, DISCOUNT] * best[child.clamp_min(0)]
        weighted = (tree.slot_visits[span] * worth).view(width, -1).sum(1) / visits.clamp_min(1.0)
        best[node] = weighted[visits > 0].max()
    return best[: tree.trees]


def _expectimax(following: Tensor, reward: Tensor, value: Tensor, *, depth: int, discount: float) -> Tensor:
    for _ in range(depth):
        value = (reward + discount * value[following]).amax(-1)
    return value


def test_full_width_search_is_exhaustive_expectimax():
    following, reward, generator = random_tables(3, states=20, actions=3)
    leaves = torch.randn(20, generator=generator, dtype=DOUBLE)
    problem = table_problem(following, reward, values=leaves, discount=0.9)
    result = _plan_full_width(problem, states(0, 7, 13), sims=3 + 9 + 27, max_depth=3)
    expected = _expectimax(following, reward, leaves, depth=3, discount=0.9)
    assert torch.allclose(back_up_maxima(result.tree.tree), expected[[0, 7, 13]])
    assert result.stats.model_rows == 3 * 39


def test_a_node_is_worth_the_average_of_its_edges_by_visits():
    following, reward, _ = random_tables(4, states=20, actions=3)
    problem = table_problem(following, reward, values=torch.arange(20, dtype=DOUBLE), discount=0.9)
    tree = plan("gumbel", problem, states(0, 1), sims=40, keep_tree=True).tree.tree
    for node in range(2, tree.trees + tree.size):
        visits, q = tree.below(tree.visits)[node - 2], tree.below(tree.q)[node - 2]
        expected = (tree.raw_value[node] + (visits * q).sum()) / (1.0 + visits.sum())
        assert torch.allclose(tree.value(torch.tensor(node)), expected)


def test_with_true_values_a_first_visit_is_exact_and_later_ones_never_too_high():
    following, reward, _ = random_tables(0)
    value, q = iterate_values(following, reward, discount=0.95)
    problem = table_problem(following, reward, values=value)
    every = torch.arange(30)
    for transition in ("mean", "member_forest", "ts_inf", "ts1"):
        first = plan("gumbel", problem, states(*every), sims=4, keep_tree=True, transition=transition).tree
        assert torch.equal(first.stats().visits, torch.ones(30, 4, dtype=DOUBLE))
        assert torch.allclose(first.stats().mean, q, atol=1e-6)
    for name in ("gumbel", "puct", "dpw"):
        later = plan(name, problem, states(*every), sims=64, keep_tree=True).tree.stats()
        assert (later.mean <= q + 1e-6)[later.visits > 0].all()


def test_more_simulations_leave_less_regret():
    regrets = {4: 0.0, 256: 0.0, "uniform": 0.0}
    for seed in range(4):
        following, reward, generator = random_tables(seed)
        value, q = iterate_values(following, reward, discount=0.95)
        noisy = value + torch.randn(30, generator=generator, dtype=DOUBLE)
        problem = table_problem(following, reward, values=noisy)
        regrets["uniform"] += float((value - q.mean(-1)).mean())
        for sims in (4, 256):
            result = plan("gumbel", problem, states(*range(30)), sims=sims, transition="mean")
            taken = q.gather(1, result.action.argmax(-1, keepdim=True)).squeeze(1)
            regrets[sims] += float((value - taken).mean())
    assert regrets[256] < regrets[4]
    assert regrets[256] < 0.15 * regrets["uniform"]


def _cliff():
    """States 0 to 4 in a row, 5 the abyss: action 0 goes on for 1, action 1 falls for -10."""
    following = torch.tensor([[min(s + 1, 4), 5] for s in range(5)] + [[5, 5]])
    reward = torch.tensor([[1.0, -10.0]] * 5 + [[100.0, 100.0]], dtype=DOUBLE)
    terminated = torch.tensor([False] * 5 + [True])
    value, _ = iterate_values(following, reward, discount=0.9, terminated=terminated)
    return following, reward, terminated, value


def test_nothing_is_bootstrapped_or_asked_beyond_a_terminal():
    following, reward, terminated, value = _cliff()
    poisoned = value.clone()
    poisoned[5] = 1e6
    for name in ("gumbel", "puct", "dpw"):
        problem = table_problem(following, reward, values=poisoned, terminated=terminated, discount=0.9)
        result = plan(name, problem, states(0, 2), sims=32, keep_tree=True)
        assert result.action.argmax(-1).tolist() == [0, 0]
        assert 5 not in torch.cat([asked[:, 0] for asked in problem.step.asked])
        assert 5 not in torch.cat(problem.leaf.asked)
        fallen = result.tree.stats()
        assert (fallen.mean[:, 1][fallen.visits[:, 1] > 0] == -10.0).all()
        assert back_up_maxima(result.tree.tree).tolist() == pytest.approx([10.0, 10.0])


def test_a_terminal_leaf_chosen_again_counts_and_costs_no_row():
    """One action only, and it ends the task: the model is asked once, the value is the reward."""
    problem = table_problem(
        torch.tensor([[1], [1]]),
        torch.tensor([[-3.0], [0.0]], dtype=DOUBLE),
        values=torch.tensor([0.0, 50.0], dtype=DOUBLE),
        terminated=torch.tensor([False, True]),
    )
    for name in ("gumbel", "puct"):
        result = plan(name, problem, states(0), sims=9)
        assert result.visits.tolist() == [[9]]
        assert result.stats.model_rows == 1
        assert result.value.tolist() == [-3.0]
        assert result.bootstrap_part.tolist() == [0.0]
