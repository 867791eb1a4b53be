"""Uncertainty changes choices exactly where it should: at lambda*, at kappa*, beyond u_max."""

import dataclasses
import math

import pytest
import torch

from mbrl.planning.problem.problem import Pessimism, discounted_steps
from mbrl.planning.tree.summary import plan_edges
from tests.planning.tasks import DOUBLE, box_problem, plan, states, table_problem

TREES = ("gumbel", "puct", "dpw")


def _two_arms(pessimism: Pessimism, *, members: torch.Tensor | None = None, **settings):
    """State 0: action 0 is risky, action 1 safe; both end the task."""
    reward = torch.zeros(1, 2, 2, dtype=DOUBLE) if members is None else members
    if members is None:
        reward[0, 0] = torch.tensor([2.0, 1.0])
    uncertainty = torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=DOUBLE)
    following = torch.ones(len(reward), 2, 2, dtype=torch.long)
    return table_problem(
        following,
        reward,
        values=torch.zeros(2, dtype=DOUBLE),
        terminated=torch.tensor([False, True]),
        uncertainty=uncertainty,
        pessimism=pessimism,
    )


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(("share", "chosen"), [(0.0, 0), (0.99, 0), (1.01, 1), (2.0, 1)])
def test_the_choice_flips_at_the_lambda_that_evens_the_rewards(name: str, share: float, chosen: int):
    """lambda* = (2 - 1) / 0.5."""
    problem = dataclasses.replace(_two_arms(Pessimism(penalty_coef=2.0 * share)), value_scale=0.1)
    result = plan(name, problem, states(0), sims=16)
    assert int(result.action.argmax()) == chosen
    assert float(result.penalty_part) == pytest.approx(share if chosen == 0 else 0.0)
    assert float(result.reward_part) == pytest.approx(2.0 if chosen == 0 else 1.0)


@pytest.mark.parametrize(("share", "chosen"), [(0.0, 0), (0.99, 0), (1.01, 1)])
@pytest.mark.parametrize("transition", ["member_forest", "ts_inf"])
def test_the_choice_flips_at_the_kappa_that_evens_the_bounds(share: float, chosen: int, transition: str):
    """Members say 3 and 1 of the risky action, 1.5 of the safe one: kappa* = (2 - 1.5) / 1."""
    members = torch.zeros(2, 2, 2, dtype=DOUBLE)
    members[:, 0] = torch.tensor([[3.0, 1.5], [1.0, 1.5]])
    problem = dataclasses.replace(
        _two_arms(Pessimism(lcb_coef=0.5 * share), members=members), value_scale=0.1
    )
    result = plan("gumbel", problem, states(0), sims=16, transition=transition)
    assert int(result.action.argmax()) == chosen
    value = [2.0, 1.5][chosen]
    assert float(result.value) == pytest.approx(value)
    assert float(result.value_lcb) == pytest.approx(value - (0.5 * share if chosen == 0 else 0.0))


def test_the_deviation_is_over_members_not_over_particles():
    """Three particles on two members: the member with two of them counts once."""
    members = torch.zeros(2, 2, 2, dtype=DOUBLE)
    members[:, 0] = torch.tensor([[3.0, 1.5], [1.0, 1.5]])
    problem = _two_arms(Pessimism(), members=members)
    tree = plan("gumbel", problem, states(0), sims=12, transition="ts_inf", particles=3, keep_tree=True).tree
    assert tree.stats().visits.tolist() == [[6.0, 6.0]]
    assert float(tree.stats().deviation[0, 0]) == pytest.approx(1.0)
    assert float(tree.stats().mean[0, 0]) == pytest.approx((2 * 3.0 + 1.0) / 3.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", TREES)
def test_no_plan_enters_what_is_too_uncertain_where_a_way_around_is_known(sign: float, name: str):
    """Random tasks in which half of the steps are out of bounds, the best of them by reward."""
    generator = torch.Generator().manual_seed(0)
    following = torch.randint(40, (40, 4), generator=generator)
    uncertainty = (torch.rand(40, 4, generator=generator) < 0.5).to(DOUBLE)
    uncertainty[torch.arange(40), torch.randint(4, (40,), generator=generator)] = 0.0
    reward = sign * (1.0 + torch.rand(40, 4, generator=generator, dtype=DOUBLE)) + 20.0 * uncertainty
    logits = 8.0 * uncertainty  # the prior likes them as well
    safe = torch.where(uncertainty > 0, -torch.inf, reward)
    value = torch.zeros(40, dtype=DOUBLE)
    for _ in range(500):
        value = (safe + 0.9 * value[following]).amax(-1)
    problem = table_problem(
        following,
        reward,
        values=value,
        uncertainty=uncertainty,
        logits=logits,
        discount=0.9,
        pessimism=Pessimism(
            halt_threshold=0.5,
            halt_loss=-min(float(safe[uncertainty == 0].min()), 0.0) * discounted_steps(0.9, None),
        ),
    )
    result = plan(name, problem, states(*range(40)), sims=32, keep_tree=True, **(
        {"action_coef": 4.0} if name == "dpw" else {}))  # fmt: skip
    slot = (result.candidates * result.action[:, None]).sum(-1).argmax(-1)
    edges = plan_edges(result.tree, slot)
    on_the_way = result.tree.tree.parts.view(-1, result.tree.tree.outcomes, 5)[edges.clamp_min(0), :, 4].amax(
        -1
    )
    assert (on_the_way[edges >= 0] == 0.0).all()


def test_a_soft_horizon_moves_value_from_the_model_to_the_critic():
    """One step, u = u_mean, eta = ln 2: half of gamma V(s') is booked as mixed, half as bootstrap below."""
    for eta in (0.0, math.log(2.0)):
        pessimism = Pessimism(soft_horizon_coef=eta, uncertainty_mean=0.5)
        problem = table_problem(
            torch.tensor([[1], [1]]), torch.zeros(2, 1, dtype=DOUBLE),
            values=torch.tensor([0.0, 8.0], dtype=DOUBLE),
            uncertainty=torch.full((2, 1), 0.5, dtype=DOUBLE), pessimism=pessimism, discount=0.5,
        )  # fmt: skip
        result = plan("gumbel", problem, states(0), sims=1, keep_tree=True)
        assert float(result.value) == pytest.approx(4.0)
        assert float(result.bootstrap_part) == pytest.approx(4.0)
        assert float(result.tree.tree.parts[0, 2]) == pytest.approx(0.0 if eta == 0 else 2.0)


def test_pessimism_of_nothing_is_the_plain_planner_bit_for_bit():
    obs = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    plain = plan("sampled_gumbel", box_problem(), obs)
    priced = plan(
        "sampled_gumbel", box_problem(uncertainty_coef=5.0, pessimism=Pessimism(halt_threshold=1e9)), obs
    )
    assert torch.equal(plain.value, priced.value)
    assert torch.equal(plain.weights, priced.weights)
    assert (priced.uncertainty > 0).all()


def test_members_differ_across_trees_and_within_ts1():
    problem = box_problem(members=4)
    obs = torch.zeros(1, 3, dtype=DOUBLE) + 0.5
    seen: list[torch.Tensor] = []
    inner = problem.step

    class Spy:
        ensemble_size = 4

        def __call__(self, obs, action, *, member=None, noise=None):
            if member is not None:
                seen.append(member)
            return inner(obs, action, member=member, noise=noise)

    spied = dataclasses.replace(problem, step=Spy())
    for transition in ("ts1", "ts_inf"):
        seen.clear()
        plan("sampled_gumbel", spied, obs, sims=64, transition=transition)
        assert set(torch.cat(seen).tolist()) == {0, 1, 2, 3}
