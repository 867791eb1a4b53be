import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from mbrl.ops.losses import (
    critic_diversity,
    critic_loss,
    masked_mean,
    mixture_log_prob,
    regularised_policy_loss,
    soft_policy_loss,
    squared_action_distance,
    squared_action_error,
    temperature_loss,
)


def test_the_mean_over_chosen_rows_is_zero_where_there_are_none():
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, 4.0, 8.0]])
    assert masked_mean(values, torch.tensor([True, False, True])).tolist() == [3.5, 4.0]
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_rows_left_out_are_not_in_the_critic_loss():
    values = torch.tensor([[1.0, 2.0, 50.0], [0.0, 1.0, -50.0]])
    target = torch.zeros(3)
    rows = torch.tensor([True, True, False])
    assert float(critic_loss(values, target, is_included=rows)) == pytest.approx((1 + 4) / 2 + (0 + 1) / 2)


def test_critic_loss_sums_over_critics_and_averages_over_the_batch():
    values = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    target = torch.tensor([0.0, 1.0])
    assert float(critic_loss(values, target)) == pytest.approx((1 + 4) / 2 + (0 + 1) / 2)


def test_a_critic_has_the_same_gradient_alone_and_in_company():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 8, generator=generator, requires_grad=True)
    target = torch.randn(8, generator=generator)
    critic_loss(values, target).backward()
    for k in range(4):
        alone = values[k : k + 1].detach().requires_grad_()
        critic_loss(alone, target).backward()
        torch.testing.assert_close(values.grad[k], alone.grad[0])


def test_soft_policy_loss_takes_the_least_critic_of_each_row():
    values = torch.tensor([[1.0, 5.0], [2.0, -1.0]])
    log_prob = torch.tensor([-1.0, 3.0])
    loss = soft_policy_loss(log_prob, values, entropy_coef=torch.tensor(0.5))
    assert float(loss) == pytest.approx(((0.5 * -1 - 1) + (0.5 * 3 + 1)) / 2)


@pytest.mark.parametrize(("entropy", "direction"), [(-5.0, 1), (3.0, -1)])
def test_temperature_rises_below_the_target_entropy_and_falls_above(entropy, direction):
    log_coef = torch.tensor(0.3, requires_grad=True)
    log_prob = torch.full((4,), -entropy)
    temperature_loss(log_coef, log_prob, target_entropy=-1.0).backward()
    assert float(log_coef.grad) == pytest.approx(entropy + 1.0)  # entropy - target
    assert -float(log_coef.grad) * direction > 0  # gradient descent moves against the gradient


def test_temperature_loss_value_by_hand():
    loss = temperature_loss(torch.tensor(2.0), torch.tensor([1.0, -4.0]), target_entropy=-3.0)
    assert float(loss) == pytest.approx(-2.0 * ((1 - 3) + (-4 - 3)) / 2)


@pytest.mark.parametrize("members", [2, 3, 10])
def test_diversity_of_identical_critics_is_their_number(members):
    gradient = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = critic_diversity(gradient.expand(members, 6, 3))
    assert float(value) == pytest.approx(members, abs=1e-6)


def test_diversity_of_orthogonal_and_opposite_gradients():
    orthogonal = 7 * torch.eye(3)[:, None]  # lengths must not matter
    assert float(critic_diversity(orthogonal)) == pytest.approx(0, abs=1e-6)
    opposite = torch.tensor([[[0.1, 0.2]], [[-3.0, -6.0]]])
    assert float(critic_diversity(opposite)) == pytest.approx(-2, abs=1e-5)


def test_diversity_equals_a_loop_over_pairs():
    gradients = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    total = 0.0
    for b in range(5):
        for i in range(4):
            for j in range(4):
                if i != j:
                    g_i, g_j = gradients[i, b], gradients[j, b]
                    total += float(g_i @ g_j / (g_i.norm() * g_j.norm()))
    assert float(critic_diversity(gradients)) == pytest.approx(total / 3 / 5, abs=1e-8)


def test_diversity_survives_a_vanishing_gradient():
    gradients = torch.zeros(2, 1, 2)
    gradients[0, 0, 0] = 1.0
    gradients.requires_grad_()
    value = critic_diversity(gradients)
    value.backward()
    assert float(value.detach()) == 0
    assert gradients.grad.isfinite().all()


def test_squared_action_error_is_a_mean_over_rows_and_dimensions():
    error = squared_action_error(
        torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    )
    assert float(error) == pytest.approx((1 + 4) / 4)


def test_mixture_log_prob_equals_the_reference_distribution():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    logits = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    means = torch.randn(7, 4, 2, generator=generator, dtype=torch.float64)
    log_stds = torch.randn(7, 4, 2, generator=generator, dtype=torch.float64)
    reference = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(means, log_stds.exp()), 1)
    ).log_prob(x)
    ours = mixture_log_prob(x, torch.log_softmax(logits, -1), means, log_stds)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def test_mixture_log_prob_far_from_every_component_stays_finite():
    ours = mixture_log_prob(
        torch.full((1, 1), 100.0), torch.full((1, 2), 0.5).log(), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    )
    assert float(ours) == pytest.approx(-5000 - 0.9189385, rel=1e-6)


def test_squared_action_distance_sums_over_dimensions():
    predicted, action = torch.tensor([[1.0, 0.0], [0.5, -1.0]]), torch.tensor([[0.0, 2.0], [0.5, -0.5]])
    assert squared_action_distance(predicted, action).tolist() == [5.0, 0.25]


def test_regularised_policy_loss_by_hand_with_a_scale_that_has_no_gradient():
    values = torch.tensor([1.0, -3.0], requires_grad=True)
    deviation = torch.tensor([0.5, 1.5], requires_grad=True)
    loss = regularised_policy_loss(values, deviation, value_coef=2.5, deviation_coef=0.1)
    assert float(loss.detach()) == pytest.approx(0.1 * 1.0 + 2.5 / 2 * 1.0)
    loss.backward()
    assert values.grad.tolist() == pytest.approx([-2.5 / 2 / 2] * 2)
    assert deviation.grad.tolist() == pytest.approx([0.05] * 2)


def test_regularised_policy_loss_survives_critics_that_answer_zero():
    loss = regularised_policy_loss(torch.zeros(3), torch.ones(3), value_coef=1.0, deviation_coef=1.0)
    assert float(loss) == 1.0
