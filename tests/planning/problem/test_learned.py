"""The adapters, by hand: units, members, termination, doubt, proposals."""

import math

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.learned import (
    CriticLeaf,
    DiscretePrior,
    LearnedStep,
    MeasureDoubt,
    PolicyPrior,
    TargetDoubt,
    make_prior,
    with_pessimism,
)
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.uncertainty.measures import ens_std
from tests.planning.linear import (
    SPACE,
    GaussianPolicy,
    LinearModel,
    LinearPolicy,
    QuadraticCritics,
    ends_beyond,
)

BOX = ActionBox(SPACE)
OBS, ACTION = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [-1.0]])  # actions of 1 and -2


def test_a_step_maps_actions_to_their_units_and_asks_every_member():
    step = LearnedStep(LinearModel((0.0, 1.0), (0.0, 0.0)), NeverTerminates(), BOX)
    out = step(OBS, ACTION)
    assert torch.allclose(out.next_observation[..., 0], torch.tensor([[1.4, 0.8], [2.4, 1.8]]))
    assert torch.allclose(out.reward, torch.tensor([[-1.0, -4.0]]).expand(2, 2))
    assert out.uncertainty.tolist() == [0.0, 0.0]
    assert not out.terminated.any()


def test_members_draws_and_ends_of_single_rows():
    model = LinearModel((0.0, 1.0), (0.0, 0.0))
    step = LearnedStep(model, ends_beyond(1.5), BOX)
    noise = torch.tensor([[2.0, 4.0], [0.0, -4.0]])
    out = step(OBS, ACTION, member=torch.tensor([1, 0]), noise=noise)
    assert torch.allclose(out.next_observation[:, 0], torch.tensor([2.9, 0.8]))
    assert torch.allclose(out.reward, torch.tensor([0.0, -5.0]))
    assert out.terminated.tolist() == [True, False]
    assert model.asked == [2]  # two rows through one member each


def test_doubt_makes_a_single_member_cost_them_all_and_changes_nothing_else():
    model = LinearModel((0.0, 1.0, 4.0), (0.0, 0.0, 0.0))
    doubt = MeasureDoubt(ens_std, 2.0)
    plain = LearnedStep(model, NeverTerminates(), BOX)(OBS, ACTION, member=torch.tensor([2, 0]))
    unsure = LearnedStep(model, NeverTerminates(), BOX, doubt=doubt)(OBS, ACTION, member=torch.tensor([2, 0]))
    assert model.asked == [2, 6]
    for name in ("next_observation", "reward", "terminated"):
        assert torch.equal(getattr(plain, name), getattr(unsure, name))
    spread = torch.tensor([0.0, 1.0, 4.0]).std(correction=0)
    assert torch.allclose(unsure.uncertainty, 2.0 * spread.expand(2))


def test_target_doubt_is_the_deviation_of_what_the_step_leads_to():
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics((1.0, 3.0)), prior, BOX)
    doubt = TargetDoubt(ends_beyond(2.0), prior, leaf, 0.5)
    model = LinearModel((0.0, 0.5, 10.0), (0.0, 1.0, 0.0))
    found = doubt(OBS[:1], torch.tensor([[1.0]]), model.predict(OBS[:1], torch.tensor([[1.0]])))
    value = [2.0 - 1.16 * s**2 for s in (1.4, 1.9)]  # mean critic; the mode is -0.4 s
    targets = [-1.0 + 0.5 * value[0], 0.0 + 0.5 * value[1], -1.0]  # the third member ends
    mean = sum(targets) / 3
    expected = math.sqrt(sum((target - mean) ** 2 for target in targets) / 3)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_draws_of_the_target_are_shared_so_that_members_that_agree_have_no_doubt():
    prior = PolicyPrior(GaussianPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    doubt = TargetDoubt(NeverTerminates(), prior, leaf, 0.9, action_samples=7)
    posterior = LinearModel((0.3, 0.3), (0.0, 0.0)).predict(OBS, ACTION)
    assert doubt(OBS, ACTION, posterior).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    apart = LinearModel((0.0, 0.3), (0.0, 0.0))
    together = doubt(OBS, ACTION, apart.predict(OBS, ACTION))
    alone = doubt(OBS[1:], ACTION[1:], apart.predict(OBS[1:], ACTION[1:]))
    assert torch.allclose(together[1:], alone)
    assert float(together.min()) > 0.0


def test_a_deterministic_policy_proposes_around_its_action():
    prior = PolicyPrior(LinearPolicy(), BOX, proposal_std=0.1)
    noise = torch.tensor([[[1.0], [-30.0]], [[0.0], [2.0]]])
    found = prior.sample(OBS, noise, spread=2.0)
    assert torch.allclose(found[..., 0], torch.tensor([[0.0, -1.0], [-0.2, 0.0]]), atol=1e-6)
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


def test_leaves_are_each_critics_value_of_the_mode_in_reward_units():
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics((0.0, 1.0)), prior, BOX, unit=10.0)
    assert torch.allclose(leaf.value(OBS), torch.tensor([[-11.6, -46.4], [-1.6, -36.4]]))
    assert torch.allclose(leaf.action_value(OBS, ACTION)[0], torch.tensor([-20.0, -80.0]))


def test_a_price_that_reads_no_doubt_frees_the_step_of_it():
    prior = PolicyPrior(LinearPolicy(), BOX)
    step = LearnedStep(LinearModel(), NeverTerminates(), BOX, doubt=MeasureDoubt(ens_std, 1.0))
    problem = PlanningProblem(step, prior, CriticLeaf(QuadraticCritics(), prior, BOX), 1, 0.9)
    free = with_pessimism(problem, Pessimism(lcb_coef=1.0)).step
    priced = with_pessimism(problem, Pessimism(penalty_coef=1.0)).step
    assert isinstance(free, LearnedStep)
    assert free.doubt is None
    assert priced is step
    halting = with_pessimism(problem, Pessimism(halt_threshold=1.0)).step
    assert halting is step
