import math

import pytest
import torch

from mbrl.ops.choices import (
    draw_choice,
    entropy,
    expectation,
    forbid,
    greedy_choice,
    log_probabilities,
    log_probability_of,
    one_hot,
    refuse_empty_masks,
    soft_greedy,
    take_choice,
    without_empty,
)

LOGITS = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]])
NO_LAST = torch.tensor([[True, True, False]])


def test_probabilities_among_the_allowed_by_hand():
    assert log_probabilities(LOGITS).exp().tolist()[0] == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    masked = log_probabilities(LOGITS, NO_LAST).exp()
    assert masked.tolist()[0] == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert float(masked[0, 2]) == 0.0  # exactly


def test_entropy_and_expectation_leave_out_what_is_forbidden():
    log_probs = log_probabilities(LOGITS, NO_LAST)
    expected = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert float(entropy(log_probs)) == pytest.approx(expected)
    values = torch.tensor([[3.0, 6.0, -math.inf]])
    assert float(expectation(log_probs, values)) == pytest.approx(5.0)


def test_gradients_through_forbidden_choices_are_numbers():
    logits = LOGITS.clone().requires_grad_()
    entropy(log_probabilities(logits, NO_LAST)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert float(logits.grad[0, 2]) == 0.0


def test_the_greedy_choice_is_allowed_and_of_equal_ones_the_lowest():
    values = torch.tensor([[1.0, 3.0, 3.0], [1.0, 3.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert greedy_choice(values, mask).tolist() == [1, 1]
    assert greedy_choice(values).tolist() == [1, 2]
    assert forbid(values, mask)[1, 2] == -math.inf


def test_entries_at_one_hot_choices():
    choice = one_hot(torch.tensor([2, 0]), 3)
    assert choice.tolist() == [[0, 0, 1], [1, 0, 0]]
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert take_choice(values, choice).tolist() == [3.0, 4.0]
    assert log_probability_of(values, choice).tolist() == [3.0, 4.0]


def test_epsilon_is_spread_over_the_allowed():
    probs = soft_greedy(torch.tensor([1]), NO_LAST, torch.tensor(0.2))
    assert probs.tolist()[0] == pytest.approx([0.1, 0.9, 0.0])


def test_draws_have_the_probabilities_and_take_nothing_forbidden():
    noise = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    for mask in (None, NO_LAST):
        log_probs = log_probabilities(LOGITS, mask)
        drawn = one_hot(draw_choice(log_probs.expand(40_000, -1), noise), 3).mean(0)
        expected = log_probs.exp()[0]
        slack = 5 * (expected * (1 - expected) / 40_000).sqrt() + 1e-9
        assert ((drawn - expected).abs() <= slack).all()


def test_draws_are_exact_in_the_tails_of_the_noise():
    # Phi(9) rounds to 1 in float32 and in float64: the larger of two large draws must win all the same.
    even = torch.zeros(1, 2)
    assert draw_choice(even, torch.tensor([[9.0, 8.5]])).tolist() == [0]
    assert draw_choice(even, torch.tensor([[-30.0, -31.0]])).tolist() == [0]


def test_a_mask_that_allows_nothing_is_refused_or_filled():
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="mask of row 1 allows no choice"):
        refuse_empty_masks(mask)
    assert without_empty(mask).tolist() == [[True, False], [True, True]]
    assert without_empty(None) is None
