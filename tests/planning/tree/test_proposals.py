"""Root candidates: where they come from, what they weigh, which are one."""

import torch

from mbrl.planning.base import SOURCES, Hints
from mbrl.planning.tree.proposals import merge_close
from tests.planning.tasks import DOUBLE, BoxPrior, box_problem, plan

OBS = torch.tensor([[0.2, -0.1, 0.4], [0.1, 0.3, -0.2]], dtype=DOUBLE)


def _names(provenance: torch.Tensor) -> list[str]:
    return [SOURCES[k] for k in provenance.tolist()]


def test_equal_actions_become_the_first_with_their_weights_added():
    actions = torch.tensor([[[0.0], [0.5], [0.0005], [0.5], [-1.0]]], dtype=DOUBLE)
    weight = torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.4]], dtype=DOUBLE)
    merged, survivor = merge_close(actions, weight, distance=1e-3)
    assert merged.tolist() == [[0.4, 0.2, 0.0, 0.0, 0.4]]
    assert survivor.tolist()[0][:3] == [0, 1, 0]


def test_without_hints_the_policy_fills_the_place_of_the_clone():
    result = plan("sampled_gumbel", box_problem(), OBS)
    assert _names(result.provenance[0]) == ["policy"] * 12 + ["flat_policy"] * 4
    problem = box_problem()
    assert torch.allclose(result.candidates[:, 0], problem.prior.act(OBS))


def test_logged_actions_come_first_and_share_a_quarter():
    logged = torch.tensor([[[0.9, -0.9], [-0.8, 0.8]]] * 2, dtype=DOUBLE)
    warm = torch.full((2, 3, 2), 0.7, dtype=DOUBLE)
    hints = Hints(candidates=logged, warm=warm, has_warm=torch.tensor([True, False]))
    tree = plan("sampled_gumbel", box_problem(deviation=0.1), OBS, hints=hints, keep_tree=True).tree
    root = tree.root
    assert _names(root.provenance[0]) == ["dataset"] * 2 + ["policy"] * 8 + ["flat_policy"] * 4 + ["warm"]
    probs = root.logits.softmax(-1)
    assert torch.allclose(probs[:, :2], torch.full((2, 2), 0.125, dtype=DOUBLE))
    assert torch.allclose(probs.sum(-1), torch.ones(2, dtype=DOUBLE))
    assert root.valid[:, -1].tolist() == [True, False]
    assert torch.allclose(probs[0, 2:], torch.full((13,), 0.75 / 13, dtype=DOUBLE))


def test_plain_draws_have_logit_0():
    tree = plan("sampled_gumbel", box_problem(deviation=0.1), OBS, keep_tree=True).tree
    assert tree.root.logits.abs().max() < 1e-12


def test_a_clone_proposes_where_nothing_was_logged():
    import dataclasses

    problem = dataclasses.replace(box_problem(), clone=BoxPrior(torch.zeros(2, 3, dtype=DOUBLE), 0.0))
    result = plan("sampled_gumbel", problem, OBS)
    assert _names(result.provenance[0][:4]) == ["clone"] * 4
    assert (result.candidates[:, :4] == 0).all()
    assert (result.visits[:, 1:4] == 0).all()  # the same action four times is one candidate


def test_a_flattened_policy_is_wider():
    result = plan(
        "sampled_gumbel", box_problem(deviation=0.05), torch.zeros(1, 3, dtype=DOUBLE), policy_samples=400,
        flat_samples=400, considered=4,
    )  # fmt: skip
    flat = result.provenance[0] == SOURCES.index("flat_policy")
    ratio = result.candidates[0][flat].std() / result.candidates[0][~flat].std()
    assert 1.8 < float(ratio) < 2.2


def test_a_better_logged_action_is_found_though_the_policy_never_proposes_it():
    """The policy does nothing; the log holds the action that brings the state to 0."""
    problem = box_problem(members=1, deviation=0.01)
    problem.prior.gain.zero_()
    obs = OBS[:1]
    transition, control = problem.step.transition[0], problem.step.control[0]
    best = -(torch.linalg.pinv(control) @ transition @ obs[0])
    logged = best.clamp(-1, 1)[None, None]
    result = plan("sampled_gumbel", problem, obs, hints=Hints(candidates=logged))
    assert torch.allclose(result.action, logged[:, 0])
    assert result.delta_lcb.item() > 0
    without = plan("sampled_gumbel", problem, obs)
    assert result.value.item() > without.value.item()


def test_deterministic_policies_leave_one_candidate():
    problem = box_problem(deviation=0.0)
    result = plan("sampled_gumbel", problem, OBS, sims=8)
    assert (result.visits[:, 0] == 8).all()
    assert torch.allclose(result.action, problem.prior.act(OBS))
    assert (result.delta_lcb == 0).all()
