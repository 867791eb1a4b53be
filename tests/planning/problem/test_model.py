"""The step of a fitted ensemble, by hand: units, members, draws, ends, uncertainty."""

import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.model import LearnedStep, has_terminated
from tests.planning.linear import SPACE, LinearModel, ends_beyond

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


def test_uncertainty_makes_a_single_member_cost_them_all_and_changes_nothing_else():
    model = LinearModel((0.0, 1.0, 4.0), (0.0, 0.0, 0.0))

    def spread_of_means(obs, action, posterior):
        del obs, action
        return 2.0 * posterior.mean[..., 0].std(0, correction=0)

    plain = LearnedStep(model, NeverTerminates(), BOX)(OBS, ACTION, member=torch.tensor([2, 0]))
    measured = LearnedStep(model, NeverTerminates(), BOX, uncertainty=spread_of_means)
    unsure = measured(OBS, ACTION, member=torch.tensor([2, 0]))
    assert model.asked == [2, 6]
    for name in ("next_observation", "reward", "terminated"):
        assert torch.equal(getattr(plain, name), getattr(unsure, name))
    spread = torch.tensor([0.0, 1.0, 4.0]).std(correction=0)
    assert torch.allclose(unsure.uncertainty, 2.0 * spread.expand(2))


def test_a_step_ends_where_ending_is_likelier_than_not():
    def half_way(obs, action, next_obs):
        del obs, action
        return next_obs[:, 0]

    probability = torch.tensor([[[0.49], [0.51]], [[0.5], [0.9]]])
    ended = has_terminated(half_way, OBS, ACTION, probability)
    assert ended.tolist() == [[False, True], [False, True]]
    assert has_terminated(half_way, OBS, ACTION, probability[0]).tolist() == [False, True]


def test_a_known_reward_is_asked_of_every_members_successor():
    def rule(obs, action, next_obs):
        return 100.0 * next_obs[:, 0] + 10.0 * obs[:, 0] + action[:, 0]

    step = LearnedStep(LinearModel((0.0, 1.0), (0.0, 0.0)), NeverTerminates(), BOX, reward=rule)
    out = step(OBS, ACTION)  # actions of 1 and -2 reach it in their own units
    assert torch.allclose(out.reward, torch.tensor([[151.0, 98.0], [251.0, 198.0]]))
    one = step(OBS, ACTION, member=torch.tensor([1, 0]), noise=torch.zeros(2, 2))
    assert torch.allclose(one.reward, torch.tensor([251.0, 98.0]))
