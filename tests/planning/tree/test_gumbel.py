"""Gumbel search improves policies; its choices follow the published rules and known invariances."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.tree.qtransforms import scale_completed
from tests.planning.tasks import (
    DOUBLE,
    TablePrior,
    TableStep,
    TableValue,
    iterate_values,
    plan,
    random_tables,
    states,
    table_problem,
)


def _bandits(count: int, arms: int, *, seed: int) -> tuple[PlanningProblem, Tensor, Tensor]:
    """`count` one-step tasks whose critic knows the prior's value; logits and Q at random."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(count, arms, generator=generator, dtype=DOUBLE)
    q = torch.randn(count, arms, generator=generator, dtype=DOUBLE)
    end = torch.full((1, count + 1, arms), count)
    step = TableStep(end, torch.cat([q, q[:1]])[None], torch.tensor([False] * count + [True]))
    value = torch.cat([(logits.softmax(-1) * q).sum(-1), torch.zeros(1, dtype=DOUBLE)])
    problem = PlanningProblem(
        step, TablePrior(torch.cat([logits, logits[:1]])), TableValue(value[None]), 1, 0.9, dtype=DOUBLE
    )
    return problem, q, logits.softmax(-1)


@pytest.mark.parametrize(("sims", "seed"), [(2, 0), (7, 1), (16, 2), (64, 3)])
def test_every_bandit_improves_when_values_are_completed_by_that_of_the_policy(sims: int, seed: int):
    """2500 of 10,000 problems with 82 arms each: `E_pi'[Q] >= E_pi[Q]`, one by one."""
    problem, q, probs = _bandits(2500, 82, seed=seed)
    result = plan("gumbel", problem, states(*range(2500)), sims=sims, gumbel_scale=1.0, transition="mean")
    before = (probs * q).sum(-1)
    visits = result.visits.to(DOUBLE)
    completed = torch.where(visits > 0, q, before[:, None])
    sigma = scale_completed(
        completed,
        visits.clamp_min(1.0),
        probs=probs,
        raw_value=before,
        floor=torch.full((2500, 1), 1e-8, dtype=DOUBLE),
        visit_offset=50.0,
        value_coef=0.1,
    )
    after = ((probs.log() + sigma).softmax(-1) * q).sum(-1)
    assert (after >= before - 1e-6).all()
    mixed = (result.weights * q).sum(-1) - before
    assert mixed.mean() > 0.1
    if sims > 2:  # the action itself improves as well, on average over the noise
        taken = q.gather(1, result.action.argmax(-1, keepdim=True)).squeeze(1)
        assert float((taken - before).mean()) > 0.5


@pytest.mark.parametrize("exact", ["rounds", "mctx"])
def test_17_simulations_of_4_actions_are_7_6_2_2_whatever_the_noise(exact: str):
    following, reward, _ = random_tables(1)
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE))
    result = plan("gumbel", problem, states(*range(30)), sims=17, gumbel_scale=1.0, exact=exact)
    assert {tuple(sorted(row)) for row in result.visits.tolist()} == {(2, 2, 6, 7)}
    assert len({tuple(row) for row in result.visits.tolist()}) > 3


def test_masked_actions_are_neither_visited_nor_chosen_nor_weighted():
    following, reward, generator = random_tables(2)
    mask = torch.rand(30, 4, generator=generator) < 0.5
    mask[:, 1] |= ~mask.any(-1)
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE))
    for name in ("gumbel", "puct", "dpw"):
        for sims in (2, 17):
            result = plan(name, problem, states(*range(30)), sims=sims, hints=Hints(mask=mask), **(
                {"dirichlet_fraction": 0.25} if name == "puct" else {}))  # fmt: skip
            allowed = torch.stack([mask[row][result.candidates[row].argmax(-1)] for row in range(30)])
            assert (result.visits[~allowed] == 0).all()
            assert (result.visits.sum(-1) == sims).all()
            assert (result.weights[~allowed] == 0.0).all()
            assert mask.gather(1, result.action.argmax(-1, keepdim=True)).all()


def test_a_row_with_other_masks_does_not_change_a_plan():
    following, reward, _ = random_tables(5)
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE))
    noise = RowNoise(torch.arange(3))
    mask = torch.tensor([[True, True, True, True], [True, True, False, False], [False, True, False, False]])
    together = plan("gumbel", problem, states(0, 1, 2), sims=32, noise=noise, hints=Hints(mask=mask))
    for row in range(3):
        alone = plan(
            "gumbel", problem, states(row), sims=32, noise=noise.rows(slice(row, row + 1)),
            hints=Hints(mask=mask[row : row + 1]),
        )  # fmt: skip
        assert torch.equal(alone.visits[0], together.visits[row])
        assert torch.equal(alone.weights[0], together.weights[row])


def test_scaling_rewards_and_values_changes_nothing_but_the_scale():
    following, reward, generator = random_tables(6)
    values = torch.randn(30, generator=generator, dtype=DOUBLE)
    plain = plan("gumbel", table_problem(following, reward, values=values), states(*range(30)), sims=32)
    scaled = table_problem(following, 100.0 * reward, values=100.0 * values)
    scaled = dataclasses.replace(scaled, value_scale=100.0)
    result = plan("gumbel", scaled, states(*range(30)), sims=32)
    assert torch.equal(result.visits, plain.visits)
    assert torch.equal(result.action, plain.action)
    assert torch.allclose(result.value, 100.0 * plain.value)


def test_shifting_rewards_by_an_annuity_shifts_values_and_nothing_else():
    following, reward, generator = random_tables(7)
    values = torch.randn(30, generator=generator, dtype=DOUBLE)
    plain = plan("gumbel", table_problem(following, reward, values=values), states(*range(30)), sims=32)
    shifted = table_problem(following, reward + 7.0 * (1.0 - 0.95), values=values + 7.0)
    result = plan("gumbel", shifted, states(*range(30)), sims=32)
    assert torch.equal(result.visits, plain.visits)
    assert torch.equal(result.action, plain.action)
    assert torch.allclose(result.value, plain.value + 7.0)


def test_choosing_once_a_phase_costs_little_regret():
    """1000 states of a task with noisy leaves: at most a tenth more regret than choosing one by one."""
    following, reward, generator = random_tables(11, states=1000, actions=8)
    value, q = iterate_values(following, reward, discount=0.95)
    noisy = value + torch.randn(1000, generator=generator, dtype=DOUBLE)
    problem = table_problem(following, reward, values=noisy)
    regrets: dict[str, float] = {}
    for exact in ("mctx", "rounds"):
        result = plan(
            "gumbel", problem, states(*range(1000)), sims=32, gumbel_scale=1.0, exact=exact, transition="mean"
        )
        taken = q.gather(1, result.action.argmax(-1, keepdim=True)).squeeze(1)
        regrets[exact] = float((value - taken).mean())
    assert 0.0 < regrets["rounds"] <= 1.1 * regrets["mctx"]


def test_the_policys_mode_is_compared_even_if_it_ranks_last():
    """Noise hides the mode; it is visited all the same, and the bound of the gain is known."""
    following, reward, _ = random_tables(8, actions=6)
    logits = torch.zeros(30, 6, dtype=DOUBLE)
    logits[:, 3] = 1e-3
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE), logits=logits)
    settings = {"considered": 2, "gumbel_scale": 5.0, "sims": 4}
    compared = plan("gumbel", problem, states(*range(30)), **settings)
    assert (compared.visits[:, 3] > 0).all()
    assert compared.delta_lcb.isfinite().all()
    assert (
        plan("gumbel", problem, states(*range(30)), compare_policy=False, **settings).visits[:, 3] == 0
    ).any()
    slot = compared.action.argmax(-1)
    assert (compared.delta_lcb[slot == 3] == 0.0).all()


def test_logged_actions_share_their_prior_mass():
    following, reward, _ = random_tables(9)
    problem = table_problem(following, reward, values=torch.zeros(30, dtype=DOUBLE))
    logged = torch.nn.functional.one_hot(torch.tensor([[2], [0]]), 4).to(DOUBLE)
    tree = plan("gumbel", problem, states(0, 1), hints=Hints(candidates=logged), keep_tree=True).tree
    probs = tree.root.logits.softmax(-1)
    assert torch.allclose(probs[0], torch.tensor([0.1875, 0.1875, 0.4375, 0.1875], dtype=DOUBLE))
    assert tree.root.provenance.tolist() == [[2, 2, 0, 2], [0, 2, 2, 2]]
