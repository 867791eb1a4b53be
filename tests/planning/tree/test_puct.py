"""PUCT's formulas by hand; progressive widening against plain search and against dynamic programming."""

import math

import pytest
import scipy.stats
import torch

from mbrl.planning.noise import RowNoise
from mbrl.planning.tree.puct import draw_dirichlet, reveal, score_puct
from tests.planning.tasks import (
    DOUBLE,
    TablePrior,
    box_problem,
    iterate_values,
    plan,
    random_tables,
    states,
    table_problem,
)


def _row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=DOUBLE)


def test_the_score_by_hand():
    score = score_puct(
        _row(0.5, 0.0), _row(3.0, 0.0), probs=_row(0.7, 0.3), node_visits=torch.tensor([4.0], dtype=DOUBLE),
        init=1.25, base=19652.0,
    )  # fmt: skip
    bonus = 2.0 * (1.25 + math.log((4 + 19652 + 1) / 19652))
    assert score[0].tolist() == pytest.approx([0.5 + bonus * 0.7 / 4, bonus * 0.3])


def test_widening_reveals_the_root_of_visits():
    valid = torch.tensor([[True, False, True, True, True]]).expand(4, -1)
    shown = reveal(valid, torch.tensor([1.0, 4.0, 5.0, 400.0], dtype=DOUBLE), coef=1.0, exponent=0.5)
    assert shown.sum(-1).tolist() == [1, 2, 3, 4]
    assert shown[2].tolist() == [True, False, True, True, False]


def test_dirichlet_noise_has_its_marginals():
    draws = draw_dirichlet(RowNoise(torch.arange(2000)), 4, concentration=0.3)
    assert torch.allclose(draws.sum(-1), torch.ones(2000, dtype=DOUBLE))
    law = scipy.stats.beta(0.3, 0.9)
    assert scipy.stats.kstest(draws[:, 0].numpy(), law.cdf).pvalue > 1e-3


def test_widening_of_everything_at_once_is_the_plain_search():
    """alpha = 1 and c = A: all actions from the first visit; one outcome an edge."""
    following, reward, generator = random_tables(0)
    logits = torch.randn(30, 4, generator=generator, dtype=DOUBLE).sort(-1, descending=True).values
    problem = table_problem(
        following, reward, values=torch.randn(30, generator=generator, dtype=DOUBLE), logits=logits
    )
    noise = RowNoise(torch.arange(30))
    shared = {"sims": 40, "noise": noise, "transition": "mean", "max_depth": 8}
    plain = plan("puct", problem, states(*range(30)), **shared)
    wide = plan(
        "dpw", problem, states(*range(30)), action_coef=4.0, action_exponent=1.0, outcomes=1, **shared
    )
    assert torch.equal(plain.visits, wide.visits)
    assert torch.equal(plain.action, wide.action)
    assert torch.equal(plain.value, wide.value)


def _random_task(states_: int = 12, actions: int = 1):
    generator = torch.Generator().manual_seed(5)
    following = torch.rand(states_, actions, states_, generator=generator, dtype=DOUBLE) ** 4
    following = following / following.sum(-1, keepdim=True)
    reward = torch.randn(states_, actions, generator=generator, dtype=DOUBLE)
    value, q = iterate_values(following, reward, discount=0.95)
    return table_problem(following[None], reward[None], values=value), q


@pytest.mark.parametrize("transition", ["ts1", "ts_inf"])
def test_outcomes_drawn_anew_are_unbiased_and_average_out(transition: str):
    """Depth 1, beta 1, a slot for every draw: Q is a mean of n successors; its error falls as 1 / sqrt(n)."""
    problem, q = _random_task()
    errors = {}
    for sims in (4, 64):
        result = plan(
            "dpw", problem, states(*[0] * 200), sims=sims, max_depth=1, outcome_exponent=1.0, outcomes=sims,
            transition=transition,
        )  # fmt: skip
        error = result.value - q[0, 0]
        assert abs(float(error.mean())) < 3.0 * float(error.std()) / math.sqrt(200)
        errors[sims] = float(error.square().mean().sqrt())
    slope = math.log(errors[64] / errors[4]) / math.log(16.0)
    assert slope == pytest.approx(-0.5, abs=0.12)


def test_an_edge_keeps_one_outcome_without_widening_and_four_with():
    problem, _ = _random_task()
    settings = {"sims": 30, "max_depth": 1, "keep_tree": True}
    for outcomes, beta, expected in ((1, 1.0, 1), (4, 1.0, 4), (4, 0.5, 4), (4, 0.2, 2)):
        tree = plan("dpw", problem, states(0), outcomes=outcomes, outcome_exponent=beta, **settings).tree.tree
        assert tree.size == expected
        counts = tree.slot_visits[:outcomes] if outcomes > 1 else tree.visits[:1]
        assert counts.sum() == 30
        assert (counts[counts > 0].amax() - counts[counts > 0].amin()) <= (30 if beta < 0.5 else 20)


def test_a_temperature_draws_in_proportion_to_visits():
    """Three arms; the draws of 3000 states follow their visits."""
    following, reward, _ = random_tables(1, states=3, actions=3)
    problem = table_problem(following, 0.1 * reward, values=torch.zeros(3, dtype=DOUBLE))
    result = plan("puct", problem, states(*[0] * 3000), sims=6, temperature=1.0, transition="mean")
    assert len(result.visits.unique(dim=0)) <= 6  # ties are broken by noise
    taken = result.action.mean(0)
    assert torch.allclose(taken, result.weights.mean(0), atol=4 * 0.5 / math.sqrt(3000))
    greedy = plan("puct", problem, states(*[0] * 50), sims=6, transition="mean")
    most = greedy.visits.amax(-1)
    assert torch.equal((greedy.visits * greedy.action.long()).sum(-1), most)


def test_noise_at_the_root_reaches_actions_that_the_prior_excludes():
    following, reward, _ = random_tables(1, actions=3)
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE))
    problem.prior.table[:] = torch.tensor([0.0, -30.0, -30.0])
    assert isinstance(problem.prior, TablePrior)
    settings = {"sims": 12, "transition": "mean", "least_spread": 1.0}
    alone = plan("puct", problem, states(*range(30)), **settings).visits
    noisy = plan("puct", problem, states(*range(30)), dirichlet_fraction=0.9, **settings).visits
    assert (noisy[:, 1:] > 0).sum() > (alone[:, 1:] > 0).sum()


def test_continuous_widening_begins_with_the_policys_mode():
    problem = box_problem()
    obs = torch.tensor([[0.3, -0.2, 0.1]], dtype=DOUBLE)
    result = plan("dpw", problem, obs, sims=1)
    assert torch.allclose(result.action, problem.prior.act(obs))
