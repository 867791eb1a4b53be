"""Policies as priors, by hand: units, proposals, logits."""

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.prior import DiscretePrior, PolicyPrior, make_prior
from tests.planning.linear import SPACE, GaussianPolicy, LinearPolicy

BOX = ActionBox(SPACE)
OBS = torch.tensor([[1.0], [2.0]])


def test_a_deterministic_policy_proposes_around_its_action():
    prior = PolicyPrior(LinearPolicy(), BOX, proposal_std=0.1)
    noise = torch.tensor([[[1.0], [-30.0]], [[0.0], [2.0]]])
    drawn = prior.sample(OBS, noise, spread=2.0)
    assert torch.allclose(drawn[..., 0], torch.tensor([[0.0, -1.0], [-0.2, 0.0]]), atol=1e-6)
    assert torch.allclose(prior.act(OBS)[:, 0], torch.tensor([-0.2, -0.4]))
    assert torch.allclose(prior.act(OBS, noise[1])[:, 0], torch.tensor([-0.2, -0.2]))


def test_a_policy_with_a_density_is_sampled_from_it_and_flattened_by_its_noise():
    prior = PolicyPrior(GaussianPolicy(), BOX)
    noise = torch.tensor([[[1.0], [1.0]]])
    assert torch.allclose(prior.sample(OBS, noise)[0, :, 0], torch.tensor([-0.15, -0.35]))
    assert torch.allclose(prior.sample(OBS, noise, spread=2.0)[0, :, 0], torch.tensor([-0.1, -0.3]))
    with pytest.raises(ConfigError, match="no logits"):
        prior.logits(OBS)


class _Coin:
    act_dim = 2

    def probs(self, obs):
        return torch.tensor([[0.25, 0.75], [1.0, 0.0]])[: len(obs)]

    def act(self, obs, noise=None):
        del noise
        return torch.nn.functional.one_hot(self.probs(obs).argmax(-1), 2).float()


def test_a_discrete_policy_has_finite_logits():
    prior = make_prior(_Coin(), SPACE)
    assert isinstance(prior, DiscretePrior)
    assert prior.is_discrete
    logits = prior.logits(OBS)
    assert logits.isfinite().all()
    assert torch.allclose(logits.softmax(-1), _Coin().probs(OBS), atol=1e-6)
    assert prior.act(OBS).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(ConfigError, match="not sampled"):
        prior.sample(OBS, torch.zeros(1, 2, 2))


def test_a_policy_is_the_prior_of_its_kind():
    continuous = make_prior(LinearPolicy(), SPACE, proposal_std=0.3)
    assert isinstance(continuous, PolicyPrior)
    assert (continuous.proposal_std, continuous.act_dim, continuous.is_discrete) == (0.3, 1, False)
