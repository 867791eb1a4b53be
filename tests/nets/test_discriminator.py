import dataclasses

import pytest
import torch

from mbrl.nets.discriminator import Discriminator
from mbrl.testing.samples import SPACE, make_normaliser, make_transitions


def make(**changes) -> Discriminator:
    settings = {"reads_actions": True, "shaping_discount": None} | changes
    return Discriminator(
        SPACE, (16,), make_normaliser(), generator=torch.Generator().manual_seed(0), **settings
    )


def test_a_reward_of_states_is_the_same_at_any_action_also_in_the_hands_of_others():
    rows, found = make_transitions(), make(reads_actions=False)
    others = rows.action.flip(0)
    assert torch.equal(found.reward(rows.observation, rows.action), found.reward(rows.observation, others))
    # g itself, which is stored with the run, is asked with actions.
    scaled = found.g.scale(others)
    torch.testing.assert_close(
        found.g(rows.observation, scaled)[0], found.reward(rows.observation, rows.action)
    )
    loss = found.reward(rows.observation, rows.action).sum() + found.gradient_penalty(
        rows, rows, torch.full((len(rows),), 0.5)
    )
    loss.backward()
    gradient = found.g.net.layers(found.g.net.flat.grad)[0].weight[:, SPACE.obs_dim :]
    assert bool((gradient == 0).all())


def test_shaping_adds_the_difference_of_a_potential():
    rows, found = make_transitions(), make(shaping_discount=0.9)
    assert found.h is not None
    after = found.h(rows.next_observation).masked_fill(rows.terminated, 0.0)
    expected = found.reward(rows.observation, rows.action) + 0.9 * after - found.h(rows.observation)
    torch.testing.assert_close(found.shaped(rows), expected)
    assert bool(rows.terminated.any())
    assert len(found.trained) == 2


@pytest.mark.parametrize("reads_actions", [True, False])
def test_the_penalty_is_that_of_gradients_by_differences(reads_actions):
    """In float64, of points between two rows, with respect to standardised states and scaled actions."""
    rows = make_transitions()
    first = dataclasses.replace(
        rows,
        **{
            field.name: getattr(rows, field.name)[:3]
            for field in dataclasses.fields(rows)
            if getattr(rows, field.name) is not None
        },
    )
    found = make(reads_actions=reads_actions)
    share = torch.tensor([0.0, 0.0, 0.0])
    penalty = found.gradient_penalty(first, first, share)
    obs = found.g.normaliser(first.observation).requires_grad_()
    scaled = found.g.scale(first.action) if reads_actions else torch.zeros_like(first.action)
    scaled.requires_grad_()
    out = found.g.net.forward_composite(torch.cat([obs, scaled], -1)).sum()
    inputs = (obs, scaled) if reads_actions else (obs,)
    gradient = torch.cat(torch.autograd.grad(out, inputs), -1)
    assert penalty.item() == pytest.approx(float((gradient.norm(dim=-1) - 1).square().mean()), rel=1e-5)
