import math

import pytest
import torch

from mbrl.ops.on_policy import (
    approximate_kl,
    clipped_surrogate_loss,
    clipped_value_loss,
    generalised_advantage,
    standardise,
)


def by_hand(reward, value, next_value, ends, cuts, discount, trace):
    """One trajectory after the other, each from its last step backwards, sums written out."""
    advantage, start = [0.0] * len(reward), 0
    for stop in range(len(reward)):
        if not (ends[stop] or cuts[stop]):
            continue
        for t in range(start, stop + 1):
            for k in range(t, stop + 1):
                bootstrap = 0.0 if ends[k] else next_value[k]
                delta = reward[k] + discount * bootstrap - value[k]
                advantage[t] += (discount * trace) ** (k - t) * delta
        start = stop + 1
    return advantage


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_advantages_are_those_of_a_loop_over_trajectories_that_end_and_are_cut(trace):
    generator = torch.Generator().manual_seed(0)
    reward, value, next_value = torch.randn(3, 12, 2, generator=generator, dtype=torch.float64)
    ends, cuts = torch.zeros(2, 12, 2, dtype=torch.bool)
    ends[[3, 9], 0] = True  # the first column: two ends and a cut
    cuts[[5, 11], 0] = True
    cuts[11, 1] = True  # the second goes through
    found = generalised_advantage(reward, value, next_value, ends, ~(ends | cuts), discount=0.9, trace=trace)
    for column in range(2):
        parts = (part[:, column].tolist() for part in (reward, value, next_value, ends, cuts))
        assert found[:, column].tolist() == pytest.approx(by_hand(*parts, 0.9, trace))


def test_nothing_passes_an_end_and_what_is_no_number_behind_it_is_not_read():
    reward, zeros = torch.tensor([[1.0], [5.0]]), torch.zeros(2, 1)
    next_value = torch.tensor([[math.nan], [2.0]])
    ends = torch.tensor([[True], [False]])
    found = generalised_advantage(
        reward, zeros, next_value, ends, torch.tensor([[True], [False]]), discount=0.5, trace=1.0
    )
    assert found[:, 0].tolist() == [1.0, 6.0]


def test_without_trace_it_is_the_error_of_one_step_and_with_all_of_it_the_return_minus_the_value():
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [0.25], [0.125]])
    following = torch.tensor([[0.25], [0.125], [8.0]])
    ends, goes_on = torch.zeros(3, 1, dtype=torch.bool), torch.tensor([[True], [True], [False]])
    args = (reward, value, following, ends, goes_on)
    one = generalised_advantage(*args, discount=0.5, trace=0.0)
    assert one[:, 0].tolist() == [1 + 0.125 - 0.5, 2 + 0.0625 - 0.25, 4 + 4 - 0.125]
    whole = generalised_advantage(*args, discount=0.5, trace=1.0)
    assert whole[:, 0].tolist() == [1 + 1 + 1 + 1 - 0.5, 2 + 2 + 2 - 0.25, 4 + 4 - 0.125]


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 2.0, -2.0),  # -A rho, and d/d log pi of rho is rho
        (1.1, 2.0, -2.2),
        (1.3, 2.0, 0.0),  # beyond the bound, where the advantage wants it
        (1.3, -2.0, 2.6),  # beyond it, against its advantage: brought back
        (0.7, -2.0, 0.0),
        (0.7, 2.0, -1.4),
    ],
)
def test_the_gradient_ends_where_the_ratio_has_moved_far_enough(ratio, advantage, slope):
    log_prob = torch.tensor([math.log(ratio) - 3.0], requires_grad=True)
    loss = clipped_surrogate_loss(log_prob, torch.tensor([-3.0]), torch.tensor([advantage]), clip=0.2)
    loss.backward()
    bounded = min(max(ratio, 0.8), 1.2)
    assert loss.item() == pytest.approx(-min(ratio * advantage, bounded * advantage))
    assert log_prob.grad is not None
    assert float(log_prob.grad) == pytest.approx(slope)


def test_the_value_loss_is_half_the_squared_error_and_its_clipped_form_takes_the_larger():
    value, old = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([0.0, 3.0])
    target = torch.tensor([2.0, 2.0])
    assert clipped_value_loss(value, old, target, clip=None).item() == 0.5 * (1 + 1) / 2
    # The first moved by 1 and counts as if it had moved by 0.5 alone: 1.5 from its target.
    loss = clipped_value_loss(value, old, target, clip=0.5)
    assert loss.item() == 0.5 * (1.5**2 + 1) / 2
    loss.backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0.0, 0.5]


def test_standardised_advantages_have_mean_0_and_deviation_1_in_any_unit():
    values = torch.tensor([1.0, 2.0, 6.0])
    found = standardise(values)
    assert found.tolist() == pytest.approx(
        [-2 / math.sqrt(14 / 3), -1 / math.sqrt(14 / 3), 3 / math.sqrt(14 / 3)]
    )
    assert torch.equal(standardise(values * 2.0**-40), found)
    assert standardise(torch.full((4,), 0.1)).tolist() == [0.0] * 4


def test_the_divergence_is_0_of_the_same_policy_and_estimates_that_of_two_gaussians():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    old, new = -0.5 * x.square(), -0.5 * (x - 0.3).square()
    assert float(approximate_kl(old, old)) == 0.0
    assert float(approximate_kl(new, old)) == pytest.approx(0.3**2 / 2, rel=0.02)
