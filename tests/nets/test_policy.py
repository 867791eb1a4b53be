import dataclasses
import json

import pytest
import torch

from mbrl.core.protocols import Policy
from mbrl.core.types import SpaceSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec

SPACE = SpaceSpec(3, 2, (-1.0, 0.0), (3.0, 10.0))


@dataclasses.dataclass(frozen=True, slots=True)
class MiddleSpec(PolicySpec):
    hidden: tuple[int, ...] = (8, 4)


class Middle(PolicyNetwork):
    """Acts in the middle of its box, moved by the first normalised coordinate."""

    def act(self, obs, noise=None):
        return self.unscale(self.normaliser(obs)[:, :1].expand(-1, 2))


def make():
    normaliser = Normaliser(torch.full((3,), 2.0), torch.full((3,), 4.0))
    return Middle(MiddleSpec("middle", SPACE), normaliser, torch.device("cpu"))


def test_a_spec_survives_json_and_lists_become_tuples():
    spec = MiddleSpec("middle", SPACE, hidden=(3, 5))
    plain = json.loads(json.dumps(spec.to_json()))
    assert plain["hidden"] == [3, 5]
    assert plain["space"]["act_high"] == [3.0, 10.0]
    assert MiddleSpec.from_json(plain) == spec


def test_actions_are_scaled_to_one_and_back():
    policy = make()
    corners = torch.tensor([[-1.0, 0.0], [3.0, 10.0], [1.0, 5.0]])
    assert policy.scale(corners).tolist() == [[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]
    assert torch.equal(policy.unscale(policy.scale(corners)), corners)


def test_a_network_is_a_policy_on_raw_observations():
    policy = make()
    assert isinstance(policy, Policy)
    assert policy.act_dim == 2
    # (4 - 2) / 4 = 1/2 of the half range above the middle.
    assert policy.act(torch.full((1, 3), 4.0)).tolist() == [[2.0, 7.5]]


def test_a_network_that_does_not_act_is_none():
    with pytest.raises(TypeError, match="abstract"):
        PolicyNetwork(PolicySpec("nothing", SPACE), Normaliser.identity(3), torch.device("cpu"))
