"""Particles: which member predicts which step, with which draws."""

import pytest
import torch
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.shooting.particles import Particles, draw_particles
from tests.planning.worlds import make_problem, steady


def _draw(count: int, *, members: int, states: int = 2, transition: str = "ts_inf", outcome: str = "mean"):
    def still(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        return obs, obs[:, 0], *steady(obs[:, 0])

    return draw_particles(
        make_problem(still, members=members),
        RowNoise(torch.arange(states)),
        horizon=2,
        transition=transition,
        count=count,
        outcome=outcome,
    )


def test_a_particle_keeps_its_member_and_rows_come_sorted():
    """Five particles of three members: two, two and one, for each of 2 states and 4 plans a state."""
    particles = _draw(5, members=3)
    first, second = particles.members(4)
    assert first is not None
    assert first.tolist() == [0] * 16 + [1] * 16 + [2] * 8
    assert second is first
    assert particles.average.tolist() == [[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 1]]


def test_fewer_particles_than_members_use_as_many_members():
    particles = _draw(2, members=5)
    assert particles.average.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_ts1_draws_a_member_for_every_particle_and_step():
    particles = _draw(40, members=4, states=50, transition="ts1")
    first, second = (member.view(40, 50) for member in particles.members(1) if member is not None)
    assert torch.bincount(first.flatten()).tolist() == pytest.approx([500] * 4, abs=80)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert particles.average.tolist() == [[pytest.approx(1 / 40)] * 40]  # no return belongs to a member


def test_the_mean_is_one_particle_without_member_or_noise():
    particles = _draw(7, members=3, transition="mean", outcome="sample")
    assert (particles.count, particles.members(3), particles.draws(0, 3)) == (1, [None, None], None)


def test_plans_of_a_state_meet_the_same_draws_and_states_their_own():
    particles = _draw(3, members=3, outcome="sample")
    drawn = particles.draws(1, 4)
    assert drawn is not None
    drawn = drawn.view(3, 2, 4, 2)  # particles, states, plans, s' and r
    assert bool((drawn == drawn[:, :, :1]).all())
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, particles.draws(0, 4).view(3, 2, 4, 2))  # another step


def test_some_states_keep_their_own_particles():
    particles = _draw(3, members=3, states=4, outcome="sample")
    some = particles.states(slice(1, 3))
    assert isinstance(some, Particles)
    assert some.noise is not None
    assert particles.noise is not None
    assert torch.equal(some.noise, particles.noise[:, :, 1:3])
    assert (some.horizon, some.count) == (2, 3)
