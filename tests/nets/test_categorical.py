"""Policies over choices: softmax, greedy, filtered; masks, draws, files."""

import math
from pathlib import Path

import pytest
import torch

from mbrl.core.protocols import DiscretePolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.categorical import CategoricalSpec, GreedyPolicy, SoftmaxPolicy, categorical_class
from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.normaliser import Normaliser
from mbrl.run.policies import load_policy, save_policy
from mbrl.testing import check_policy

SPACE = SpaceSpec.discrete(3, ("a", "b", "c"))
NORMALISER = Normaliser(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0]))
SPECS = [
    CategoricalSpec("softmax", SPACE, (8,), layer_norm=True),
    CategoricalSpec("greedy", SPACE, (8, 8), members=3, dueling=True, quantiles=4),
    CategoricalSpec("filtered_greedy", SPACE, (8,), threshold=0.5),
]


def make(spec: CategoricalSpec, *, epsilon: float = 0.0):
    policy = categorical_class(spec.kind)(spec, NORMALISER, torch.Generator().manual_seed(0))
    if isinstance(policy, GreedyPolicy):
        policy.epsilon.fill_(epsilon)
    return policy.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_it_passes_every_check_of_a_policy(spec: CategoricalSpec, epsilon: float):
    policy = make(spec, epsilon=epsilon)
    assert isinstance(policy, DiscretePolicy)
    check_policy(policy, SPACE)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_it_survives_its_file_with_its_shapes_and_names(spec: CategoricalSpec, tmp_path: Path):
    policy = make(spec, epsilon=0.3)
    again = load_policy(save_policy(tmp_path / "policy.safetensors", policy, {})).policy
    assert {name: tuple(t.shape) for name, t in policy.state_dict().items()} == type(policy).tensor_shapes(
        spec
    )
    assert isinstance(again, type(policy))
    assert again.spec == spec
    obs = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.probs(obs), policy.probs(obs))


def test_a_greedy_policy_takes_the_least_critic_and_spreads_epsilon_over_the_allowed():
    policy = make(CategoricalSpec("greedy", SPACE, (), members=2), epsilon=0.3)
    assert isinstance(policy, GreedyPolicy)
    with torch.no_grad():
        policy.critic.net.flat.zero_()
        policy.critic.net.layers(policy.critic.net.flat)[-1].bias.copy_(
            torch.tensor([[[5.0, 2.0, 1.0]], [[0.0, 3.0, 1.0]]])
        )
    obs = torch.zeros(1, 3)
    assert policy.preferences(obs).tolist() == [[0.0, 2.0, 1.0]]
    assert policy.probs(obs).tolist()[0] == pytest.approx([0.1, 0.8, 0.1])
    mask = torch.tensor([[True, False, True]])
    assert policy.probs(obs, mask).tolist()[0] == pytest.approx([0.15, 0.0, 0.85])
    assert policy.act(obs, None, mask).tolist() == [[0.0, 0.0, 1.0]]


def test_quantiles_of_a_dueling_network_are_told_by_their_mean():
    critics = ChoiceCritics(
        1, 2, 2, (), generator=torch.Generator().manual_seed(0), dueling=True, quantiles=2
    )
    with torch.no_grad():
        critics.net.flat.zero_()
        # V has the quantiles 10, 20, the advantages 1, 3 and 3, 9.
        critics.net.layers(critics.net.flat)[-1].bias.copy_(
            torch.tensor([10.0, 20, 1, 3, 3, 9]).view(1, 1, 6)
        )
    obs = torch.zeros(1, 2)
    assert critics.quantiles(obs).flatten().tolist() == [9.0, 17.0, 11.0, 23.0]
    assert critics(obs).flatten().tolist() == [13.0, 17.0]


def test_a_thousand_choices_sum_to_one():
    space = SpaceSpec.discrete(3, 1000)
    policy = SoftmaxPolicy(
        CategoricalSpec("softmax", space, (4,)), NORMALISER, torch.Generator().manual_seed(0)
    )
    sums = policy.probs(torch.randn(50, 3, generator=torch.Generator().manual_seed(0))).double().sum(1)
    assert float((sums - 1).abs().max()) < 1e-6


def test_ties_go_to_the_lowest_choice():
    policy = make(CategoricalSpec("softmax", SPACE, ()))
    with torch.no_grad():
        policy.net.flat.zero_()
    assert policy.act(torch.zeros(1, 3)).tolist() == [[1.0, 0.0, 0.0]]
    assert policy.probs(torch.zeros(1, 3)).tolist()[0] == pytest.approx([1 / 3] * 3)
    assert math.isclose(float(policy.probs(torch.zeros(1, 3)).sum()), 1.0, abs_tol=1e-6)


def test_a_box_of_actions_is_refused():
    box = SpaceSpec(3, 1, (-1.0,), (1.0,))
    with pytest.raises(ValueError, match="actions of the space are continuous"):
        make(CategoricalSpec("softmax", box))
